"""Files that are whole or absent, one folder for all that can be made again, errors that say what to do.

Whatever david writes, another process may be reading, and the machine may stop half-way. So a file is
written under a temporary name and renamed, and a folder that several processes may want to build is built
under a lock.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REMEDY = "choose a folder with room that you can write (for the cache: the environment variable DAVID_CACHE)"


def cache_folder() -> Path:
    """Where decoded and generated data go: `$DAVID_CACHE`, else `~/.cache/david`. It may not exist yet."""
    return Path(os.environ.get("DAVID_CACHE") or Path.home() / ".cache" / "david").expanduser()


def make_folder(folder: str | Path) -> Path:
    """Create `folder` and its parents and prove that it can be written; PermissionError where it cannot."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # To ask is not enough: root, network drives and read-only mounts all answer differently.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(error.errno, f"no space is left in {folder}: {REMEDY}") from error
        raise PermissionError(f"cannot write in the folder {folder} ({error.strerror}): {REMEDY}") from error
    return folder


def need_space(folder: str | Path, wanted: int) -> None:
    """OSError (ENOSPC) naming folder, bytes needed and bytes free, if fewer than `wanted` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise OSError(errno.ENOSPC, f"{folder} needs {wanted:,} bytes and has {free:,} free: {REMEDY}")


def reserve(file, size: int) -> None:
    """Make the open file `size` bytes long, keeping what it holds, and claim the disk now, not in hours.

    OSError (ENOSPC) as from `need_space` where the disk does not have them.
    """
    need_space(Path(file.name).parent, size - os.fstat(file.fileno()).st_blocks * 512)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, f"no room for {size:,} bytes in {file.name}: {REMEDY}") from error
            # Some file systems cannot claim; they fill up as the bytes come.
    file.truncate(size)


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`: flushed and renamed to `path` on success, removed on failure."""
    path = Path(path)
    make_folder(path.parent)
    # Process numbers are unique on one machine only, and several may share the folder.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # the user's umask; libraries that make the file anew may leave it private
        yield part
        part.chmod(mode)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that no reader ever sees half of it."""
    with atomic(path) as part:
        part.write_bytes(data)


def write_json(path: str | Path, content) -> None:
    """Write `content` as indented JSON to `path`, atomically; ValueError for NaN, which is not JSON."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A file's name that is not UTF-8 stands in Python as what JSON writes as \udc80 to \udcff.
    write_bytes(path, text.encode(errors="backslashreplace"))


def read_json(path: str | Path):
    """The content of the JSON file `path`; ValueError naming file and remedy where it is not whole JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run again") from error


def try_lock(file) -> bool:
    """Whether the open lock file could be locked at once. However its holder ends, the kernel then lets go of it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the lock file `path`; others wait."""
    make_folder(Path(path).parent)
    with open(path, "a") as file:
        if not try_lock(file):
            print(f"another process is building {Path(path).with_suffix('')}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def lock_one(paths: list[Path]) -> Iterator[int]:
    """Hold the first of these lock files that nobody else holds, and give its number; wait while all are held."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "a")) for path in paths]
        while (free := next((number for number, file in enumerate(files) if try_lock(file)), None)) is None:
            time.sleep(0.5)
        yield free
