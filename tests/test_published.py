"""The records and parameter files that are published with the repository belong together."""

import ast
from pathlib import Path

import pytest
from papermill import inspect_notebook

from david import Experiment, Store, preset
from david.book import load_plan
from david.files import read_json
from david.records import IDENTITY, record_key

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "book" / "records").glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_published_record_is_whole_and_named_by_its_key(path):
    record = read_json(path)
    assert path.stem.endswith(record_key(record)) and set(IDENTITY) < set(record)
    assert len(record["students"]) == record["settings"]["student_repeats"] >= 3
    for student in record["students"]:
        assert len(student["per_class"]) == len(record["classes"]) == len(record["frames_per_segment"])
        assert 0 <= student["top1"] <= student["top5"] <= 1
    assert record["seconds"]["evaluate"] > 0 and record["stored_bytes"] > 0


@pytest.mark.parametrize("page", load_plan(ROOT, "demo"), ids=lambda page: page["output"])
def test_a_page_that_reads_published_records_finds_them(page, tmp_path):
    """All that its parameters name, with nothing at hand to make a record from."""
    given = page.get("parameters", {})
    if "published" not in given:
        pytest.skip("this page runs live")
    notebook = ROOT / "notebooks" / page["notebook"]
    defaults = {p["name"]: ast.literal_eval(p["default"]) for p in inspect_notebook(str(notebook)).values()}
    given = defaults | given
    settings = preset(given["preset"], **given["settings"])
    experiment = Experiment(given["dataset"], settings, Store(tmp_path, ROOT / "book" / "records"))
    experiment.at_hand = False  # a record that is missing is to be an error here, not made
    records = []
    for name in ("methods", "cases", "grid", "controls", "searches", "early", "full"):
        rows = given.get(name, [])
        rows = [rows] if isinstance(rows, str) else rows
        ipcs = given.get("ipcs", [given.get("ipc", 1)])
        if not given.get("make", True):  # such a page names what is missing, beyond its first IPC
            ipcs = ipcs[:1]
        records += experiment.table(rows, ipcs=ipcs, seeds=given["seeds"])
    records += experiment.table(["dm"], ipcs=given.get("more", []), seeds=given["seeds"])
    assert records and all(record["published"] for record in records)
