"""Decoded once, resumed after any interruption, shared by processes; the key covers what changes a pixel."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, namedtuple

import numpy as np
import pytest
from conftest import write_dataset, write_video
from test_workers import assert_ends

from david.data import cache, workers
from david.data.clips import open_clips
from david.data.readers import load
from david.runs import command
from david.runs.settings import preset

SHAPE = {"frames": 8, "stride": 4, "size": 48}


@contextlib.contextmanager
def poisoned():
    """Within it, decoding anything is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "start_worker", lambda: pytest.fail("a worker was started"))
        yield


def test_a_complete_cache_is_opened_without_decoding(tiny_motions, tmp_path):
    first = open_clips(tiny_motions, "train", **SHAPE, cache=tmp_path)
    with poisoned():
        again = open_clips(tiny_motions, "train", **SHAPE, cache=tmp_path)
    np.testing.assert_array_equal(first.videos, again.videos)
    assert first.fingerprint == again.fingerprint


def test_the_key_covers_what_changes_a_pixel(tmp_path):
    dataset = load("ucf101", write_dataset(tmp_path / "data"))
    cache = tmp_path / "cache"

    def folders():
        return set((cache / "clips").iterdir())

    open_clips(dataset, "train", **SHAPE, cache=cache, workers=1)
    seen = folders()
    variants = [{"frames": 4}, {"stride": 1}, {"size": 32}, {"seed": 1}]
    for changed in variants:
        open_clips(dataset, "train", **SHAPE | changed, cache=cache, workers=1)
        assert len(folders() - seen) == 1, changed
        seen = folders()
    open_clips(dataset, "test", **SHAPE, cache=cache)
    seen = folders()
    with poisoned():
        open_clips(dataset, "test", **SHAPE, seed=1, cache=cache)  # centred: the seed changes nothing
    write_video(dataset.train[0].path, 35, width=64, height=48)
    open_clips(dataset, "train", **SHAPE, cache=cache)
    assert len(folders() - seen) == 1


def test_the_fingerprint_is_the_same_on_another_machine(tmp_path):
    prints = []
    for place in ("here", "there"):
        dataset = load("ucf101", write_dataset(tmp_path / place / "data"))
        prints.append(open_clips(dataset, "train", **SHAPE, cache=tmp_path / place).fingerprint)
        time.sleep(0.01)
    assert prints[0] == prints[1]
    other = open_clips(dataset, "train", **SHAPE, seed=3, cache=tmp_path / place).fingerprint
    assert other != prints[0]


