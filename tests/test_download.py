"""A dataset from the server to the reader: lists, videos, what stops it early, and the command."""

import errno
import os
import shutil
import sys
from collections import namedtuple

import pytest
from conftest import write_dataset, write_video
from served import tree, zipped

from david.data import download as module
from david.data import unpack
from david.data.download import download, main
from david.data.readers import load


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def ucf(server, tmp_path, monkeypatch):
    """A small UCF101 on the server. Its `.rar` is a zip, and Python the only program to unpack it."""
    made = write_dataset(tmp_path / "made")
    lists, videos = tree(made, "ucfTrainTestlist/", "*.txt"), tree(made, "UCF-101/", "*.avi")
    archives = (
        server.archive("lists.zip", zipped(lists), folder="ucfTrainTestlist"),
        server.archive("videos.rar", zipped(videos), folder="UCF-101"),
    )
    monkeypatch.setitem(module.ARCHIVES, "ucf101", archives)
    monkeypatch.setattr(unpack, "UNPACKERS", {sys.executable: ("-m", "zipfile", "-e", "{path}", "{folder}")})
    return made


def test_ucf101_is_ready_to_load(server, ucf, tmp_path, capsys):
    root = tmp_path / "new" / "data"
    dataset = download("ucf101", root)
    assert dataset == load("ucf101", root) and dataset.fingerprint == load("ucf101", ucf).fingerprint
    assert len(dataset.train) == 4 and len(dataset.test) == 2 and dataset.classes == ("A", "B")
    assert dataset.train[0].path.read_bytes() == (ucf / "A" / "v_A_g02_c01.avi").read_bytes()
    out = capsys.readouterr().out
    assert "MB to fetch" in out and f"MB are free in {root}" in out and "videos.rar may be deleted" in out
    asked = len(server.requests)
    (root / "videos.rar").unlink()
    assert download("ucf101", root) == dataset and len(server.requests) == asked == 2
    assert capsys.readouterr().out == ""


def test_the_lists_alone(server, ucf, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # a zip needs no program
    assert download("ucf101", tmp_path / "data", lists=True) is None
    found = {name for name in os.listdir(tmp_path / "data") if not name.startswith(".")}
    assert found == {"lists.zip", "ucfTrainTestlist"} and len(server.requests) == 1


def test_an_interrupted_unpacking_starts_over(ucf, tmp_path, monkeypatch):
    root = tmp_path / "data"
    (root / ".UCF-101.part" / "UCF-101" / "C").mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(unpack, "extract", interrupt)
        download("ucf101", root)
    assert not (root / "ucfTrainTestlist").exists() and not (root / "UCF-101").exists()
    download("ucf101", root)
    assert sorted(os.listdir(root / "UCF-101")) == ["A", "B"] and not (root / ".UCF-101.part").exists()


def test_hmdb51_is_a_rar_of_one_rar_a_class(server, ucf, tmp_path, monkeypatch):
    titles, made = ("wave", "ride_bike"), tmp_path / "hmdb"
    lists, classes = {}, {}
    for title in titles:
        (made / title).mkdir(parents=True)
        names = [f"Film_[{i}]!_&()_{title}_u_cm_np1_fr_med_0" for i in (1, 2)]
        for name in names:
            write_video(made / title / f"{name}.avi", 10, width=64, height=48)
        lines = "".join(f"{name}.avi {i} \n" for i, name in enumerate(names, 1))
        lists[f"testTrainMulti_7030_splits/{title}_test_split1.txt"] = lines.encode()
        classes[f"{title}.rar"] = zipped(tree(made / title, f"{title}/"))
    archives = (
        server.archive("lists.rar", zipped(lists), folder="testTrainMulti_7030_splits"),
        server.archive("hmdb51_org.rar", zipped(classes), folder="hmdb51_org"),
    )
    monkeypatch.setitem(module.ARCHIVES, "hmdb51", archives)
    dataset = download("hmdb51", tmp_path / "data")
    assert [dataset.classes[video.label] for video in dataset.train] == ["ride_bike", "wave"]
    assert sorted(os.listdir(tmp_path / "data" / "hmdb51_org")) == ["ride_bike", "wave"]
    assert dataset.test[0].path.read_bytes() == (made / "ride_bike" / dataset.test[0].path.name).read_bytes()


def test_a_full_disk_is_told_before_the_first_request(server, ucf, tmp_path, monkeypatch):
    size = sum(archive.size for archive in module.ARCHIVES["ucf101"])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(9**9, 0, 2 * size))
    with pytest.raises(
        OSError, match=r"data needs [\d,]+ bytes and has [\d,]+ free: choose a folder with room"
    ) as caught:
        download("ucf101", tmp_path / "data")
    assert caught.value.errno == errno.ENOSPC and not server.requests
    (tmp_path / "data" / "videos.rar.part").write_bytes(bytes(size // 2))  # that much less is needed
    monkeypatch.setattr(module, "fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("ucf101", tmp_path / "data")


def test_a_disk_that_fills_up_meanwhile(server, ucf, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lists.zip.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write .*lists\.zip\.part \(No space left.*\): choose a") as caught:
        download("ucf101", tmp_path / "data")
    assert caught.value.errno == errno.ENOSPC
    (tmp_path / "data" / "lists.zip.part").unlink()
    monkeypatch.setattr(module, "unpack", full)
    with pytest.raises(OSError, match=r"cannot write .*ucfTrainTestlist \(No space left.*\): choose a"):
        download("ucf101", tmp_path / "data")


def test_no_program_to_unpack_is_told_before_the_first_request(server, ucf, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no program here unpacks rar archives: install unrar, unar, bsdtar"):
        download("ucf101", tmp_path / "data")
    assert not server.requests


# -------------------------------------------------------------------------------------------------- the command
def test_what_cannot_be_downloaded(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"for 'ufc101'; known: ucf101, hmdb51, ssv2, .*\. Did you mean 'ucf101'\?"):
        download("ufc101", tmp_path)
    with pytest.raises(ValueError, match=r"nothing to download for 'motions'; known"):
        download("motions", tmp_path)
    with pytest.raises(ValueError, match=r"hmdb51 needs root=: the folder to download it to"):
        download("hmdb51")
    assert download("ssv2", tmp_path / "new") is download("kinetics400") is None
    out = capsys.readouterr().out
    assert "qualcomm.com" in out and "labels/train.json" in out and "cvdfoundation" in out and "train.csv" in out
    assert os.listdir(tmp_path) == []


def test_the_command(ucf, tmp_path, monkeypatch, capsys):
    assert main(["ucf101", str(tmp_path / "data")]) == 0
    assert "4 training and 2 test videos of 2 classes: david.load('ucf101', root=" in capsys.readouterr().out
    assert main(["ufc101"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing to download for 'ufc101'")
    assert main(["kinetics400"]) == 0
    monkeypatch.setattr(module, "download", interrupt)
    assert main(["ucf101", str(tmp_path)]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_the_table_is_well_formed():
    for archive in (archive for archives in module.ARCHIVES.values() for archive in archives):
        assert archive.url.startswith("https://") and archive.file.endswith((".zip", ".rar")) and archive.size > 1e5
        assert len(archive.sha256) == 64 and int(archive.sha256, 16)
