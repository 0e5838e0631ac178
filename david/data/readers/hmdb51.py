"""HMDB51: `<class>/<name>.avi`, with one list a class, `<class>_test_split1.txt`, lines `<name>.avi 1`.

1 is training, 2 is test, 0 is neither: 70 and 30 of a class, and no film gives clips to both. A name is
`<film>_<class>_f_cm_np1_fr_med_0`, with brackets and exclamation marks in it; the film is the group.

`lists` may also be the CSV file `hmdb51_splits.csv` of the earlier papers. It puts the unused clips into the
training split, 5,236 instead of 3,570, and with them the films of many test clips: a warning counts these.
"""

import os
import warnings
from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import Listed, assemble, csv_list, find_root, leaking, numbered_lines, read_csv
from david.data.readers.ucf101 import read_lists as ucf101_lists

FOLDERS = ("", "testTrainMulti_7030_splits", "test_train_splits", "splits")  # where unpacking may put the lists
SPLITS = {"0": None, "1": "train", "2": "test"}


def hmdb51(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
) -> Dataset:
    """Read HMDB51. root: the folder of the class folders (or of `hmdb51_org/`, which holds them).

    split: 1, 2 or 3, the official split. lists: the folder of the official lists, where it is not in or beside
    root; or the earlier papers' CSV file, with a warning of its leak. missing: "error" or "skip", as in UCF101.
    """
    root = find_root("hmdb51", root, missing)
    classes, listed, lists = read_lists(root, lists, split)
    if (root / "hmdb51_org").is_dir():
        root = root / "hmdb51_org"
    return assemble("hmdb51", classes, listed, root=root, lists=lists, missing=missing)


def jhmdb21(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
) -> Dataset:
    """Read JHMDB: 21 classes and 928 clips of HMDB51, with its official splits cut to them, in UCF101's form of lists.

    root: the folder of the class folders, and of `classInd.txt` and the lists. The rest as in HMDB51; a clip's film is
    its group.
    """
    root = find_root("jhmdb21", root, missing)
    classes, listed, lists = ucf101_lists(root, lists, split)
    return assemble("jhmdb21", classes, listed, root=root, lists=lists, missing=missing)


def read_lists(root: Path, lists: str | Path | None, split: int) -> tuple[list[str], list[Listed], Path]:
    """(classes, videos, where they are listed) of a CSV file or of the official lists, in or near `root`."""
    table = csv_list(lists, split)
    if table:
        classes, listed = read_csv(table)
        if leaks := leaking(listed):
            tests = sum(item.split == "test" for item in listed)
            what = f"{leaks} of {tests} test videos in {table} are of the class and the film of a training video"
            warnings.warn(f"{what}: accuracy is too high; load without lists= for the official split", stacklevel=4)
        return classes, listed, table
    places = [Path(lists).expanduser()] if lists else [up / folder for up in (root, root.parent) for folder in FOLDERS]
    ending = f"_test_split{split}.txt"
    for place in places:
        names = sorted(os.listdir(place)) if place.is_dir() else []
        names = [name for name in names if name.endswith(ending)]
        if names:
            listed = [item for name in names for item in read_list(place / name, name.removesuffix(ending))]
            return [name.removesuffix(ending) for name in names], listed, place
    tried = ", ".join(map(str, places))
    raise FileNotFoundError(f"no <class>{ending} in {tried}: put the official lists there, or give lists= their folder")


def read_list(path: Path, title: str) -> list[Listed]:
    """The training and test videos of one class's list, in its order."""
    listed = []
    for where, line in numbered_lines(path):
        file, *number = line.rsplit(maxsplit=1)  # a name may hold anything, spaces included
        if not number or number[0] not in SPLITS:
            raise ValueError(f"{where}: mend {line!r}, which is not like 'name.avi 1', with 1, 2 or 0")
        if SPLITS[number[0]]:
            listed.append(Listed(title, Path(file).stem, SPLITS[number[0]], where, file))
    return listed
