"""The records and parameter files that are published with the repository belong together."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
from davidbook.build import load_plan
from davidbook.tables import side_by_side
from papermill import inspect_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from david import Experiment
from david.runs.records import IDENTITY, record_key
from david.runs.reproduce import experiment_of
from david.support.files import read_json

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "book" / "records").glob("*.json"))


def test_published_records_are_whole_named_by_their_keys_and_can_be_made_again(monkeypatch, tmp_path):
    nothing = property(lambda self: False, lambda self, value: None)  # no data: their fingerprint is in the record
    monkeypatch.setattr(Experiment, "at_hand", nothing, raising=False)
    for path in RECORDS:
        record = read_json(path)
        assert path.stem.endswith(record_key(record)) and set(IDENTITY) < set(record), path.name
        long = record["settings"].get("student_steps", 0) >= 300  # two of them; of short trainings it takes three
        assert len(record["students"]) == record["settings"]["student_repeats"] >= (2 if long else 3), path.name
        for student in record["students"]:
            known = [len(part) for part in (student["per_class"], record["classes"], record["frames_per_segment"])]
            assert len(set(known)) == 1 and 0 <= student["top1"] <= student["top5"] <= 1, path.name
        assert record["seconds"]["evaluate"] > 0 and record["stored_bytes"] > 0, path.name
        ipc, seed = record["ipc"] or 1, record["seed"]
        again = experiment_of(record, tmp_path).identity(record["method"], ipc=ipc, seed=seed)
        assert record_key(again | {"fingerprint": record["fingerprint"]}) == record_key(record), path.name


@pytest.mark.parametrize(("precision", "more"), [("bfloat16", {("ucf12", "dm", 3)})])
def test_a_faster_pass_changes_accuracies_by_less_than_they_deviate_over_seeds(precision, more):
    values = "float32", precision
    pairs = side_by_side(map(read_json, RECORDS), {"distill_precision": values}, values)
    found = {(row.dataset, row.method, row.n) for row in pairs.itertuples()}
    assert {("motions", "dm", 10), ("motions", "david:warmup", 10)} | more <= found
    assert pairs["within"].all(), pairs


@pytest.mark.parametrize("page", load_plan(ROOT, "demo"), ids=lambda page: page["output"])
def test_a_page_that_reads_published_records_finds_them(page, monkeypatch, tmp_path):
    """Run the page's own code with nothing at hand to make a record from: one that is missing is an error."""
    given = page.get("parameters") or {}
    if "published" not in given:
        pytest.skip("this page runs live")
    matplotlib.use("agg")
    nothing = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(Experiment, "at_hand", nothing, raising=False)
    monkeypatch.chdir(ROOT / "notebooks")
    own = {"runs": str(tmp_path)} if "runs" in inspect_notebook(page["notebook"]) else {}
    notebook = parameterize_notebook(load_notebook_node(page["notebook"]), given | own)
    namespace = {"In": [""]}
    with plt.rc_context():  # the page's style is its own
        for cell in notebook.cells:
            if cell.cell_type == "code":
                namespace["In"].append(cell.source)
                exec(cell.source, namespace)
        plt.close("all")
    assert not [path for path in tmp_path.iterdir() if not path.stem.startswith("tr-")]  # but for lists of classes
    if benchmarks := namespace.get("bench"):  # one page reads records of another kind
        assert all(benchmarks.values())
        return
    records = namespace.get("records") or namespace["fixed"] + namespace["searched"]
    assert records and all(record["published"] for record in records)
    if first := given.get("ipcs"):  # such a page may name rows as not run yet, but not these
        assert {r["method"] for r in records if r["ipc"] in (0, first[0])} >= {"full", "random", "dm", "david:warmup"}
    if given.get("longer"):
        gains = namespace["gains"]
        assert {"dm", "david:warmup", "mtt", "vdsd", "vdsd:mtt"} <= set(gains["method"])
        assert set(gains["n"]) == {len(given["seeds"])}
