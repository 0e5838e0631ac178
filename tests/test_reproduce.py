"""Published records are computed anew from what they say themselves, and compared."""

import subprocess
import sys

import pytest
from conftest import write_dataset

from david import Experiment, Store, preset
from david.runs import reproduce
from david.support.files import read_json, write_json

CHANGES = {"width": 0.125, "distill_iterations": 1, "student_steps": 1, "student_batch": 4, "student_repeats": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A repository with the records of two methods on two classes of `ucf101`, and the folder of the videos."""
    root = tmp_path_factory.mktemp("repository")
    videos = write_dataset(tmp_path_factory.mktemp("ucf101") / "data")
    settings = preset("smoke", **CHANGES)
    experiment = Experiment("ucf101", settings, Store(root / "book" / "records"), root=videos, device="cpu")
    experiment.table(["full", "random", "dm"], seeds=[0, 1])
    return root, videos


def run(root, into, *arguments):
    return reproduce.main(["--root", str(root), "--into", str(into), *arguments])


def test_records_are_made_again_compared_and_not_made_twice(published, tmp_path, capsys, monkeypatch):
    root, videos = published
    assert run(root, tmp_path, "--videos", f"ucf101={videos}") == 0
    out = capsys.readouterr().out
    assert "5 records to compare, 5 of them to compute" in out and "[5/5] ucf101-" in out
    report = read_json(tmp_path / "reproduction.json")
    assert [(row["method"], row["ipc"], row["n"], row["identical"]) for row in report["rows"]] == [
        ("dm", 1, 2, 2),
        ("full", 0, 1, 1),
        ("random", 1, 2, 2),
    ]
    assert {row["difference"] for row in report["rows"]} == {"+0.0"}

    monkeypatch.setattr(Experiment, "run", lambda *_, **__: pytest.fail("this was to be read, not made"))
    assert run(root, tmp_path, "--videos", f"ucf101={videos}") == 0
    assert "5 records to compare, 0 of them to compute" in capsys.readouterr().out
    assert read_json(tmp_path / "reproduction.json")["rows"] == report["rows"]


def test_some_now_and_the_others_later(published, tmp_path, capsys):
    root, videos = published
    assert run(root, tmp_path, "--videos", f"ucf101={videos}", "--only", "*-random-*-seed0-*") == 0
    assert "5 records to compare, 1 of them to compute" in capsys.readouterr().out
    assert [row["n"] for row in read_json(tmp_path / "reproduction.json")["rows"]] == [1]
    assert sum(1 for _ in tmp_path.glob("ucf101-*.json")) == 1


def test_what_derives_from_a_dataset_belongs_to_it(published, tmp_path, capsys):
    root, videos = tmp_path / "repository", published[1]
    store = Store(root / "book" / "records")
    plain = Experiment("ucf101", preset("smoke", **CHANGES), store, root=videos, device="cpu")
    made = {"dataset": "heldout-ucf101", "made": {"device": "CPU, 1 thread"}}
    write_json(store.folder / "one.json", plain.identity("full", ipc=1, seed=0) | made)
    for named in (["--dataset", "ucf101"], ["--dataset", "heldout-ucf101"], []):
        assert run(root, tmp_path / "into", *named) == 0
        assert "1 records of ucf101 need its videos: --videos ucf101=FOLDER" in capsys.readouterr().out
    assert run(root, tmp_path / "into", "--videos", f"ucf101={videos}") == 1
    out, err = capsys.readouterr()
    assert "1 records to compare, 1 of them to compute" in out
    assert "class A of ucf101 has one group of training videos" in err


def test_a_report_grows(published, tmp_path, monkeypatch):
    """By what is computed on the same machine; a row that is made again replaces the earlier one."""
    root, videos = published
    command = ("--videos", f"ucf101={videos}", "--only", "*-random-*")
    assert run(root, tmp_path / "a", *command) == 0
    report = read_json(tmp_path / "a" / "reproduction.json")
    (row,) = report["rows"]
    rows = [row | {"method": "dm", "n": 9}, row | {"identical": 0}, row | {"method": "still"}]
    write_json(tmp_path / "earlier.json", report | {"rows": rows})
    assert run(root, tmp_path / "a", *command, "--add", str(tmp_path / "earlier.json")) == 0
    rows = read_json(tmp_path / "a" / "reproduction.json")["rows"]
    assert [(r["method"], r["n"], r["identical"]) for r in rows] == [("dm", 9, 2), ("random", 2, 2), ("still", 2, 2)]
    write_json(tmp_path / "earlier.json", report | {"machine": "another"})
    with pytest.raises(ValueError, match="--add: that report is of another machine, another and not "):
        run(root, tmp_path / "a", *command, "--add", str(tmp_path / "earlier.json"))


def test_two_processes(published, tmp_path):
    root, videos = published
    command = [
        sys.executable,
        "-m",
        "david",
        "reproduce",
        "--root",
        str(root),
        "--into",
        str(tmp_path),
        "--jobs",
        "2",
    ]
    done = subprocess.run([*command, "--videos", f"ucf101={videos}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = read_json(tmp_path / "reproduction.json")
    assert sum(row["identical"] for row in report["rows"]) == 5


def test_a_difference_is_seen(published, tmp_path):
    root, _ = published
    paths = sorted((root / "book" / "records").glob("ucf101-dm-*.json"))
    old = [read_json(path) for path in paths]
    new = [read_json(path) for path in paths]
    for student in old[0]["students"] + old[1]["students"]:
        student["top1"] = 0.5
    for student in new[1]["students"]:
        student["top1"] = 0.75
    for student in new[0]["students"]:
        student["top1"] = 0.5
    (row,) = reproduce.compare(old, new).to_dict("records")
    assert (row["published"], row["difference"], row["n"], row["identical"]) == ("50.0 ± 0.0", "+12.5", 2, 1)
    assert row["again"] == "62.5 ± 17.7"  # sample deviation of 0.5 and 0.75
    new[1]["settings"] = old[1]["settings"] = {"width": 2, "size": 48}  # other settings are another row
    rows = reproduce.compare(old, new)
    assert list(rows["n"]) == [1, 1] and rows["settings"][1] == "width 2" and "size" not in rows["settings"][0]


def test_one_record_that_fails_does_not_cost_the_others(published, tmp_path, capsys, monkeypatch):
    root, videos = published
    made = Experiment.run

    def fail_on_dm(self, method, **rest):
        if method == "dm":
            raise FloatingPointError("diverged")
        return made(self, method, **rest)

    monkeypatch.setattr(Experiment, "run", fail_on_dm)
    assert run(root, tmp_path, "--videos", f"ucf101={videos}") == 1
    out, err = capsys.readouterr()
    assert "ucf101-full" in out and "failed" in out
    assert err.count("FloatingPointError: diverged") == 2
    assert [row["method"] for row in read_json(tmp_path / "reproduction.json")["rows"]] == ["full", "random"]


def test_what_a_cpu_computed_is_computed_on_a_cpu_again(published, tmp_path):
    root, videos = published
    record = read_json(next((root / "book" / "records").glob("*.json")))
    assert reproduce.experiment_of(record, tmp_path, str(videos)).wanted == "cpu"
    gpu = {**record, "made": {"device": "NVIDIA H100 80GB HBM3"}}
    assert reproduce.experiment_of(gpu, tmp_path, str(videos)).wanted is None


def test_other_videos_than_the_published_ones_are_refused(published, tmp_path):
    root, _ = published
    other = write_dataset(tmp_path / "data", classes=("A", "C"))
    path = next((root / "book" / "records").glob("ucf101-random-*.json"))
    with pytest.raises(ValueError, match=r"the videos of ucf101 are not those of ucf101-random"):
        reproduce.remake(path, tmp_path / "into", str(other))


def test_records_whose_videos_are_not_at_hand_are_named(published, tmp_path, capsys):
    assert run(published[0], tmp_path) == 0
    out = capsys.readouterr().out
    assert "5 records of ucf101 need its videos: --videos ucf101=FOLDER" in out and "0 records to compare" in out
    assert not (tmp_path / "reproduction.json").exists()


def test_arguments_that_name_nothing(published, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(published[0], tmp_path, "--dataset", "hmdb51")
    assert "no published record of hmdb51" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(published[0], tmp_path, "--only", "dm")
    assert "no published record is named 'dm'; a name is such as ucf101-dm-ipc1-seed0-" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(published[0], tmp_path, "--videos", "ucf12")
    assert "--videos takes dataset=folder, got 'ucf12'" in capsys.readouterr().err
    for more, message in (
        (["--videos", "ucf102=."], "unknown dataset 'ucf102'"),
        (["--videos", "ucf12=/no such"], "argument --videos: '/no such' is no folder that is here"),
        (["--jobs", "0"], "argument --jobs: 0 processes make nothing"),
        (["--add", "no.json"], "argument --add: 'no.json' is no file that is here"),
        (["--into", __file__], "is, or is in, a file and no folder"),
        (["--root", "/no such"], "argument --root: '/no such' is no folder that is here"),
    ):
        with pytest.raises(SystemExit):
            run(published[0], tmp_path, *more)
        assert message in capsys.readouterr().err.splitlines()[-1]
