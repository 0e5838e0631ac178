"""Downloads from a server of the test's own, which breaks off, forgets, changes or lies."""

import contextlib
import errno
import hashlib
import http.server
import io
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.error
import zipfile
import zlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_dataset, write_video

from david.datasets import download as module
from david.datasets import load
from david.datasets.download import Archive, download, extract, fetch, main

BODY = bytes(range(256)) * 40
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`. cuts: after how many bytes each of the next answers breaks off. codes: of the next answers.

    ranges: whether it can start in the middle. headers: the ETag or Last-Modified that it states.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.codes, self.requests = {}, [], [], []
        self.ranges, self.headers = True, {"ETag": '"one"'}

    def archive(self, name="a.rar", body=BODY, **known) -> Archive:
        """A file to serve, and what is known of it."""
        self.files[f"/{name}"] = body
        known = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "folder": name[:-4]} | known
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", **known)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, body, start = self.server, self.server.files.get(self.path), 0
        server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        code = server.codes.pop(0) if server.codes else 200 if body else 404
        same = self.headers.get("If-Range") in (None, *server.headers.values())
        if code == 200 and server.ranges and same and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            code = 206 if start < len(body) else 416
        self.send_response(code)
        if code in (200, 206):
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) - start))
            if code == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if code in (200, 206):
            self.wfile.write(body[start:][: server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# --------------------------------------------------------------------------------------------------- one file
def test_a_whole_file(server, tmp_path, capsys):
    path = fetch(server.archive(), tmp_path)
    assert path == tmp_path / "a.rar" and path.read_bytes() == BODY
    assert "size and sha256 are the known ones" in capsys.readouterr().out
    assert fetch(server.archive(), tmp_path) == path  # verified again, not fetched again
    assert server.requests == [("/a.rar", None, None)] and os.listdir(tmp_path) == ["a.rar"]


def test_a_connection_that_breaks_off_is_continued(server, tmp_path):
    server.cuts = [3000, 0, 2500]
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert [wanted for _, *wanted in server.requests] == [
        [None, None], ["bytes=3000-", '"one"'], ["bytes=3000-", '"one"'], ["bytes=5500-", '"one"'],
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["a.rar"]


def interrupt(*_, **__):
    raise KeyboardInterrupt


class Bar(contextlib.nullcontext):
    """A progress bar during which somebody loses patience."""

    def __init__(self, **_):
        self.enter_result, self.n = self, 0

    def update(self, n):
        self.n += n
        if self.n == 4000:
            raise KeyboardInterrupt


def test_interrupting_leaves_what_the_next_call_continues(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "track", Bar)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.archive(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.rar.part", "a.rar.part.version"]
    assert (tmp_path / "a.rar.part").read_bytes() == BODY[:4000]
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert server.requests[-1] == ("/a.rar", "bytes=4000-", '"one"')


def test_a_server_that_cannot_continue_starts_over(server, tmp_path):
    server.cuts, server.ranges = [3000], False
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_server_that_always_breaks_off_at_one_place_is_given_up(server, tmp_path):
    server.cuts, server.ranges = [3000] * 20, False
    with pytest.raises(OSError, match=r"5 tries failed \(it broke off\); 3,000 bytes are kept: run again to continue"):
        fetch(server.archive(), tmp_path)
    assert len(server.requests) == 6  # the first brought something


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ('"one"', {"ETag": '"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}),
        ("Mon, 01 Jan 2024 00:00:00 GMT", {"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path, monkeypatch, version, headers):
    archive, server.headers = server.archive(), headers
    server.files["/a.rar"] = BODY[::-1]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "track", Bar)
        fetch(archive, tmp_path)
    server.files["/a.rar"] = BODY
    server.headers = {name: value.replace("one", "two").replace("01", "02") for name, value in headers.items()}
    assert fetch(archive, tmp_path).read_bytes() == BODY
    assert server.requests[1:] == [("/a.rar", "bytes=4000-", version)]


def test_a_change_that_the_server_does_not_tell_is_noticed_at_the_end(server, tmp_path):
    server.headers = {}
    (tmp_path / "a.rar.part").write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match=rf"/a\.rar has sha256 \w+, not {SHA}, and was deleted: run again, or get a"):
        fetch(server.archive(), tmp_path)
    assert os.listdir(tmp_path) == []
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("known", [{"size": 5000}, {"size": 50_000}])
def test_a_wrong_size_is_refused_before_anything_is_written(server, tmp_path, known):
    with pytest.raises(ValueError, match=rf"a\.rar has 10,240 bytes, not {known['size']:,}: it was changed or moved"):
        fetch(server.archive(**known), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_that_became_shorter(server, tmp_path):
    server.headers = {}
    (tmp_path / "a.rar.part").write_bytes(b"x" * 20_000)
    with pytest.raises(ValueError, match="10,240 bytes, not 30,000"):
        fetch(server.archive(size=30_000), tmp_path)
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=20000-", None] and os.listdir(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.rar has sha256 {SHA}, not 0{{64}}, and was deleted"):
        fetch(server.archive(sha256="0" * 64), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_put_there_by_hand_is_verified(server, tmp_path):
    path = tmp_path / "a.rar"
    path.write_bytes(BODY)
    assert fetch(server.archive(), tmp_path) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=r"a\.rar has 10,239 bytes, not 10,240: delete it and run again"):
        fetch(server.archive(), tmp_path)
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(ValueError, match=r"a\.rar has sha256 .* delete it and run again"):
        fetch(server.archive(), tmp_path)
    assert path.exists() and not server.requests


def test_answers_that_a_second_try_may_better_and_those_that_it_will_not(server, tmp_path):
    server.codes = [503, 429]
    assert fetch(server.archive(), tmp_path / ".").exists() and len(server.requests) == 3
    with pytest.raises(
        OSError, match=r"b\.zip: 404 Not Found: run again later, or get b\.zip in another way, put it in"
    ):
        fetch(server.archive("b.zip", b"", size=1), tmp_path)
    assert len(server.requests) == 4


def test_no_connection(server, tmp_path, monkeypatch):
    pauses, archive = [], server.archive()
    monkeypatch.setattr(module, "PAUSE", 2)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    (tmp_path / "a.rar.part").write_bytes(BODY[:3000])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = replace(archive, url=f"http://127.0.0.1:{free.getsockname()[1]}/a.rar")
    with pytest.raises(OSError, match=r"5 tries failed \(.*refused\); 3,000 bytes are kept"):
        fetch(closed, tmp_path)
    assert pauses == [2, 4, 8, 16]
    assert fetch(archive, tmp_path).read_bytes() == BODY


def test_a_certificate_is_verified_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []

    def urlopen(request, timeout, context):
        asked.append(context.verify_mode)
        if context.verify_mode == ssl.CERT_NONE:
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, io.BytesIO())
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_message = "unable to get local issuer certificate"
        raise urllib.error.URLError(error)

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    with pytest.raises(
        OSError, match=r"UCF101\.rar: .*\(unable to get local issuer.*\): fetch with insecure=True .*or get UCF101\."
    ):
        fetch(module.ARCHIVES["ucf101"][1], tmp_path)
    with pytest.raises(OSError, match="404"):
        fetch(module.ARCHIVES["ucf101"][1], tmp_path, insecure=True)
    assert asked == [ssl.CERT_REQUIRED, ssl.CERT_NONE]


# ----------------------------------------------------------------------------------------------- whole datasets
def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tree(folder: Path, prefix: str = "", pattern: str = "*") -> dict[str, bytes]:
    """The files in a folder by name."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {f"{prefix}{path.relative_to(folder)}": path.read_bytes() for path in found}


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
    monkeypatch.setattr(module, "UNPACKERS", {sys.executable: ("-m", "zipfile", "-e", "{path}", "{folder}")})
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
    monkeypatch.setattr(module, "extract", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("ucf101", root)
    assert not (root / "ucfTrainTestlist").exists() and not (root / "UCF-101").exists()
    monkeypatch.setattr(module, "extract", extract)
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

    monkeypatch.setattr(module, "receive", full)
    with pytest.raises(OSError, match=r"no space is left in .*data: make room and run again") as caught:
        download("ucf101", tmp_path / "data")
    assert caught.value.errno == errno.ENOSPC


# ---------------------------------------------------------------------------------------------------- unpacking
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    (tmp_path / "bad.zip").write_bytes(zipped({"good.txt": b"1", name: b"2"}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"bad\.zip would write '.*evil\.txt' outside of its folder"):
        extract(tmp_path / "bad.zip", tmp_path / "folder")
    assert not list(tmp_path.rglob("*.txt"))


def test_no_program_to_unpack_is_told_before_the_first_request(server, ucf, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no program here unpacks rar archives: install unrar, unar, bsdtar"):
        download("ucf101", tmp_path / "data")
    assert not server.requests


def program(folder: Path, name: str, code: int) -> str:
    """A program that says something and ends with `code`."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'cannot open as archive' >&2\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_fails_gives_way_to_the_next(tmp_path, monkeypatch):
    (tmp_path / "a.rar").write_bytes(zipped({"good.txt": b"1"}))
    python = {sys.executable: ("-m", "zipfile", "-e", "{path}", "{folder}")}
    monkeypatch.setattr(module, "UNPACKERS", {program(tmp_path, "7zz", 2): ("x",), **python})
    extract(tmp_path / "a.rar", tmp_path)
    assert (tmp_path / "good.txt").read_bytes() == b"1"
    monkeypatch.setattr(module, "UNPACKERS", {program(tmp_path, "7zz", 2): ("x",)})
    with pytest.raises(
        OSError, match=r"a\.rar cannot be unpacked \(7zz, exit code 2: cannot open as archive\): install"
    ):
        extract(tmp_path / "a.rar", tmp_path)


def rar(files: dict[str, bytes]) -> bytes:
    """A RAR archive of format 4, nothing compressed."""

    def block(kind: int, flags: int, body: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    packed = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for path, data in files.items():
        name, size = path.replace("/", "\\").encode(), len(data)
        fields = struct.pack("<IIBIIBBHI", size, size, 2, zlib.crc32(data), 0x58210000, 20, 0x30, len(name), 0x20)
        packed += block(0x74, 0x8000, fields + name, data)
    return packed + block(0x7B, 0x4000, b"")


@pytest.mark.parametrize("name", list(module.UNPACKERS))
def test_a_real_rar_by_a_real_program(tmp_path, monkeypatch, name):
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    if name.startswith("7z") and "Rar" not in subprocess.run([name, "i"], capture_output=True, text=True).stdout:
        pytest.skip(f"{name} is built without rar")
    monkeypatch.setattr(module, "UNPACKERS", {name: module.UNPACKERS[name]})
    content = {"wave/Film_[1] !!_(&).avi": BODY, "wave/b.avi": b"b"}
    (tmp_path / "all.rar").write_bytes(rar({"wave.rar": rar(content), "none.txt": b""}))
    module.unpack(Archive("http://x/all.rar", 0, "", "whole"), tmp_path / "all.rar", tmp_path)
    assert tree(tmp_path / "whole") == content | {"none.txt": b""}


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