SLOW = """
import signal, sys, time
from david.data import cache, clips, workers
from david.data.readers import load
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its background jobs deaf to it
start, decode_all = workers.start_worker, cache.decode_all
def tell():
    worker = start()
    print(worker.pid, flush=True)
    return worker
def slowly(*args, **kwargs):
    for answer in decode_all(*args, **kwargs):
        time.sleep(0.05)
        yield answer
workers.start_worker, cache.decode_all = tell, slowly
dataset = load("ucf101", sys.argv[1])
clips.open_clips(dataset, "train", frames=8, stride=4, size=48, workers=2, cache=sys.argv[2])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_goes_on_where_it_was(tmp_path, monkeypatch, how):
    root = write_dataset(tmp_path / "data", classes=("A", "B", "C"), clips=10)
    dataset = load("ucf101", root)
    whole = open_clips(dataset, "train", **SHAPE, cache=tmp_path / "whole")

    command = [sys.executable, "-c", SLOW, root, tmp_path / "cut"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as build:
        pids = [int(build.stdout.readline()) for _ in range(2)]
        journal = None
        while journal is None or len(journal.read_bytes().splitlines()) < 5:
            assert build.poll() is None
            journal = next((tmp_path / "cut").glob("clips/*/journal.jsonl"), None)
            time.sleep(0.01)
        build.send_signal(how)
        errors = build.communicate(timeout=20)[1]
    assert build.returncode != 0 and ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    for pid in pids:
        assert_ends(pid)
    assert not (journal.parent / "meta.json").exists()
    finished = len(journal.read_bytes().splitlines())
    assert 5 <= finished < 30

    # What else an interruption may leave: half a line, and a line whose pixels never reached the disk.
    with open(journal, "ab") as file:
        file.write(b'{"row": 2')
    jobs = []
    decode_all = cache.decode_all
    monkeypatch.setattr(cache, "decode_all", lambda todo, **kw: decode_all(jobs.extend(todo) or jobs, **kw))
    resumed = open_clips(dataset, "train", **SHAPE, cache=tmp_path / "cut")
    assert len(jobs) == 30 - finished
    np.testing.assert_array_equal(resumed.videos, whole.videos)
    assert resumed.fingerprint == whole.fingerprint


def test_a_journal_line_without_its_pixels_is_done_again(tmp_path):
    dataset = load("ucf101", write_dataset(tmp_path / "data"))
    whole = np.array(open_clips(dataset, "train", **SHAPE, cache=tmp_path).videos)
    (folder,) = (tmp_path / "clips").iterdir()
    (folder / "meta.json").unlink()
    with open(folder / "clips.u8", "rb+") as file:
        file.write(bytes(1000))
    with open(folder / "journal.jsonl", "ab") as file:
        file.write(b'{"row": 99, "crc": 0}\n[1]\n"text"\n{"row": 1}\n\x00\xff\n')
    np.testing.assert_array_equal(open_clips(dataset, "train", **SHAPE, cache=tmp_path).videos, whole)


def test_two_processes_build_one_cache_together(tmp_path):
    root = write_dataset(tmp_path / "data", clips=4)
    command = [sys.executable, "-c", SLOW, root, tmp_path / "cache"]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [build.communicate(timeout=60)[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0]
    assert sum(line.isdigit() for output in outputs for line in output.split()) == 2  # one of them did the work
    (journal,) = (tmp_path / "cache").glob("clips/*/journal.jsonl")
    rows = Counter(json.loads(line)["row"] for line in journal.read_text().splitlines())
    assert rows == Counter(range(8))


def test_full_and_read_only_cache_folders(tiny_motions, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match=r"cannot write in the folder .*file.*DAVID_CACHE"):
        open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path / "file")
    usage = namedtuple("usage", "total used free")(1000, 900, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"needs [\d,]+ bytes and has 100 free.*DAVID_CACHE"):
        open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path / "full")


def test_a_complete_cache_may_be_read_only(tiny_motions, tmp_path, monkeypatch):
    open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path)
    (folder,) = (tmp_path / "clips").iterdir()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    monkeypatch.setattr("david.support.files.make_folder", lambda folder: pytest.fail("tried to write"))
    clips = open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path)
    clips.to("cpu").videos[0] = 0  # in memory only
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
    assert open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path).videos[0].any()


def test_corrupt_cache_files_name_the_remedy(tiny_motions, tmp_path):
    open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path)
    (report,) = tmp_path.glob("clips/*/report.json")
    report.write_text("[{")
    with pytest.raises(ValueError, match=r"report\.json is not valid JSON"):
        open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path)


def test_as_many_workers_as_asked_for_and_a_word_on_the_time(tmp_path, monkeypatch, capsys):
    dataset = load("ucf101", write_dataset(tmp_path / "data", clips=5))
    started = []
    start = workers.start_worker
    monkeypatch.setattr(workers, "start_worker", lambda: started.append(start()) or started[-1])
    monkeypatch.setattr(cache, "FIRST", 2)
    monkeypatch.setenv("DAVID_PROGRESS", "1")
    for count in (1, 2):
        open_clips(dataset, "train", **SHAPE, workers=count, cache=tmp_path / str(count))
        assert len(started) == count
        started.clear()
        said = capsys.readouterr().out
        how = "1 worker" if count == 1 else "2 workers"
        assert re.fullmatch(rf"decoding 10 clips of ucf101 train with {how}: about \d+ s at [\d.]+ clips/s\n", said)
    monkeypatch.setenv("DAVID_PROGRESS", "0")
    open_clips(dataset, "test", **SHAPE, cache=tmp_path)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="workers=0: at least 1"):
        open_clips(dataset, "train", **SHAPE, workers=0, cache=tmp_path)


def test_a_cache_filled_from_the_command_line_is_the_one_that_a_run_opens(tmp_path, capsys):
    root = write_dataset(tmp_path / "data")
    (root / "A" / "v_A_g02_c01.avi").write_bytes(b"")
    settings = preset("smoke")
    command.cache(["ucf101", str(root), "--preset", "smoke", "--size", "32", "--workers", "2"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("3 train clips, 1 left out: ") and said[1].startswith("2 test clips, 0 left out: ")
    with poisoned(), pytest.warns(UserWarning, match="1 of 4 videos"):
        clips = open_clips(load("ucf101", root), "train", frames=settings.frames, stride=settings.stride, size=32)
    assert len(clips) == 3
