"""A passing failure is no verdict: only what is the file's own fault is kept, everything else is tried again."""

import json
import sys

import pytest
from conftest import write_dataset
from test_cache import SHAPE, poisoned

from david import Experiment, Store, preset
from david.data import cache, workers
from david.data.clips import open_clips
from david.data.readers import load

# A worker on which files fail while a file of that name lies beside them, as the disk or the machine would have them.
STUB = """
import builtins, errno, os, signal, sys, time
from david.data import decode, workers
def why(path):
    folder = os.path.dirname(path)
    return next((name for name in os.listdir(folder) if name in REASONS and name in path), "")
def decode_clip(path, *args, whole=decode.decode_clip):
    reason = why(path)
    if reason == "hang": time.sleep(60)
    if reason == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if reason == "exit": sys.exit(3)
    if reason == "memory":
        raise decode.DecodeError(path, "damaged") from MemoryError()
    if reason: raise decode.DecodeError(path, "unreadable")
    return whole(path, *args)
def read(path, *args, **kwargs):
    code = CODES.get(why(str(path)))
    if code: raise OSError(code, os.strerror(code))
    return builtins.open(path, *args, **kwargs)
CODES = {"denied": errno.EACCES, "broken": errno.EIO, "stale": errno.ESTALE, "away": errno.ENOTCONN}
REASONS = ("hang", "killed", "exit", "memory", *CODES)
decode.decode_clip, workers.open = decode_clip, read
workers.work()
"""
SAID = {
    "hang": r"timed out after 2 s",
    "killed": r"the decoder crashed \(SIGKILL\)",
    "exit": r"the decoder crashed \(exit code 3\)",
    "memory": r"unreadable \(no memory\)",
    "denied": r"unreadable \(Permission denied\)",
    "broken": r"unreadable \(Input/output error\)",
    "stale": r"unreadable \(Stale file handle\)",
    "away": r"unreadable \(Transport endpoint is not connected\)",
}
OPTIONS = SHAPE | {"timeout": 2, "workers": 2}


def write_failing(root, reason, one=True):
    """UCF101's layout, where a training video of class A fails for `reason`, or both do; and the file that says so."""
    write_dataset(root)
    lists = root / "trainlist01.txt"
    for clip in ("c01", "c02")[: 1 if one else 2]:
        (root / "A" / f"v_A_g02_{clip}.avi").rename(root / "A" / f"v_A-{reason}_g02_{clip}.avi")
        lists.write_text(lists.read_text().replace(f"v_A_g02_{clip}", f"v_A-{reason}_g02_{clip}"))
    (root / "A" / reason).touch()
    return root / "A" / reason


@pytest.mark.parametrize("reason", SAID)
def test_what_failed_for_a_passing_reason_is_tried_again(tmp_path, monkeypatch, reason):
    flag = write_failing(tmp_path, reason)
    dataset = load("ucf101", tmp_path)
    (tmp_path / "B" / "v_B_g02_c01.avi").write_bytes(b"no video")  # this one is damaged for good
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", STUB))
    said = rf"2 of 4 videos .* \(v_A-{reason}_g02_c01: {SAID[reason]}; v_B_g02_c01: .*, 1 of them only until the next"
    for _ in range(2):
        with pytest.warns(UserWarning, match=said):
            clips = open_clips(dataset, "train", **OPTIONS, cache=tmp_path)
    assert clips.names.tolist() == ["v_A_g02_c02", "v_B_g02_c02"]
    (report,) = tmp_path.glob("clips/*/report.json")
    assert [(video["row"], video["damaged"]) for video in json.loads(report.read_text())] == [(0, False), (2, True)]
    again = [line for line in report.with_suffix(".txt").read_text().splitlines() if "tried again" in line]
    assert len(again) == 1 and f"v_A-{reason}_g02_c01.avi: " in again[0]

    tried = []
    decode_all = cache.decode_all
    monkeypatch.setattr(cache, "decode_all", lambda todo, **kw: decode_all(tried.extend(todo) or tried, **kw))
    flag.unlink()
    with pytest.warns(UserWarning, match=r"1 of 4 videos of ucf101 train left out \(v_B_g02_c01: [^;]*\); all"):
        clips = open_clips(dataset, "train", **OPTIONS, cache=tmp_path)
    assert [job["row"] for job in tried] == [0] and len(clips) == 3
    with poisoned(), pytest.warns(UserWarning, match="1 of 4"):
        assert open_clips(dataset, "train", **OPTIONS, cache=tmp_path).names.tolist() == clips.names.tolist()


@pytest.mark.parametrize("reason", ["hang", "denied"])
def test_a_class_that_empties_says_which_of_the_two_it_was(tmp_path, monkeypatch, reason):
    flag = write_failing(tmp_path, reason, one=False)
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", STUB))
    said = rf"2 of 4 .* could not be read this time, .*{SAID[reason]}.*, and no others of class A are there: run again"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=said):
        open_clips(load("ucf101", tmp_path), "train", **OPTIONS, cache=tmp_path)
    flag.unlink()
    assert len(open_clips(load("ucf101", tmp_path), "train", **OPTIONS, cache=tmp_path)) == 4
    for path in (tmp_path / "A").glob("*g02*"):
        path.write_bytes(b"no video")
    said = r"no train clip of class A of ucf101 could be decoded, as all are damaged: see .*report\.txt, then mend"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=said):
        open_clips(load("ucf101", tmp_path), "train", **OPTIONS, cache=tmp_path)


def test_no_record_is_made_without_a_video_that_may_be_read_tomorrow(tmp_path, monkeypatch):
    flag = write_failing(tmp_path / "data", "away")
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", STUB))
    settings = preset("smoke", student_steps=1, student_repeats=1)
    experiment = Experiment("ucf101", settings, Store(tmp_path / "runs"), root=tmp_path / "data", device="cpu")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"1 of 4 .* could not be read this time"):
        experiment.run("random")
    assert not (tmp_path / "runs").exists()
    flag.unlink()
    assert experiment.run("random")["data"]["left_out"] == {"train": {}, "test": {}}


FLAKY = """
from david.data import decode, workers
failed = []
def decode_clip(path, *args, whole=decode.decode_clip):
    failed.append(path)
    if failed.count(path) == 1: raise decode.DecodeError(path, "truncated")
    return whole(path, *args)
decode.decode_clip = decode_clip
workers.work()
"""


def test_a_read_that_fails_once_costs_nothing(tmp_path, monkeypatch):
    dataset = load("ucf101", write_dataset(tmp_path))
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", FLAKY))
    assert len(open_clips(dataset, "train", **OPTIONS, cache=tmp_path)) == 4
