"""Your own videos: one folder a class, `root/<class>/*.avi` (or mp4, mkv, webm, mov), and no list.

The split is drawn from a seed, by groups: what UCF101's `_g01_`, or another dataset's naming, says comes from one
source goes to one side. A file whose name says nothing is a group of its own: name your files `walk_g07_c02.mp4`
where several show the same place or people, or their test accuracy will be too high.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from david.data.readers import Dataset, digest
from david.data.readers.core import SUFFIXES, Listed, assemble, file_names, find_root


def folder(
    root: str | Path | None = None,
    split: int = 1,
    *,
    test_share: float = 0.3,
    seed: int = 0,
    name: str = "folder",
    flip: bool = True,
) -> Dataset:
    """Read the videos in the class folders of `root`; a video's name is `<class>/<file without suffix>`.

    test_share: at least this share of every class's videos is tested on, where its groups allow it. seed: draws
    the split. flip: whether a mirrored clip keeps its label; say no where left and right matter.
    """
    root = find_root(name, root)
    if split != 1:
        raise ValueError(f"split={split}: {name} has one split, 1, which test_share and seed define")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share}: choose a share between 0 and 1, such as 0.3")
    listed = draw(find_videos(root), test_share, seed)
    classes = sorted({item.title for item in listed})
    if not classes:
        raise FileNotFoundError(f"no videos ({', '.join(SUFFIXES)}) in the folders in {root}: make one a class")
    if empty := sorted(set(folders(root)) - set(classes)):
        what = f"no class: {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''} in {root}"
        warnings.warn(f"{what}, with no video ({', '.join(SUFFIXES)}) directly in it", stacklevel=3)
    return assemble(name, classes, listed, root=root, lists=root, flip=flip)


def folders(root: Path) -> list[str]:
    """The folders in `root` that may be classes, sorted; those whose names begin with a dot are not."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_videos(root: Path) -> list[Listed]:
    """Every video in a folder in `root`, sorted; as yet all in the training split."""
    return [
        Listed(title, f"{title}/{Path(file).stem}", "train", f"{root / title / file}", file)
        for title in folders(root)
        for file in file_names(root / title)
        if Path(file).suffix.lower() in SUFFIXES
    ]


def draw(listed: list[Listed], test_share: float, seed: int) -> list[Listed]:
    """The same videos with their split drawn, by groups."""
    chosen = draw_groups([(item.title, item.group) for item in listed], test_share, seed)
    return [replace(item, split="test" if item.group in chosen else "train") for item in listed]


def draw_groups(videos: Iterable[tuple[str, str]], test_share: float, seed: int) -> set[str]:
    """The groups to test on, of (class, group) pairs, one a video. A group goes to one side in all its classes.

    The groups come in an order that seed and name alone decide. One goes to the test split if a class of it has
    too few test videos yet, and none of its classes would be left without a training video.
    """
    groups = defaultdict(Counter)
    for title, group in videos:
        groups[group][title] += 1
    total, test, chosen = sum(groups.values(), Counter()), Counter(), set()
    for group in sorted(groups, key=lambda group: digest(seed, group)):
        sizes = groups[group]
        wanted = any(test[title] < test_share * total[title] for title in sizes)
        if wanted and all(test[title] + size < total[title] for title, size in sizes.items()):
            chosen.add(group)
            test += sizes
    return chosen
