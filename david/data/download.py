"""Fetch UCF101 and HMDB51 from where their authors put them; only when asked.

    python -m david download ucf101 ~/data/ucf101

An archive is fetched into `<file>.part`, which a later call continues, and gets its name only when its size and sha256
are those below. It is unpacked into a folder that appears when it is whole; at the end the reader tells whether every
listed video is there. SSv2 and Kinetics-400 are not given out that freely: how to obtain them is printed.
"""

import argparse
import difflib
import hashlib
import http.client
import importlib
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from david.data.readers import Dataset, load
from david.data.unpack import unpack, unpackers
from david.support import files
from david.support.progress import track


@dataclass(frozen=True)
class Archive:
    """A file at `url`: its `size` in bytes, its `sha256` in hex, the `folder` that it is unpacked to."""

    url: str
    size: int
    sha256: str
    folder: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


# The lists, then the videos. The authors publish no checksums: the sha256 are those of torchvision's prototype datasets
# (github.com/pytorch/vision, torchvision/prototype/datasets/_builtin/). tensorflow_datasets/url_checksums/ucf101.txt
# states the same one for UCF101's lists, and their size. Several public scripts expect this size of UCF101.rar; those
# of HMDB51's files are in the log of a download in github.com/kiyoon/PyVideoAI-examples. HMDB51's first place,
# serre-lab.clps.brown.edu, is closed; the account of its authors' laboratory at Hugging Face has both files.
UCF101, HMDB51 = (
    "https://www.crcv.ucf.edu/data/UCF101/",
    "https://huggingface.co/datasets/Serrelab/hmdb51/resolve/main/",
)
ARCHIVES = {
    "ucf101": (
        Archive(UCF101 + "UCF101TrainTestSplits-RecognitionTask.zip", 113_943,
                "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27", "ucfTrainTestlist"),
        Archive(UCF101 + "UCF101.rar", 6_932_971_618,
                "ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55", "UCF-101"),
    ),
    "hmdb51": (
        Archive(HMDB51 + "test_train_splits.rar", 199_521,
                "229c94f845720d01eb3946d39f39292ea962d50a18136484aa47c1eba251d2b7", "testTrainMulti_7030_splits"),
        Archive(HMDB51 + "hmdb51_org.rar", 2_124_008_126,
                "9e714a0d8b76104d76e932764a7ca636f929fff66279cda3f2e326fa912a328e", "hmdb51_org"),
    ),
}  # fmt: skip
ASK = ("ssv2", "kinetics400")  # their readers say in OBTAIN how
CHUNK = 1 << 18  # bytes read at once
TRIES, PAUSE = 5, 2.0  # in a row without a byte more; seconds before the second, doubled before each further one
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(name: str, root: str | Path | None = None, *, lists=False, insecure=False) -> Dataset | None:
    """Fetch, verify and unpack the dataset `name` in the folder `root`; return it as `load(name, root)` does.

    What is already there is not fetched again, and the next call continues one that was interrupted. An archive may
    also be put into `root` by hand: it is verified and unpacked all the same. Of "ssv2" and "kinetics400" only the way
    to obtain them is printed. lists: only the split lists; returns None. insecure: fetch although the server's
    certificate cannot be verified; the sha256 then has to tell whether it is the right file.

    ValueError for another name, or a file that is not the known one; OSError where disk, connection or unpacking fail.
    """
    if name in ASK:
        return print(importlib.import_module(f"david.data.readers.{name}").OBTAIN)
    if name not in ARCHIVES:
        close = difflib.get_close_matches(name, [*ARCHIVES, *ASK], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"nothing to download for {name!r}; known: {', '.join([*ARCHIVES, *ASK])}.{hint}")
    if not root:
        raise ValueError(f"{name} needs root=: the folder to download it to")
    root = Path(root).expanduser().absolute()  # what begins with a dash would be an option of what unpacks
    if all((root / archive.folder).is_dir() for archive in ARCHIVES[name][: 1 if lists else None]):
        return None if lists else load(name, root)  # where all is there, nothing is written
    files.make_folder(root)
    with files.locked(root / ".download.lock"):
        archives = ARCHIVES[name][: 1 if lists else None]
        todo = [archive for archive in archives if not (root / archive.folder).is_dir()]
        if any(archive.file.endswith(".rar") for archive in todo):
            unpackers()  # that there is none should not be found out after hours
        size = sum(archive.size for archive in todo)
        missing = size - sum(present(archive, root) for archive in todo)
        if todo:
            free = shutil.disk_usage(root).free
            needs = f"{missing / 1e6:,.1f} MB to fetch, about {size / 1e6:,.1f} MB more when unpacked"
            print(f"{name}: {needs}; {free / 1e6:,.1f} MB are free in {root}")
            files.need_space(root, missing + size + size // 10)  # videos are hardly smaller in an archive
        for archive in todo:
            path = fetch(archive, root, insecure)
            with files.writing(root / archive.folder):
                unpack(path, root / archive.folder)
    return None if lists else load(name, root)


def present(archive: Archive, root: Path) -> int:
    """How many bytes of the archive are in `root`."""
    places = (root / archive.file, root / f"{archive.file}.part")
    return next((min(place.stat().st_size, archive.size) for place in places if place.exists()), 0)


def fetch(archive: Archive, root: Path, insecure: bool = False) -> Path:
    """The archive's file in `root`, verified; what is missing of it is fetched first."""
    path, part = root / archive.file, root / f"{archive.file}.part"
    by_hand = f"or get {archive.file} in another way, put it into {root} and run again"
    if path.exists():
        if wrong := difference(archive, path):
            raise ValueError(f"{path} {wrong}: delete it and run again")
        return path
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    failures = 0
    with track(total=archive.size, desc=archive.file, unit="B") as bar:
        best = present(archive, root)
        while present(archive, root) < archive.size:
            try:
                receive(archive, part, context, bar)
                reason = "it broke off"
            except BROKEN as error:
                reason, code = getattr(error, "reason", error), getattr(error, "code", 500)
                if isinstance(reason, ssl.SSLCertVerificationError):
                    what = f"{archive.url}: the server's certificate cannot be verified ({reason.verify_message})"
                    raise OSError(
                        f"{what}: fetch with insecure=True (--insecure), as the sha256 is checked, {by_hand}"
                    ) from error
                if code == 416:  # it has become shorter than what is here
                    part.unlink()
                elif code < 500 and code != 429:
                    raise OSError(f"{archive.url}: {code} {reason}: run again later, {by_hand}") from error
            reached = present(archive, root)
            failures, best = 0 if reached > best else failures + 1, max(best, reached)
            if failures == TRIES:
                what = f"{archive.url}: {TRIES} tries failed ({reason}); {reached:,} bytes are kept"
                raise OSError(f"{what}: run again to continue, {by_hand}")
            if reached < archive.size:
                time.sleep(PAUSE * 2 ** max(0, failures - 1))
    version_of(part).unlink(missing_ok=True)
    if wrong := difference(archive, part):
        part.unlink()
        raise ValueError(f"{archive.url} {wrong}, and was deleted: run again, {by_hand}")
    with files.writing(path):
        os.replace(part, path)
    print(f"{path}: size and sha256 are the known ones")
    return path


def version_of(part: Path) -> Path:
    """The file that says of which version of an archive `part` is: its ETag, or when it was last changed."""
    return part.with_name(f"{part.name}.version")


def receive(archive: Archive, part: Path, context: ssl.SSLContext, bar) -> None:
    """Ask once for what `part` lacks. It is appended; or all is written anew, if the server sends it from its start."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "david"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if version_of(part).exists():  # the rest if it is still this version, else all
            request.add_header("If-Range", version_of(part).read_text())
    with urllib.request.urlopen(request, timeout=60, context=context) as response:
        rest = re.fullmatch(rf"bytes {start}-\d+/(\d+)", response.headers.get("Content-Range", ""))
        size = int(rest[1] if rest else response.headers.get("Content-Length", archive.size))
        if size != archive.size:
            raise ValueError(f"{archive.url} has {size:,} bytes, not {archive.size:,}: it was changed or moved, "
                             f"or this network answers in its place; get {archive.file} in another way")  # fmt: skip
        with files.writing(part):
            data = open(part, "ab" if rest else "wb", buffering=0)
        with data:
            if not rest:
                etag = response.headers.get("ETag", "W/")  # a weak one, W/..., does not stand for the bytes
                version = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
                version_of(part).unlink(missing_ok=True)
                if version:
                    files.write_bytes(version_of(part), version.encode())
            bar.n = data.tell()
            while data.tell() <= archive.size and (chunk := response.read(CHUNK)):
                while chunk:  # what has no buffer takes what there is room for
                    with files.writing(part):  # reading, above, fails for reasons of the network
                        written = data.write(chunk)
                    chunk = chunk[written:]
                    bar.update(written)


def difference(archive: Archive, path: Path) -> str:
    """What tells the file `path` from the archive; "" if nothing does."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size:,} bytes, not {archive.size:,}"
    digest = hashlib.sha256()
    with open(path, "rb") as data, track(total=size, desc=f"checking {archive.file}", unit="B") as bar:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return "" if digest.hexdigest() == archive.sha256 else f"has sha256 {digest.hexdigest()}, not {archive.sha256}"


def main(arguments: list[str] | None = None) -> int:
    """The command: an error is one line."""
    parser = argparse.ArgumentParser(prog="python -m david download", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help=f"{', '.join(ARCHIVES)}; {', '.join(ASK)}: print how to obtain it")
    parser.add_argument("root", nargs="?", help="the folder to download to")
    parser.add_argument("--lists", action="store_true", help="only the split lists")
    parser.add_argument("--insecure", action="store_true", help="verify the file, not the server's certificate")
    options = parser.parse_args(arguments)
    try:
        dataset = download(**vars(options))
    except KeyboardInterrupt:
        print("\ninterrupted: the same command continues", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if dataset:
        videos = f"{len(dataset.train):,} training and {len(dataset.test):,} test videos"
        print(f"{videos} of {len(dataset.classes)} classes: david.load({options.name!r}, root={options.root!r})")
    return 0
