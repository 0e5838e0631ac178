"""Archives of videos: zip by Python, rar by whatever program is there that can."""

import shutil
import subprocess
import zipfile
from pathlib import Path

from david.support.progress import track

UNPACKERS = {  # of rar, the likeliest to succeed first; not every 7z can
    "unrar": ("x", "-o+", "-inul", "{path}", "{folder}/"),
    "unar": ("-quiet", "-force-overwrite", "-no-directory", "-output-directory", "{folder}", "{path}"),
    "bsdtar": ("-xf", "{path}", "-C", "{folder}"),
    "7z": ("x", "-y", "-bd", "-o{folder}", "{path}"),
    "7zz": ("x", "-y", "-bd", "-o{folder}", "{path}"),
}
INSTALL = "install unrar, unar, bsdtar (Debian: libarchive-tools) or a 7z that reads rar, and run again"


def unpack(path: Path, folder: Path) -> None:
    """Unpack `path`, and the archives in it (HMDB51 has one a class), into `folder`, which appears when it is whole.

    A folder of that name in the archive becomes it.
    """
    print(f"{path}: unpacking")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what an interrupted call left
    part.mkdir()
    extract(path, part)
    for inner in track(sorted(part.rglob("*.rar")), desc="unpacking", unit="archive"):
        extract(inner, inner.parent)
        inner.unlink()
    whole = part / folder.name
    (whole if whole.is_dir() else part).rename(folder)
    shutil.rmtree(part, ignore_errors=True)
    print(f"{folder} is there; {path.name} may be deleted")


def unpackers() -> dict[str, tuple[str, ...]]:
    """{path: arguments} of the programs here that may unpack rar; FileNotFoundError if there is none."""
    found = {path: arguments for name, arguments in UNPACKERS.items() if (path := shutil.which(name))}
    if not found:
        raise FileNotFoundError(f"no program here unpacks rar archives: {INSTALL}")
    return found


def extract(path: Path, folder: Path) -> None:
    """Unpack a zip or rar archive into `folder`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{path} would write {name!r} outside of its folder: do not trust it, delete it")
            return archive.extractall(folder)
    failed = []
    for program, arguments in unpackers().items():
        command = [program, *(argument.format(path=path, folder=folder) for argument in arguments)]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if run.returncode == 0:
            return
        said = (run.stderr or run.stdout).split("\n")
        failed.append(f"{Path(program).name}, exit code {run.returncode}: {' '.join(filter(None, said))[-200:]}")
    raise OSError(f"{path} cannot be unpacked ({'; '.join(failed)}): {INSTALL}")
