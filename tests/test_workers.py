"""A worker that hangs, crashes or is orphaned costs its clip only; every other clip lands where it belongs."""

import contextlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import write_video

from david.data import workers
from david.data.decode import decode_clip


def test_workers_need_no_torch():
    code = "import sys, david.data.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


STUB = """
import os, signal, sys, time
from david.data import decode, workers
def decode_clip(path, *args, whole=decode.decode_clip):
    name = os.path.basename(path)
    if "hang" in name: time.sleep(60)
    if "crash" in name: os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in name: sys.exit(3)
    return whole(path, *args)
decode.decode_clip = decode_clip
workers.work()
"""


def jobs_for(paths, out, size=48):
    out.write_bytes(bytes(len(paths) * 8 * size * size * 3))
    common = {"frames": 8, "stride": 4, "size": size, "start": "centre", "out": str(out)}
    return [common | {"path": str(path), "offset": i * 8 * size * size * 3} for i, path in enumerate(paths)]


def test_workers_write_every_clip_where_it_belongs(tmp_path):
    paths = [write_video(tmp_path / f"{i}.avi", 30 + i, width=64, height=48) for i in range(5)]
    out = tmp_path / "clips.u8"
    answers = {job["path"]: answer for job, answer in workers.decode_all(jobs_for(paths, out), workers=2, timeout=40)}
    clips = np.fromfile(out, np.uint8).reshape(5, 8, 48, 48, 3)
    for i, path in enumerate(paths):
        assert answers[str(path)]["frames"] == 30 + i
        np.testing.assert_array_equal(clips[i], decode_clip(path, 8, 4, 48)[0])
    assert list(workers.decode_all([], workers=2, timeout=40)) == []


def test_a_hanging_or_crashing_decoder_costs_its_clip_only(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", STUB))
    whole = write_video(tmp_path / "a.avi", 30, width=64, height=48)
    names = ["a.avi", "hang.avi", "crash.avi", "exit.avi", "absent.avi", "b.avi"]
    (tmp_path / "b.avi").write_bytes(whole.read_bytes())
    jobs = jobs_for([tmp_path / name for name in names], tmp_path / "clips.u8")
    answers = {os.path.basename(job["path"]): answer for job, answer in workers.decode_all(jobs, workers=2, timeout=4)}
    assert answers["hang.avi"] == {"error": "timed out after 4 s"}
    assert answers["crash.avi"] == {"error": "the decoder crashed (SIGSEGV)", "damaged": True}
    assert answers["exit.avi"] == {"error": "the decoder crashed (exit code 3)"}
    assert answers["absent.avi"] == {"error": "unreadable (No such file or directory)"}
    assert answers["a.avi"]["frames"] == answers["b.avi"]["frames"] == 30


def test_a_disk_that_cannot_be_written_stops_everything(tmp_path):
    path = write_video(tmp_path / "a.avi", 30, width=64, height=48)
    jobs = [jobs_for([path], tmp_path / "clips.u8")[0] | {"out": str(tmp_path / "gone" / "clips.u8")}]
    with pytest.raises(OSError, match=r"cannot write .*gone"):
        list(workers.decode_all(jobs, workers=1, timeout=40))


def test_leaving_early_ends_the_workers(tmp_path, monkeypatch):
    started = []
    start = workers.start_worker
    monkeypatch.setattr(workers, "start_worker", lambda: started.append(start()) or started[-1])
    path = write_video(tmp_path / "a.avi", 30, width=64, height=48)
    with contextlib.closing(workers.decode_all(jobs_for([path] * 9, tmp_path / "c"), workers=2, timeout=40)) as answers:
        next(answers)
    assert len(started) == 2 and all(worker.returncode is not None for worker in started)


def test_workers_end_with_their_parent():
    code = "import time; from david.data import workers\nprint(workers.start_worker().pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    assert_ends(pid)


def assert_ends(pid, seconds=20):
    """Wait until the process `pid`, an orphan, is gone."""
    for _ in range(seconds * 20):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} lives on")
