"""What a record knows of its files, and the cache of decoded clips of its own: what an identity is made of.

A dataset's own fingerprint covers names, labels, groups and splits. Its files come to that as follows.

* A video file counts by its name and its size in bytes. To hash it would cost as much as to decode it; so a file that
  is replaced by another of the same size stays unseen, but for the cache, which knows its time as well.
* A folder of frames counts by its name and a hash of the names, sizes and bytes of its images. That is computed once
  and kept in the cache folder, for as long as no image's size or times change.
* What david has rendered itself counts by what it was rendered from: two versions of an encoder make other bytes of it.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from david.data.images import NAME
from david.data.readers import Dataset, base, digest
from david.support import files
from david.support.progress import track


def sources(dataset: Dataset, split: str, *, dated: bool = False) -> list:
    """What stands for the bytes of every video of a split, in its order: a file's size, a folder's hash, or None.

    dated: for use on this machine alone, where every file has a time as well. OSError that names what is not there.
    """
    found = {video.path: status(video.path) for video in getattr(dataset, split)}
    folders = [path for path, own in found.items() if stat.S_ISDIR(own.st_mode)]
    if dated:
        known = {path: (own.st_size, own.st_mtime_ns) for path, own in found.items()}
    elif base(dataset.name) == "motions":
        known = dict.fromkeys(found)
    else:
        known = {path: own.st_size for path, own in found.items()}
    known |= zip(folders, frame_hashes(folders) if folders else ())
    return [known[video.path] for video in getattr(dataset, split)]


def fingerprint(dataset: Dataset, split: str, sampling: dict, without: Iterable[str] = ()) -> str:
    """What stands for the clips of a split, the same on every machine: how they are sampled, of which files.

    without: the names of videos that are left out.
    """
    without = set(without)
    kept = [
        (video.name, source)
        for video, source in zip(getattr(dataset, split), sources(dataset, split))
        if video.name not in without
    ]
    known = [source for _, source in kept]
    known = [known] if any(source is not None for source in known) else []
    return digest(dataset.fingerprint, split, sampling, [name for name, _ in kept], *known)


def status(path: Path) -> os.stat_result:
    """`os.stat`; an OSError of one sentence where the file is not there, or its disk is not."""
    try:
        return os.stat(path)
    except OSError as error:
        what = f"{path} is not to be read ({error.strerror}), though it was when the dataset was loaded"
        raise OSError(error.errno, f"{what}: bring it or its disk back, or load the dataset anew") from error


def frame_hashes(folders: list[Path]) -> list[str]:
    """A hash of the images of every folder, from the cache folder if it has been computed before."""
    memory = files.cache_folder() / "frames" / f"{digest([stamp(folder) for folder in folders])}.json"
    if memory.exists():
        return files.read_json(memory)
    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(frame_hash, folders), total=len(folders), desc="hashing frames", unit="video"))
    with suppress(OSError):  # a cache that cannot be written makes it slow, and nothing else
        files.write_json(memory, found)
    return found


def stamp(folder: Path) -> str:
    """What changes whenever an image of a folder is written, renamed or removed, whatever its own time is set to."""
    own = [(entry.name, entry.stat()) for entry in images(folder)]
    times = [(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns) for name, found in own]
    return digest(str(folder.absolute()), times)


def frame_hash(folder: Path) -> str:
    """A hash of the names, sizes and bytes of a folder's images."""
    total = hashlib.sha256()
    for entry in images(folder):
        content = Path(entry.path).read_bytes()
        total.update(f"{entry.name} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


def images(folder: Path) -> list[os.DirEntry]:
    """The images of a folder of frames, by name; what else lies in it is not read."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if NAME.fullmatch(entry.name) and entry.is_file()]
    return sorted(found, key=lambda entry: entry.name)
