"""What the readers share: a list says which videos there should be, then their files are looked for.

A reader parses its official lists into `Listed` entries, which needs no video at all, and `assemble` turns these
into a Dataset of the files that are there. A folder is listed once, and a name is looked up in that listing: names
hold brackets and exclamation marks, so nothing here may be a glob pattern. In a Dataset every name is in Unicode's
composed form (NFC), whatever the disk or the list writes: else one dataset would be two, as macOS decomposes names.
"""

import csv
import functools
import io
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from david.data.readers import Dataset, Video

SUFFIXES = (  # of what PyAV opens; the likeliest first
    ".avi", ".mp4", ".mkv", ".webm", ".mov", ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".divx", ".dv", ".f4v",
    ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mk3d", ".mod", ".mp2v", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogm",
    ".ogv", ".ogx", ".qt", ".rm", ".rmvb", ".tod", ".trp", ".ts", ".vob", ".wmv", ".wtv", ".y4m",
)  # fmt: skip
SOURCES = (  # what a file name says about where the video was filmed or taken from
    re.compile(r"(?P<group>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+"),  # HMDB51: <film>_<class>_f_cm_np1_fr_med_0
    re.compile(r"(?P<group>.{11})_\d{6}_\d{6}"),  # Kinetics: <youtube id>_<start>_<end>
    re.compile(r"a\d\d_(?P<group>s\d\d)_e\d\d"),  # MSR-Action3D: <action>_<subject>_<trial>
    re.compile(r".*_(?P<group>g\d+)_.*"),  # UCF101: v_<class>_<group>_c01
)


@dataclass(frozen=True)
class Listed:
    """A video of a list. title: its class. split: "train" or "test". file: its name with the suffix, if listed.

    where: `file:line` of the list, for errors.
    """

    title: str
    name: str
    split: str
    where: str
    file: str = ""

    @property
    def group(self) -> str:
        """The video's source; without a sign of it the video is a group of its own."""
        stem = self.name.rpartition("/")[2]
        match = next(filter(None, (pattern.fullmatch(stem) for pattern in SOURCES)), None)
        return match["group"].removesuffix(f"_{self.title}") if match else self.name


def find_root(name: str, root: str | Path | None, missing: str = "error") -> Path:
    """`root` as an existing folder; ValueError or FileNotFoundError that says what it should be."""
    if missing not in ("error", "skip"):
        raise ValueError(f"missing={missing!r}: choose 'error' or 'skip'")
    if not root:
        raise ValueError(f"{name} needs root=: the folder that holds its class folders or videos")
    root = Path(root).expanduser().absolute()  # to FFmpeg, what begins with `a:` is an address
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: root= must hold the class folders or videos of {name}")
    return root


def find_file(places: Iterable[Path], *names: str) -> Path:
    """The first file that exists, of all `names` in all `places`; FileNotFoundError with what was tried."""
    places = list(places)
    for path in (place / name for place in places for name in names):
        if path.is_file():
            return path
    wanted, tried = " or ".join(names), ", ".join(map(str, places))
    raise FileNotFoundError(f"no {wanted} in {tried}: put the official list there, or give lists= its folder")


def read_text(path: Path) -> str:
    """The content of a list; ValueError where it is not text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error}): put the official list there") from error


def numbered_lines(path: Path) -> list[tuple[str, str]]:
    """(where, text) of every line that is not blank; `where` is `file:line`, for errors."""
    lines = enumerate(read_text(path).splitlines(), 1)
    return [(f"{path}:{i}", line.strip()) for i, line in lines if line.strip()]


def csv_rows(path: Path, *columns: str) -> list[tuple[str, dict[str, str]]]:
    """(where, row) of every row of a CSV file, the columns in any order; ValueError where one is absent or empty."""
    reader = csv.DictReader(io.StringIO(read_text(path)))
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"{path}:1: the header has no {', '.join(absent)}: mend it to {','.join(columns)}")
    rows = []
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if not all(row[column] and row[column].strip() for column in columns):
            raise ValueError(f"{where}: mend the row, in which one of {', '.join(columns)} is empty")
        rows.append((where, {column: row[column].strip() for column in columns}))
    return rows


def read_csv(path: Path) -> tuple[list[str], list[Listed]]:
    """(classes, videos) of a list `folder_name,label,split` of the earlier papers; classes sorted by name."""
    listed = []
    for where, row in csv_rows(path, "folder_name", "label", "split"):
        if row["split"] not in ("train", "test"):
            raise ValueError(f"{where}: mend the split {row['split']!r} to train or test")
        listed.append(Listed(row["label"], row["folder_name"], row["split"], where))
    return sorted({item.title for item in listed}), listed


def csv_list(lists: str | Path | None, split: int) -> Path | None:
    """`lists` as a path if it is a CSV file, which holds one split and its own classes."""
    path = Path(lists or "").expanduser()
    if path.suffix.lower() != ".csv":
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: lists= must name a CSV file folder_name,label,split")
    if split != 1:
        raise ValueError(f"split={split}: {path} holds one split, 1; give the folder of the official lists instead")
    return path


def leaking(listed: Iterable) -> int:
    """How many test videos (Listed) share class and source with a training video."""
    listed = list(listed)
    train = {(item.title, item.group) for item in listed if item.split == "train"}
    return sum((item.title, item.group) in train for item in listed if item.split == "test")


def file_names(folder: Path) -> list[str]:
    """The names of the files in `folder`, sorted, without links to nothing and names with a dot first (macOS: ._)."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def small(name: str) -> str:
    """A name as it is compared where none is spelt alike: composed, in small letters.

    (The earlier papers' lists write v_HandstandPushups where UCF101's files are v_HandStandPushups.)
    """
    return composed(composed(name).casefold())


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def is_video(name: str) -> bool:
    """Whether a file's suffix is one of SUFFIXES, in any case."""
    return Path(name).suffix.lower() in SUFFIXES


