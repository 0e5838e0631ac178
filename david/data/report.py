"""What a reader found: `describe` counts it, `duplicates` reads every file to find copies, `second_opinion` decodes."""

import hashlib
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from david.data.readers import Dataset
from david.data.readers.core import composed
from david.data.video import DecodeError, Survey, read

KEPT = 16 << 20  # bytes of one video's frames at a time


def describe(dataset: Dataset) -> pd.DataFrame:
    """One row a class, those left out for missing videos included: how many videos and groups there are.

    Columns: train, test: videos. train_groups, test_groups: their groups. shared: test videos whose
    `Dataset.source` is a training video's too, none in UCF101's official splits. missing: listed videos not found.
    unread, where there are any: `Dataset.unread`, by the folder that they lie in, be it a class or not.
    """
    train, test = ([(dataset.classes[v.label], v.group) for v in videos] for videos in (dataset.train, dataset.test))
    sources = {dataset.source(v) for v in dataset.train}
    listed = {
        "train": train,
        "test": test,
        "train_groups": set(train),
        "test_groups": set(test),
        "shared": [pair for pair, v in zip(test, dataset.test) if dataset.source(v) in sources],
        "missing": dataset.missing,
    }
    if dataset.unread:
        listed["unread"] = [(composed(path.partition("/")[0]) if "/" in path else ".", path) for path in dataset.unread]
    counts = {column: Counter(title for title, _ in pairs) for column, pairs in listed.items()}
    titles = list(dict.fromkeys((*dataset.classes, *counts["missing"], *counts.get("unread", ()))))
    return pd.DataFrame({column: [count[title] for title in titles] for column, count in counts.items()}, titles)


def duplicates(dataset: Dataset) -> pd.DataFrame:
    """Videos with the same bytes, one row each: copy (the same number for the same content), split, class, name.

    A copy in both splits, or in two classes, is a fault of the dataset. Reads only files of equal size.
    """
    videos = [(part, video) for part in ("train", "test") for video in getattr(dataset, part)]
    for key in (size, content):
        same = defaultdict(list)
        for part, video in videos:
            same[key(video.path)].append((part, video))
        copies = [found for found in same.values() if len(found) > 1]
        videos = [pair for found in copies for pair in found]
    rows = [
        (number, part, dataset.classes[video.label], video.name)
        for number, found in enumerate(copies)
        for part, video in found
    ]
    return pd.DataFrame(rows, columns=["copy", "split", "class", "name"])


def second_opinion(dataset: Dataset, *, videos: int = 8) -> pd.DataFrame:
    """The frames of some training videos, evenly spread over the list, as PyAV and as decord decode them.

    All frames are decoded, and compared if 16 MiB hold them, as they do 72 frames of 320 x 240; else every second, or
    third, and so on. Two decoders that see the same frames in the same places are a sign that both are right. Frame
    folders, and videos that PyAV finds damaged, are passed over.

    Returns:
        one row a video: its name; pyav and decord, the frames that each finds; and, of the frames compared, the largest
        difference in grey levels and the share of all values that differ (NaN where there are none).
    """
    found = [v for v in dataset.train if v.path.is_file()]
    rows = []
    for chosen in [found[i * len(found) // videos] for i in range(min(videos, len(found)))]:
        surveyed, gaps = Survey(), []
        count, theirs = by_decord(chosen.path)
        try:
            for i, ours in enumerate(read(chosen.path, surveyed)):
                if i in theirs and theirs[i].shape == ours.shape:
                    gap = np.maximum(ours, theirs[i]) - np.minimum(ours, theirs[i])
                    gaps.append((gap.max(), (gap > 0).mean()))
        except DecodeError:
            continue
        largest, shares = zip(*gaps) if gaps else ([np.nan], [np.nan])
        rows.append((chosen.name, len(surveyed.times), count, max(largest), np.mean(shares)))
    return pd.DataFrame(rows, columns=["name", "pyav", "decord", "largest difference", "share that differs"])


def by_decord(path: Path) -> tuple[int, dict[int, np.ndarray]]:
    """(how many frames decord finds in a video; of these, every one or every n-th, uint8 (h, w, 3), by its number).

    It decodes ahead of whoever takes its frames slowly, without a bound, so they are taken at once and some are kept.
    """
    import decord  # only here: it takes a second to load

    decord.logging.set_level(decord.logging.QUIET)
    kept = {}
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        for i in range(len(reader)):
            frame = reader.next()  # in order: else it can be wrong
            if i % math.ceil(len(reader) * math.prod(frame.shape) / KEPT) == 0:
                kept[i] = frame.asnumpy()
        return len(reader), kept
    except Exception:  # its own errors derive from no other class
        return 0, {}


def files(path: Path) -> list[Path]:
    """The file itself, or the images of a frame folder."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def size(path: Path) -> int:
    """Bytes of a video."""
    return sum(file.stat().st_size for file in files(path))


def content(path: Path) -> str:
    """A hash of a video's bytes."""
    digest = hashlib.sha256()
    for file in files(path):
        with open(file, "rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()
