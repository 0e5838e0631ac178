"""Archives end up whole in their folder, by a program that can, or as one error."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from served import BODY, tree, zipped

from david.data import unpack as module
from david.data.unpack import extract, unpack


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    (tmp_path / "bad.zip").write_bytes(zipped({"good.txt": b"1", name: b"2"}))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"bad\.zip would write '.*evil\.txt' outside of its folder"):
        extract(tmp_path / "bad.zip", tmp_path / "folder")
    assert not list(tmp_path.rglob("*.txt"))


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
    unpack(tmp_path / "all.rar", tmp_path / "whole")
    assert tree(tmp_path / "whole") == content | {"none.txt": b""}