def video_files(folder: Path) -> dict[str, str]:
    """The videos in `folder` by name, by stem, and by `small` stem: one listing, not a question a video."""
    videos = [name for name in file_names(folder) if is_video(name)] if folder.is_dir() else []
    alike = {small(Path(name).stem): name for name in videos}
    return alike | {Path(name).stem: name for name in videos} | {name: name for name in videos}


def assemble(
    name: str,
    classes: list[str],
    listed: list[Listed],
    *,
    root: Path,
    lists: Path,
    places: Callable[[Listed], Iterable[str]] = lambda item: (item.title,),
    listing: Callable[[Path], dict[str, str]] = video_files,
    missing: str = "error",
    flip: bool = True,
    across: bool = False,
) -> Dataset:
    """The Dataset of those `listed` videos that are there, in the order of the lists.

    Where videos of two classes have one name, all names begin with the class: `<class>/<name>`.

    places: the folders in `root` where a video may be, the likeliest first. listing: what is in one of them.
    missing: "error" where a listed video is not there; or "skip" such videos with one warning (all of them are in
    `Dataset.missing`), and with them every class that has no training or no test video left. lists: for errors.
    flip, across: as in Dataset.
    """

    @functools.cache  # for this call only: folders may change
    def names(folder: Path) -> dict[str, str]:
        return {small(name): name for name in folder_names(folder)} if folder.is_dir() else {}

    @functools.cache
    def look(place: str) -> tuple[Path, dict[str, str]]:
        folder = root / place
        if not folder.is_dir():
            folder = root
            for part in Path(place).parts:
                folder /= names(folder).get(small(part), part)
        return folder, listing(folder)

    label_of = {title: label for label, title in enumerate(classes)}
    holders = defaultdict(set)
    for item in listed:
        holders[composed(item.name)].add(item.title)
    apart = any(len(titles) > 1 for titles in holders.values())
    seen: dict[str | Path, str] = {}

    def once(what: str | Path, item: Listed) -> None:
        if what in seen:
            told = f"{item.where}: {item.name} is already listed at {seen[what]}"
            raise ValueError(f"{told}: remove one of the two, or rename it if they are different videos")
        seen[what] = item.where

    absent: list[tuple[str, str]] = []
    found: dict[str, list[Video]] = {"train": [], "test": []}
    for item in listed:
        called = composed(f"{item.title}/{item.name}" if apart else item.name)
        once(called, item)
        for place in places(item):
            folder, there = look(place)
            file = there.get(item.file) or there.get(item.name) or there.get(small(item.name))
            if file:
                once(folder / file, item)
                found[item.split].append(Video(folder / file, called, label_of[item.title], composed(item.group)))
                break
        else:
            absent.append((composed(item.title), composed(item.file or item.name)))
    if absent:
        first = ", ".join("/".join(pair) for pair in absent[:3]) + (", ..." if len(absent) > 3 else "")
        what = f"{len(absent)} of {len(listed)} videos listed in {lists} are not under {root} ({first})"
        if missing == "error":
            raise FileNotFoundError(f"{what}: complete the folder, or load with missing='skip'")
        warnings.warn(f"{what}: left out; all of them are in the dataset's `missing`", stacklevel=4)

    full = set.intersection(*({video.label for video in videos} for videos in found.values()))
    empty = [title for title in classes if label_of[title] not in full]
    if len(empty) == len(classes) or (empty and missing == "error"):
        raise ValueError(
            f"no training or no test video of class {', '.join(empty[:5])} is in {lists}: add some, "
            "or take the class out of the lists (and out of classInd.txt or the labels, where they name it)"
        )
    kept = {old: new for new, old in enumerate(sorted(full))}
    train, test = (
        tuple(Video(v.path, v.name, kept[v.label], v.group) for v in videos if v.label in kept)
        for videos in found.values()
    )
    titles = tuple(composed(classes[old]) for old in kept)
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise ValueError(f"two classes of {lists} are called {twice[0]!r} (in other bytes): rename one of them")
    return Dataset(name, titles, train, test, flip, missing=tuple(absent), across=across)
