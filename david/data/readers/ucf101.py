"""UCF101's layout: `Class/v_Class_g01_c01.avi`, with `classInd.txt`, `trainlist01.txt` and `testlist01.txt`.

The layout is read as it is found in the wild: the lists lie beside the class folders or in
`ucfTrainTestlist/`, lines end in CRLF, the videos may have been re-encoded to another suffix. The group is
the `g01` of the file name: 25 groups a class, and the official splits keep a group on one side.

`lists` may also be a CSV file `folder_name,label,split`, as the earlier papers use: `ucf50_splits1.csv` is their
miniUCF.
"""

import functools
import re
from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import Listed, assemble, csv_list, find_root, numbered_lines, read_csv

LINE = re.compile(r"(?P<folder>[^/\\]+)/(?P<file>[^/\\]+?\.\w+)(?:\s+(?P<number>\d{1,6}))?")


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
    split: 1, 2 or 3, the official split. lists: the folder of the split lists, where it is not near the root; or
    a CSV file. missing: "error" where a listed video is not there; or "skip" such videos with one warning, and with
    them every class that has no training or no test video left.

    FileNotFoundError for root, lists or listed videos; ValueError for malformed lines, with file and line
    number.
    """
    root = find_root(name, root, missing)
    classes, listed, lists = read_lists(root, lists, split)
    if (root / "UCF-101").is_dir():
        root = root / "UCF-101"
    return assemble(name, classes, listed, root=root, lists=lists, missing=missing, flip=flip)


ucf12 = functools.partial(ucf101, name="ucf12")


def read_lists(root: Path, lists: str | Path | None, split: int) -> tuple[list[str], list[Listed], Path]:
    """(classes, videos, where they are listed) of a CSV file or of UCF101's own lists, in or near `root`."""
    table = csv_list(lists, split)
    if table:
        return *read_csv(table), table
    lists = find_lists(root, lists, split)
    classes = read_classes(lists / "classInd.txt")
    train, test = (read_list(lists / f"{part}list{split:02d}.txt", part, classes) for part in ("train", "test"))
    return classes, train + test, lists


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
        f"no classInd.txt in {tried}: put the three lists (UCF101: ucfTrainTestlist) there, or give lists= their folder"
    )


def read_classes(path: Path) -> list[str]:
    """The class names of `classInd.txt` (lines `1 ApplyEyeMakeup`), in the order of their numbers."""
    numbers: dict[int, str] = {}
    for where, line in numbered_lines(path):
        number, _, title = line.partition(" ")
        if not re.fullmatch(r"\d{1,6}", number) or not title.strip():
            raise ValueError(f"{where}: mend {line!r}, which is not of the form '1 ApplyEyeMakeup'")
        if int(number) in numbers or title.strip() in numbers.values():
            raise ValueError(f"{where}: remove {line!r}, which repeats a number or a class")
        numbers[int(number)] = title.strip()
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or not numbers:
        raise ValueError(f"{path}: number the classes 1, 2, 3, ... without a gap, not {sorted(numbers)}")
    return [numbers[number] for number in sorted(numbers)]


def read_list(path: Path, split: str, classes: list[str]) -> list[Listed]:
    """The videos of `trainlist01.txt` or `testlist01.txt`, in its order."""
    listed = []
    for where, line in numbered_lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{where}: mend {line!r}, which is not like 'Class/v_Class_g01_c01.avi 1'")
        folder, file = match["folder"], match["file"]
        if folder not in classes:
            raise ValueError(f"{where}: class {folder!r} is not in classInd.txt: add it, or remove the line")
        label = classes.index(folder)
        if int(match["number"] or label + 1) != label + 1:
            raise ValueError(f"{where}: mend {line!r}: {folder} is number {label + 1} in classInd.txt")
        listed.append(Listed(folder, Path(file).stem, split, where, file))
    return listed
