"""Files are whole or absent; a full or read-only folder gives one clear error."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from david.support import files
from david.support.progress import about, track


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DAVID_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("DAVID_CACHE")
    monkeypatch.setenv("HOME", "/home/reader")
    assert str(files.cache_folder()) == "/home/reader/.cache/david"


def test_json_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "record.json"
    files.write_json(path, {"name": "Zürich", "values": [1, 2.5, None]})
    assert files.read_json(path) == {"name": "Zürich", "values": [1, 2.5, None]}
    assert os.listdir(path.parent) == ["record.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    with pytest.raises(KeyboardInterrupt), files.atomic(path) as part:
        part.write_text("half a fi")
        raise KeyboardInterrupt
    assert files.read_json(path) == 1
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("text", ["", '{"a": 1', "\x00\xff"])
def test_corrupt_json_names_file_and_remedy(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"record\.json is not valid JSON .*delete it and run again"):
        files.read_json(path)


def test_full_disk_names_folder_bytes_and_remedy(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(100, 88, 12)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    files.need_space(tmp_path, 12)
    with pytest.raises(OSError, match=rf"{tmp_path} needs 5,000 bytes and has 12 free.*DAVID_CACHE") as caught:
        files.need_space(tmp_path, 5000)
    assert caught.value.errno == errno.ENOSPC
    with open(tmp_path / "data", "ab") as file, pytest.raises(OSError, match="DAVID_CACHE"):
        files.reserve(file, 5000)


def test_disk_that_refuses_to_reserve(monkeypatch, tmp_path):
    def refuse(code):
        def posix_fallocate(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", posix_fallocate, raising=False)

    with open(tmp_path / "data", "ab") as file:
        refuse(errno.EDQUOT)
        with pytest.raises(OSError, match=r"no room for 5,000 bytes in .*data.*DAVID_CACHE"):
            files.reserve(file, 5000)
        refuse(errno.EOPNOTSUPP)  # a file system that cannot: the file is sparse and fills up as the bytes come
        files.reserve(file, 5000)
    assert (tmp_path / "data").stat().st_size == 5000


def test_reserve_keeps_what_a_file_holds(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"kept")
    with open(path, "ab") as file:
        files.reserve(file, 10)
    assert path.read_bytes() == b"kept" + bytes(6)


def test_read_only_folder_names_folder_and_remedy(monkeypatch, tmp_path):
    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)  # root may write anywhere, so chmod proves nothing
    with pytest.raises(PermissionError, match=rf"cannot write in the folder {tmp_path} .*Read-only.*DAVID_CACHE") as e:
        files.make_folder(tmp_path)
    assert "\n" not in str(e.value)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    for folder in (tmp_path / "cache", tmp_path / "cache" / "below"):
        with pytest.raises(PermissionError, match="DAVID_CACHE"):
            files.make_folder(folder)


def test_lock_is_waited_for_and_falls_with_its_holder(tmp_path):
    lock = tmp_path / "building.lock"
    hold = "import sys, time; from david.support import files\n"
    hold += "with files.locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        ask = "import sys; from david.support import files\nwith files.locked(sys.argv[1]): print('mine')"
        with subprocess.Popen([sys.executable, "-c", ask, lock], stdout=subprocess.PIPE, text=True) as waiter:
            time.sleep(0.3)
            assert waiter.poll() is None
            holder.kill()
            out, _ = waiter.communicate(timeout=20)
    assert "waiting" in out and out.endswith("mine\n")


def test_track_is_silent_when_told_so(monkeypatch, capfd):
    monkeypatch.setenv("DAVID_PROGRESS", "0")
    assert list(track(range(3), desc="quiet")) == [0, 1, 2]
    with track(total=3) as bar:
        bar.update()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("DAVID_PROGRESS", "1")
    assert list(track(range(3), desc="loud", unit="clip")) == [0, 1, 2]
    assert "loud" in capfd.readouterr().err


def test_a_time_to_go_in_words():
    assert [about(seconds) for seconds in (39.6, 720, 9000)] == ["about 40 s", "about 12 min", "about 2.5 h"]
