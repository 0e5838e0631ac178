"""UCF101's layout: `Class/v_Class_g01_c01.avi`, with `classInd.txt`, `trainlist01.txt` and `testlist01.txt`.

The layout is read as it is found in the wild: the lists lie beside the class folders or in
`ucfTrainTestlist/`, lines end in CRLF, the videos may have been re-encoded to another suffix. The group is
the `g01` of the file name: 25 groups a class, and the official splits keep a group on one side.
"""

import functools
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

from david.datasets import Dataset, Video

SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")
LINE = re.compile(r"(?P<folder>[^/\\]+)/(?P<file>[^/\\]+?\.\w+)(?:\s+(?P<number>\d+))?")
GROUP = re.compile(r"_(g\d+)_c\d+$")


def ucf101(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
    name: str = "ucf101",
    flip: bool = True,
) -> Dataset:
    """Read a dataset in UCF101's layout.

    root: the folder that holds the class folders (or holds `UCF-101/`, which does).
    split: 1, 2 or 3, the official split. lists: the folder of the split lists, where it is not near the root.
    missing: "error" where a listed video is not there; or "skip" such videos with one warning, and with them
    every class that has no training or no test video left.

    FileNotFoundError for root, lists or listed videos; ValueError for malformed lines, with file and line
    number.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"missing={missing!r}: choose 'error' or 'skip'")
    if not root:
        raise ValueError(f"{name} needs root=: the folder that holds its class folders")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: root= must hold the class folders of {name}")
    lists = find_lists(root, lists, split)
    if (root / "UCF-101").is_dir():
        root = root / "UCF-101"

    classes = read_classes(lists / "classInd.txt")
    seen: dict[str, str] = {}
    absent: list[str] = []
    paths = [lists / f"{part}list{split:02d}.txt" for part in ("train", "test")]
    train, test = (read_list(path, root, classes, seen, absent) for path in paths)
    if absent:
        first = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        what = f"{len(absent)} of {len(seen)} videos listed in {lists} are not under {root} ({first})"
        if missing == "error":
            raise FileNotFoundError(f"{what}: complete the folder, or load with missing='skip'")
        warnings.warn(f"{what}: left out", stacklevel=2)

    full = {video.label for video in train} & {video.label for video in test}
    empty = [title for label, title in enumerate(classes) if label not in full]
    if len(empty) == len(classes) or (empty and missing == "error"):
        raise ValueError(
            f"no training or no test video of class {', '.join(empty[:5])} is in split {split} of {lists}: "
            "add some to the lists, or take the class out of classInd.txt"
        )
    kept = {old: new for new, old in enumerate(sorted(full))}
    train, test = (
        tuple(replace(video, label=kept[video.label]) for video in videos if video.label in kept)
        for videos in (train, test)
    )
    return Dataset(name, tuple(classes[old] for old in kept), train, test, flip)


ucf12 = functools.partial(ucf101, name="ucf12")


def find_lists(root: Path, lists: str | Path | None, split: int) -> Path:
    """The folder of `classInd.txt` and the two lists of `split`: `lists`, or else one at or near `root`."""
    places = [root, root / "ucfTrainTestlist", root.parent / "ucfTrainTestlist"]
    if lists is not None:
        places = [Path(lists).expanduser()]
    for place in places:
        if (place / "classInd.txt").is_file():
            for part in ("train", "test"):
                wanted = place / f"{part}list{split:02d}.txt"
                if not wanted.is_file():
                    raise FileNotFoundError(f"{wanted} is missing: split={split} needs it")
            return place
    tried = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"no classInd.txt in {tried}: put ucfTrainTestlist there, or give lists= the folder of the lists"
    )


def numbered_lines(path: Path) -> list[tuple[str, str]]:
    """(where, text) of every line that is not blank; `where` is `file:line`, for errors."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error}): put UCF101's own list there") from error
    return [(f"{path}:{i}", line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]


def read_classes(path: Path) -> list[str]:
    """The class names of `classInd.txt` (lines `1 ApplyEyeMakeup`), in the order of their numbers."""
    numbers: dict[int, str] = {}
    for where, line in numbered_lines(path):
        number, _, title = line.partition(" ")
        if not number.isdigit() or not title.strip():
            raise ValueError(f"{where}: mend {line!r}, which is not of the form '1 ApplyEyeMakeup'")
        if int(number) in numbers or title.strip() in numbers.values():
            raise ValueError(f"{where}: remove {line!r}, which repeats a number or a class")
        numbers[int(number)] = title.strip()
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or not numbers:
        raise ValueError(f"{path}: number the classes 1, 2, 3, ... without a gap, not {sorted(numbers)}")
    return [numbers[number] for number in sorted(numbers)]


def read_list(path: Path, root: Path, classes: list[str], seen: dict, absent: list) -> list[Video]:
    """The videos of one list that are on disk, in its order.

    `absent` collects those that are not, `seen` where each name is listed.
    """
    videos = []
    listing = functools.cache(video_files)  # for this call only: the folders may change between two calls
    for where, line in numbered_lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{where}: mend {line!r}, which is not like 'Class/v_Class_g01_c01.avi 1'")
        folder, file = match["folder"], match["file"]
        stem = Path(file).stem
        if folder not in classes:
            raise ValueError(f"{where}: class {folder!r} is not in classInd.txt: add it, or remove the line")
        label = classes.index(folder)
        if int(match["number"] or label + 1) != label + 1:
            raise ValueError(f"{where}: mend {line!r}: {folder} is number {label + 1} in classInd.txt")
        if stem in seen:
            raise ValueError(f"{where}: {stem} is already listed at {seen[stem]}: remove one of the two")
        seen[stem] = where
        found = listing(root / folder)
        if file not in found and stem not in found:
            absent.append(f"{folder}/{file}")
            continue
        # A name without a group is a group of its own: nothing is known to be filmed in the same place.
        group = GROUP.search(stem)
        path = root / folder / (found.get(file) or found[stem])
        videos.append(Video(path, stem, label, group[1] if group else stem))
    return videos


def video_files(folder: Path) -> dict[str, str]:
    """The videos in `folder`, by name and by stem: one listing a class instead of a question a video."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    videos = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    return {Path(name).stem: name for name in videos} | {name: name for name in videos}
