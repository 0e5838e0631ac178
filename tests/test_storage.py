"""Storage that is not a plain local disk: full, read-only, without locks, without modes. One error, or none."""

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_dataset
from davidbook import figures
from toy import noise_clips

from david import Experiment, Store, export, preset
from david.baselines.experts import load_experts
from david.data.clips import open_clips
from david.data.readers import load
from david.data.readers.motions import motions
from david.sets import DistilledSet
from david.support import files
from david.training import load_teacher

REMEDY = r"\(File too large\): choose a folder with room that you can write"
SETTINGS = preset("smoke", width=0.125, teacher_steps=1, student_steps=1, student_repeats=1, vdsd_static_iterations=100)
TINY = {"classes": ("Disc",), "clips_per_group": 1, "train_groups": 1, "test_groups": 1}


@contextlib.contextmanager
def full(room):
    """A disk on which no file grows beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def a_set():
    return DistilledSet(torch.zeros(1, 1, 8, 3, 48, 48), torch.tensor([8]), ["a"])


def noise(count=16):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


WRITERS = {
    "a.json": lambda folder: files.write_json(folder / "a.json", list(range(9999))),
    "a.safetensors": lambda folder: a_set().save(folder / "a.safetensors"),
    "a.npz": lambda folder: export.to_npz(DistilledSet(torch.randn(1, 1, 8, 3, 48, 48), torch.tensor([8]), ["a"]),
                                          folder / "a.npz"),
    "clip000.mp4": lambda folder: export.to_videos(a_set(), folder, crf=0),
    "a.mp4": lambda folder: export.write_video(folder / "a.mp4", noise()),
    "a.png": lambda folder: figures.animation(noise()[None], path=folder / "a.png"),
    "teacher-": lambda folder: load_teacher(noise_clips(), seed=0, settings=SETTINGS.teacher, folder=folder),
    "expert-": lambda folder: load_experts(noise_clips(), seed=0, settings=SETTINGS.expert, folder=folder),
    "motions-": lambda folder: motions(folder, **TINY),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_without_room_names_the_file_and_what_to_do(tmp_path, name):
    with full(500), pytest.raises(OSError, match=rf"cannot write {tmp_path}.*{name}.* {REMEDY}") as caught:
        WRITERS[name](tmp_path)
    assert caught.value.errno == errno.EFBIG and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(name) and path.suffix != ".lock"]
    WRITERS[name](tmp_path)


@pytest.mark.parametrize(
    ("method", "room", "name"),
    [("random", 20_000, r"random.*\.safetensors"), ("david", 20_000, "teacher.*safetensors"), ("mtt", 9_000, "expert"),
     ("vdsd", 9_000, r"static-.*\.safetensors"), ("full", 40, "student-0.json"),
     ("full", 400, r"ucf101-full-.*\.json")],
)  # fmt: skip
def test_a_run_whose_folder_fills_up_goes_on_when_there_is_room(root, tmp_path, method, room, name):
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, device="cpu")
    experiment.left_out()  # the clips are in the cache
    with full(room), pytest.raises(OSError, match=rf"cannot write {tmp_path}.*{name}.* {REMEDY}"):
        experiment.run(method)
    assert not list(tmp_path.glob("*.json"))
    assert experiment.run(method)["path"].exists()


def test_a_cache_that_fills_up(tmp_path, monkeypatch):
    dataset = load("ucf101", write_dataset(tmp_path / "data"))
    shape = {"frames": 8, "stride": 4, "size": 48}
    with full(100_000), pytest.raises(OSError, match=r"no room for [\d,]+ bytes in .*clips\.u8: choose a folder"):
        open_clips(dataset, "train", **shape, cache=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "reserve", lambda file, size: None)  # as on a disk that cannot claim
        with full(100_000), pytest.raises(OSError, match=rf"cannot write .*clips\.u8 {REMEDY}"):
            open_clips(dataset, "train", **shape, cache=tmp_path)
    assert len(open_clips(dataset, "train", **shape, cache=tmp_path)) == 4


def refuse(code):
    def function(*_, **__):
        raise OSError(code, os.strerror(code))

    return function


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, code):
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(code))  # root may write anywhere, so chmod proves nothing
    kind = OSError if code == errno.ENOSPC else PermissionError
    for write in (files.make_folder, lambda path: files.write_json(path / "a.json", 1), lambda path: motions(path)):
        with pytest.raises(kind, match=rf"cannot write in the folder {tmp_path} \({os.strerror(code)}\): choose") as e:
            write(tmp_path)
        assert e.value.errno == code and "\n" not in str(e.value)


def test_what_is_there_is_read_from_where_nothing_can_be_written(root, tmp_path, monkeypatch):
    """Records, sets, teachers, experts, rendered videos and decoded clips."""
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path / "runs"), root=root, device="cpu")
    made = experiment.table(["random", "david", "mtt"], seeds=[0])
    train = experiment.train
    rendered = motions(tmp_path, **TINY)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.EROFS))
    monkeypatch.setattr(files, "try_lock", lambda path: pytest.fail("nothing is to be locked"))
    again = Experiment("ucf101", SETTINGS, Store(tmp_path / "runs"), root=root, device="cpu")
    assert [record["path"] for record in again.table(["random", "david", "mtt"], seeds=[0], jobs=2)] == [
        record["path"] for record in made
    ]
    assert again.distilled(made[0]).classes == ["A", "B"] and len(again.train) == len(train)
    load_teacher(train, seed=0, settings=SETTINGS.teacher, folder=tmp_path / "runs" / "work")
    load_experts(train, seed=0, settings=SETTINGS.expert, folder=tmp_path / "runs" / "work")
    assert motions(tmp_path, **TINY) == rendered


# -------------------------------------------------------------------------------------------- locks and modes
@pytest.mark.parametrize("code", sorted({*files.UNKNOWN}))
def test_locks_where_the_disk_knows_none(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    path = tmp_path / "building.lock"
    for _ in range(2):
        lock = files.try_lock(path)
        assert lock and files.try_lock(path) is None
        lock.release()
    hold = f"""if True:
        import fcntl, sys, time
        from david.support import files
        def flock(*_): raise OSError({code}, "unknown")
        fcntl.flock = flock
        with files.locked(sys.argv[1]): print("held", flush=True); time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", hold, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert files.try_lock(path) is None
        holder.kill()
    with files.locked(path):  # its holder is gone
        assert files.try_lock(path) is None


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ENOSPC])
def test_a_lock_that_cannot_be_written_is_named(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    with pytest.raises(OSError, match=rf"cannot write .*a\.lock \({os.strerror(code)}\): choose a folder"):
        files.try_lock(tmp_path / "a.lock")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_files_where_the_disk_knows_no_modes_and_no_flush(tmp_path, monkeypatch, code):
    monkeypatch.setattr(Path, "chmod", refuse(code))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    a_set().save(tmp_path / "a.safetensors")
    files.write_json(tmp_path / "a.json", 1)
    assert files.read_json(tmp_path / "a.json") == 1 and sorted(os.listdir(tmp_path)) == ["a.json", "a.safetensors"]
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))  # this one is the disk's
    with pytest.raises(PermissionError, match=r"cannot write .*b\.json \(Input/output error\)"):
        files.write_json(tmp_path / "b.json", 1)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.safetensors"]


def test_errors_that_are_not_of_the_disk_stay_what_they_are(tmp_path):
    for error in (ValueError("a"), MemoryError(), OSError("no number"), OSError(errno.ENOMEM, "no memory"),
                  FileNotFoundError(errno.ENOENT, "no video", "/elsewhere/a.avi")):  # fmt: skip
        with pytest.raises(type(error)) as caught, files.writing(tmp_path / "a"):
            raise error
        assert caught.value is error
