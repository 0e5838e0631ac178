"""The page "On a GPU" judges by the numbers of the records, and says of what is missing that it is."""

import json
import shutil
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from david.support.files import read_json

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"


@pytest.fixture
def page(tmp_path, monkeypatch, screenless):
    """A function that runs the page on the records in ``folder`` and returns what its cells have set."""
    monkeypatch.chdir(tmp_path)

    def run(folder: Path) -> dict:
        notebook = load_notebook_node(str(ROOT / "notebooks" / "15-gpu.ipynb"))
        found = {"In": [""]}
        for cell in parameterize_notebook(notebook, {"published": str(folder)}).cells:
            if cell.cell_type == "code":
                found["In"].append(cell.source)
                exec(cell.source, found)
        return found

    return run


def test_nothing_was_run(page, tmp_path):
    found = page(tmp_path)
    assert not any(found["aims"].values()) and "not run yet" in found["seen"]


def test_aims_are_judged_by_the_records(page):
    found = page(RECORDS)
    met = {aim: row.get("met") for aim, row in found["aims"].items()}
    speed = read_json(RECORDS / "gpu-speed-h200.json")
    seconds = {name: median(own["seconds"]) for name, own in speed["iteration"].items()}
    for way, title in (("bfloat16, TF32", "as it is"), ("bfloat16, TF32, compiled", "compiled")):
        fast = seconds["plain recipe"] / seconds[way] >= 10
        assert met[f"a tenth of the plain recipe's time, {title}"] == ("yes" if fast else "<b>no</b>")
    apart = read_json(RECORDS / "gpu-exactness-h200.json")["relative difference to the CPU"]
    for name in ("embedding", "gradient", "adjoint"):
        assert met[f"within 1e-4 of the CPU: {name}"] == ("yes" if apart[name] <= 1e-4 else "<b>no</b>")
    words = list(met.values())
    counts = f"{words.count('yes')} were met, {words.count('<b>no</b>')} were not, {words.count(None)} were not run yet"
    assert counts in found["seen"]


def test_a_later_record_fills_what_is_missing(page, tmp_path):
    for path in RECORDS.glob("gpu-*.json"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "gpu-exactness-h200.json"
    record = read_json(path)
    record["relative difference to the CPU, with its choices"] = {"gradient": 3e-6, "adjoint": 2e-4}
    record["two runs of one seed"]["float32, deterministic"] = 0.0
    path.write_text(json.dumps(record))
    aims = page(tmp_path)["aims"]
    assert aims["within 1e-4 of the CPU, with its choices: gradient"]["met"] == "yes"
    assert aims["within 1e-4 of the CPU, with its choices: adjoint"]["met"] == "<b>no</b>"
    assert aims["one seed, twice the same videos: float32, deterministic"]["met"] == "yes"


def test_a_sweep_is_followed_by_the_mean_of_its_classes(page, tmp_path):
    looks = [
        {"iteration": i, "frames_per_segment": {"8": {"distance": d, "squared_gradient_norm": g, "change": c}}}
        for i, d, g, c in ((0, [4.0, 2.0], 0.0, 0.0), (10, [2.0, 1.0], 0.5, 0.25))
    ]
    record = read_json(RECORDS / "gpu-evidence-h200.json") | {"sweeps": {"noise": looks, "real": looks}}
    (tmp_path / "gpu-evidence-h200.json").write_text(json.dumps(record))
    found = page(tmp_path)
    table = found["paths"]["noise"]
    assert table["distance"].to_dict() == {0: 3.0, 10: 1.5} and table["change"].to_dict() == {0: 0.0, 10: 0.25}
    assert table["squared_gradient_norm"].isna().tolist() == [True, False]
    assert found["each"]["from noise"].to_numpy().tolist() == [[4, 2], [2, 1]]


def test_stages_at_several_sizes_by_hand(screenless):
    """A cell of the page "Speed", on a record made by hand."""
    cells = load_notebook_node(str(ROOT / "notebooks" / "14-speed.ipynb")).cells
    (code,) = [cell.source for cell in cells if "def sizes" in cell.source]
    found = {"median": median, "pd": pd, "shown": lambda *_: None}
    exec(code, found)

    def stage(seconds, **more):
        return {"seconds": seconds, "share of the bound": 0.25, "peak_bytes": 3 * 2**20, **more}

    base = {"classes": 10, "ipc": 1, "size": 48}
    points = [
        {**base, "stages": {"sampling": stage([1.0, 2.0, 9.0], **{"plain / ours": 1.234}), "search": stage([4.0])}},
        {**base, "ipc": 5, "stages": {"sampling": stage([3.0]), "search": stage([10.0])}},
    ]
    table = found["sizes"]({"base": base, "points": points})
    assert table.to_dict("list") == {
        "10 classes, IPC 1, 48 pixels": ["1.0, 25%, 3 MiB"] * 2,
        "IPC 5": ["1.5, 25%, 3 MiB", "2.5, 25%, 3 MiB"],
        "earlier code / ours": ["1.23", ""],
    }
    assert list(table.index) == ["sampling", "search"]
