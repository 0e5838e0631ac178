"""The records and parameter files that are published with the repository belong together."""

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["smoke", "demo"])
def test_every_page_that_reads_published_records_finds_them(name, tmp_path):
    for page in load_plan(ROOT, name):
        given = page.get("parameters", {})
        if "published" not in given:
            continue
        settings = preset(given["preset"], **given.get("settings", {}))
        store = Store(tmp_path, ROOT / "book" / "records")
        experiment = Experiment(given.get("dataset", "motions"), settings, store)
        experiment.at_hand = False  # a record that is missing is to be an error here, not made
        records = experiment.table(given["methods"], seeds=given["seeds"])
        assert records and all(record["published"] for record in records)
