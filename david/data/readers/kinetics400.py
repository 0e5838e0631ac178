"""Kinetics-400: clips `<youtube id>_<start>_<end>.mp4`, with CSV files `label,youtube_id,time_start,time_end,split`.

Every download lacks some videos, which have left YouTube since, so missing ones are skipped by default: one warning
counts them, and the dataset's `missing` names them. The labels of the official test videos are not used: the test
split is the validation list. The group is the YouTube video.
"""

import re
from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import Listed, assemble, csv_rows, find_file, find_root

OBTAIN = """\
Kinetics-400 is a list of YouTube clips, which belong to those who uploaded them.
  1. The clips and lists, and the terms, are at https://github.com/cvdfoundation/kinetics-dataset: its scripts
     k400_downloader.sh and k400_extractor.sh fetch and unpack them. Some clips are missing in every copy.
  2. Move the videos of its folder replacement_for_corrupted_k400 into train/, over those of the same names.
  3. david.load("kinetics400", root="that folder") expects there
       train/ and val/, with <youtube id>_<start>_<end>.mp4 in them or in folders of the classes
       train.csv and val.csv, or these in annotations/"""
COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
NAMES = {"train": ("train",), "test": ("val", "validate", "validation")}  # of folders, lists and splits


def kinetics400(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "skip",
) -> Dataset:
    """Read Kinetics-400. root: the folder of `train/` and `val/`, of the class folders, or of the videos.

    lists: the folder of train.csv and val.csv (or validate.csv), where it is not root, root/annotations or
    one of these beside root. missing: "skip" or "error". There is one split, 1.
    """
    root = find_root("kinetics400", root, missing)
    if split != 1:
        raise ValueError(f"split={split}: kinetics400 has one split, 1")
    classes, listed, lists = read_lists(root, lists)
    return assemble("kinetics400", classes, listed, root=root, lists=lists, places=places, missing=missing)


def places(item: Listed) -> list[str]:
    """Where a video may lie: in a folder of its class or not, in a folder of its split or not."""
    titles = (item.title, item.title.replace(" ", "_"), "")
    return [f"{part}/{title}" for part in NAMES[item.split] for title in titles] + [*titles, "replacement"]


def read_lists(root: Path, lists: str | Path | None = None) -> tuple[list[str], list[Listed], Path]:
    """(classes, videos, where they are listed) of train.csv and val.csv, in or near `root`; classes sorted."""
    near = [root, root / "annotations", root.parent, root.parent / "annotations"]
    if lists:
        near = [Path(lists).expanduser()]
    paths = [find_file(near, *(f"{name}.csv" for name in NAMES[part])) for part in NAMES]
    listed = [item for path, part in zip(paths, NAMES) for item in read_list(path, part)]
    return sorted({item.title for item in listed}), listed, paths[0].parent


def read_list(path: Path, split: str) -> list[Listed]:
    """The videos of train.csv or val.csv, in its order."""
    listed = []
    for where, row in csv_rows(path, *COLUMNS):
        if row["split"] not in NAMES[split]:
            raise ValueError(f"{where}: the split {row['split']!r} is not {' or '.join(NAMES[split])}: remove the row")
        if not all(re.fullmatch(r"\d{1,6}", row[column]) for column in ("time_start", "time_end")):
            raise ValueError(f"{where}: mend {row['time_start']!r}, {row['time_end']!r}: whole seconds are wanted")
        start, end = int(row["time_start"]), int(row["time_end"])
        listed.append(Listed(row["label"], f"{row['youtube_id']}_{start:06d}_{end:06d}", split, where))
    return listed
