"""The page that says what the book took."""

import nbformat
import pytest
from davidbook.timings import write_page
from nbformat.v4 import new_markdown_cell, new_notebook

from david.support.files import write_json


def write_output(root, name, *, seconds, machine="CPU X, 2 cores", **records):
    """An executed page, as davidbook.build leaves it."""
    metadata = {
        "david": {"machine": machine, "versions": {"python": "3.12.1", "torch": "2.13.0"}, "records": records},
        "papermill": {"start_time": "2026-11-22T14:24:49.420087+00:00", "duration": seconds},
    }
    path = root / "book" / "notebooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A title")], metadata=metadata), path)


def write_record(root, number, dataset, distill, evaluate, device="CPU, 1 thread", method="dm"):
    seconds = {"distill": distill, "evaluate": evaluate}
    record = {
        "dataset": dataset,
        "method": method,
        "students": [{}] * 3,
        "seconds": seconds,
        "made": {"device": device},
    }
    write_json(root / "book" / "records" / f"{number}.json", record)


PLAN = [{"output": "a.ipynb", "parameters": {"preset": "demo"}}, {"output": "b.ipynb"}]


def test_each_page_has_a_line_and_each_dataset_of_records_a_sum(tmp_path):
    write_output(tmp_path, "a.ipynb", seconds=12.4, published=3, made=1)
    write_output(tmp_path, "b.ipynb", seconds=100.4, machine="GPU Y, 8 cores", read=2)
    write_record(tmp_path, 1, "motions", 1800, 1800)
    write_record(tmp_path, 2, "motions", 0, 3600, device="GPU")
    write_record(tmp_path, 3, "ucf12", 36, 36, method="full")
    text = write_page(tmp_path, PLAN).read_text()
    at = "2026\u201111\u201122\u00a014:24"  # hyphens and space that do not break
    assert f"| [a](a.ipynb) | demo | {at} | 12 | 3 / 0 / 1 | A |" in text
    assert f"| [b](b.ipynb) | default | {at} | 100 | 0 / 2 / 0 | B |" in text
    assert "In all 2 pages in 113 s." in text
    assert "**B**: GPU Y, 8 cores; Python 3.12.1, torch 2.13.0" in text
    assert "| motions | 2 | 0.50 | 1.50 | 2.00 | 600 to 1200 | CPU, 1 thread; GPU |" in text
    assert "| ucf12 | 1 | 0.01 | 0.01 | 0.02 |  | CPU, 1 thread |"  # networks on real data are no students in text
    assert "No report of such a run" in text


def test_the_recomputation_is_shown_where_its_report_is_published(tmp_path):
    seconds = {"seconds published": 61, "seconds again": 900}
    rows = [{"method": "dm", "n": 3, "identical": 3, **seconds}, {"method": "mtt", "n": 3, "identical": 1, **seconds}]
    report = {"time": "2026-11-23T01:00:00+00:00", "machine": "CPU X, 2 cores", "versions": {"torch": "2.13.0"}}
    write_json(tmp_path / "book" / "reproduction.json", report | {"rows": rows})
    for number in range(8):
        write_record(tmp_path, number, "motions", 1, 1)
    text = write_page(tmp_path, []).read_text()
    said = "torch 2.13.0: 6 of the 8 published records in 1.50 h of processes of one thread, 4 of them identical."
    assert f"CPU X, 2 cores, {said}" in text
    assert "| mtt | 3 | 1 |\n" in text and "seconds published" not in text


def test_a_page_that_was_not_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.ipynb was not made by this version of davidbook\.build"):
        write_page(tmp_path, PLAN)
