"""What is noted of a run: the machine without its name, versions, and digests that see every change."""

import json
import platform
import re

import torch
from davidbook import execution

from david import Store
from david.runs import records
from david.support.files import write_json


def test_machine_names_processor_and_cores_but_no_host():
    assert re.search(r".+, \d+ cores?(; .+)?$", execution.machine())
    assert platform.node() not in execution.machine()


def test_versions_are_those_that_run():
    versions = execution.versions()
    assert versions["python"] == platform.python_version() and versions["torch"] == torch.__version__.split("+")[0]
    assert "numpy" in versions and "papermill" not in versions  # what builds the book does not decide its numbers


def test_a_digest_sees_names_contents_and_borders(tmp_path):
    def digest(**files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        return execution.digest(folder.iterdir())

    assert digest(a="1", b="2") == digest(b="2", a="1")
    others = [digest(a="1", b="3"), digest(a="1", c="2"), digest(a="12", b=""), digest(a="1"), digest()]
    assert len({digest(a="1", b="2"), *others}) == 6


def test_report_counts_records_and_names_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "asked", set())
    monkeypatch.setattr(records, "used", {})
    store = Store("runs", "published")
    names = {"dataset": "motions", "fingerprint": "f", "ipc": 1, "seed": 0, "settings": {}}
    for method, folder in (("dm", "published"), ("mtt", "runs")):
        record = {"format": records.FORMAT, "method": method, **names}
        write_json(tmp_path / folder / store.path(record).name, record)
        assert store.find(method=method, **names)
    assert store.find(method="david", **names) is None
    store.add({"format": records.FORMAT, "method": "david", **names})

    report = json.loads(execution.report())
    assert report["records"] == {"published": 1, "read": 1, "made": 1}
    assert set(report["asked"]) == {
        "runs/motions-dm-ipc1-seed0-*.json",
        "published/motions-dm-ipc1-seed0-*.json",
        "runs/motions-mtt-ipc1-seed0-*.json",  # found there, so not looked for further
        "runs/motions-david-ipc1-seed0-*.json",
        "published/motions-david-ipc1-seed0-*.json",
    }


def test_report_of_a_notebook_without_records(monkeypatch):
    monkeypatch.delitem(execution.sys.modules, "david.runs.records")
    assert json.loads(execution.report()).items() >= {"records": {}, "asked": {}}.items()


def test_sources_include_the_package_and_its_versions(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.ipynb").write_text("{}")
    page = {"notebook": "a.ipynb", "output": "a.ipynb"}
    before = execution.sources(tmp_path, page)
    assert execution.sources(tmp_path, page) == before
    monkeypatch.setattr(execution, "versions", lambda: {"python": "4.0"})
    assert execution.sources(tmp_path, page) != before
    monkeypatch.undo()
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(execution, "__file__", str(package / "execution.py"))
    empty = execution.sources(tmp_path, page)
    (package / "table.csv").write_text("1")
    assert execution.sources(tmp_path, page) != empty
