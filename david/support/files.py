"""Files that are whole or absent, one folder for all that can be made again, errors that say what to do.

Whatever david writes, another process may be reading, and the machine may stop half-way. So a file is
written under a temporary name and renamed, and a folder that several processes may want to build is built
under a lock. The disk may be a network's, which knows neither locks nor modes of files, or be full: whatever is
written is written within `writing`, so that one kind of error says what cannot be written, why, and what to do.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # to this kind of disk
NO_DISK = (errno.EAGAIN, errno.ENOMEM, errno.EPIPE, errno.ECHILD, errno.EMFILE, errno.ENFILE)  # it is not its fault
REMEDY = "choose a folder with room that you can write (for the cache: the environment variable DAVID_CACHE)"


def cache_folder() -> Path:
    """Where decoded and generated data go: `$DAVID_CACHE`, else `~/.cache/david`. It may not exist yet."""
    return Path(os.environ.get("DAVID_CACHE") or Path.home() / ".cache" / "david").expanduser().absolute()


@contextlib.contextmanager
def writing(path: str | Path, what: str = "") -> Iterator[None]:
    """Every write happens within: what the system refuses becomes one OSError that names `path`, reason and remedy.

    OSError where there is no room, PermissionError otherwise, whatever library did the writing. An error that is not
    the system's, or of a file elsewhere, stays what it is. what: how the error names `path`.
    """
    try:
        yield
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))  # how safetensors tells of it
        code = int(told[1]) if told else getattr(error, "errno", None)
        if code not in errno.errorcode or code in NO_DISK or REMEDY in str(error) or elsewhere(error, path):
            raise
        kind = OSError if code in FULL else PermissionError
        raise kind(code, f"cannot write {what or path} ({os.strerror(code)}): {REMEDY}") from error


def elsewhere(error: Exception, path: str | Path) -> bool:
    """Whether an error names a file that is neither beside `path` or below, nor a folder above."""
    path, name = Path(path).absolute(), getattr(error, "filename", None)
    file = Path(os.fsdecode(name)).absolute() if isinstance(name, (str, bytes, os.PathLike)) else path
    return not (file.is_relative_to(path.parent) or path.is_relative_to(file))


def make_folder(folder: str | Path) -> Path:
    """Create `folder` and its parents and prove that it can be written; an error as of `writing` where it cannot."""
    folder = Path(folder)
    with writing(folder, f"in the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        # To ask is not enough: root, network drives and read-only mounts all answer differently.
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def need_space(folder: str | Path, wanted: int) -> None:
    """OSError (ENOSPC) naming folder, bytes needed and bytes free, if fewer than `wanted` bytes are free."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # not every kind of disk says: it shows as the bytes come
        return
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
            if error.errno in FULL:
                raise OSError(error.errno, f"no room for {size:,} bytes in {file.name}: {REMEDY}") from error
            # Some file systems cannot claim; they fill up as the bytes come.
    file.truncate(size)


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`: flushed and renamed to `path` on success, removed on failure.

    To be written and nothing else: an OSError within counts as one of writing `path`, see `writing`.
    """
    path = Path(path)
    make_folder(path.parent)
    # Process numbers are unique on one machine only, and several may share the folder.
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with writing(path):
            part.touch()
            mode = part.stat().st_mode  # the user's umask; libraries that make the file anew may leave it private
            yield part
            with contextlib.suppress(OSError):  # where files have no modes of their own, none is needed
                part.chmod(mode)
            with open(part, "rb+") as file:
                flush(file)
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def flush(file) -> None:
    """Have what was written into the open file on the disk, where the disk knows how to."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


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


def try_lock(path: Path) -> BaseFileLock | None:
    """The lock file `path`, held until its `release()`; None if another process holds it.

    However its holder ends, the kernel then lets go of it; where the disk knows no locks of the kernel, a file is one
    by being there, and says which process of which machine made it, so that this machine's dead ones do not count.
    """
    try:
        with writing(path):
            try:
                lock = FileLock(path, fallback_to_soft=False)
                lock.acquire(blocking=False)
            except OSError as error:
                if error.errno not in UNKNOWN:
                    raise
                lock = SoftFileLock(f"{path}.held")
                lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def lock_one(paths: list[Path], waiting: str = "") -> Iterator[int]:
    """Hold the first of these lock files that nobody else holds, and give its number; wait while all are held.

    waiting: printed before that.
    """
    while True:
        for number, path in enumerate(paths):
            if lock := try_lock(path):
                try:
                    yield number
                finally:
                    lock.release()
                return
        if waiting:
            print(waiting)
            waiting = ""
        time.sleep(0.2)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the lock file `path`; others wait."""
    path = Path(path)
    make_folder(path.parent)
    with lock_one([path], f"another process is building {path.with_suffix('')}: waiting for it"):
        yield
