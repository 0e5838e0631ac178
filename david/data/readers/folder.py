"""Your own videos: one folder a class, `root/<class>/*.avi` (or mp4, mov, m4v, ts, ...: `core.SUFFIXES`), and no list.

The split is drawn from a seed, by groups: what UCF101's `_g01_`, or another dataset's naming, says comes from one
source goes to one side. A file whose name says nothing is a group of its own: name your files `walk_g07_c02.mp4`
where several show the same place or people, or their test accuracy will be too high.

What lies deeper, or has another suffix, is not read: a sub-folder may hold copies, or a split of its own. All of it is
in the dataset's `unread`, and a warning names what may be a video.
"""

import mimetypes
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from david.data.readers import Dataset, digest
from david.data.readers.core import (
    SUFFIXES,
    Listed,
    assemble,
    composed,
    file_names,
    find_root,
    folder_names,
    is_video,
)

KINDS = mimetypes.MimeTypes()  # of files, by their suffix


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
    known = f"{', '.join(SUFFIXES[:5])}, ..."
    if not classes:
        raise FileNotFoundError(f"no videos ({known}) in the folders in {root}: make one a class")
    for title in classes:
        check_class(title, [item for item in listed if item.title == title], root)
    unread = find_others(root, {Path(item.where) for item in listed})
    told, loud = [], [path for path in unread if not is_companion(path)]
    if empty := [place for place in folders(root) if composed(place) not in classes]:
        told += [f"no class: {some(empty)} in {root}, with no video ({known}) directly in it"]
    if loud:
        told += [f"not read: {len(loud)} files in {root} ({some(loud)}), as videos lie directly in a class's folder"]
    if told:
        warnings.warn(f"{'; '.join(told)}; all that is not read: the dataset's `unread`", stacklevel=3)
    return replace(assemble(name, classes, listed, root=root, lists=root, flip=flip), unread=tuple(unread))


def some(names: list[str]) -> str:
    """The first five names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def check_class(title: str, own: list[Listed], root: Path) -> None:
    """ValueError for a class whose videos no split can both train and test on."""
    if len({item.split for item in own}) < 2:
        groups = sorted({item.group for item in own})
        what = f"{len(own)} video{'s' * (len(own) > 1)} of {len(groups)} group{'s' * (len(groups) > 1)}"
        raise ValueError(
            f"class {title} of {root} has {what} ({some(groups)}), and some must train while others test, a group on "
            f"one side: add videos of other groups, or take the class's folder away"
        )


def folders(root: Path) -> list[str]:
    """The folders in `root` that may be classes, sorted; those whose names begin with a dot are not."""
    return [name for name in folder_names(root) if not name.startswith(".")]


def find_videos(root: Path) -> list[Listed]:
    """Every video in a folder in `root`, sorted; as yet all in the training split."""
    titles = [composed(place) for place in folders(root)]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise ValueError(f"two folders in {root} are called {twice[0]!r} (in other bytes): rename one of them")
    return [
        Listed(title, composed(f"{title}/{Path(file).stem}"), "train", f"{root / place / file}", file)
        for title, place in zip(titles, folders(root))
        for file in file_names(root / place)
        if is_video(file)
    ]


def find_others(root: Path, read: set[Path]) -> list[str]:
    """Paths within `root`, sorted, of what is not in `read`: all files in its folders, and videos in `root` itself.

    Of what is hidden only videos, and no companions of macOS (`._a.mp4`). Of a link to a folder deeper down the link.
    """

    def stop(error: OSError):
        raise error

    found = {root / name for name in os.listdir(root) if is_video(name) and not os.path.isdir(root / name)}
    for top in folder_names(root):
        for place, inner, names in os.walk(root / top, onerror=stop):
            links = [name for name in inner if os.path.islink(os.path.join(place, name))]
            found |= {Path(place, name) for name in (*names, *links)}
    paths = [path.relative_to(root) for path in found - read if not path.name.startswith("._")]
    shown = (path for path in paths if is_video(path.name) or not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in shown)


def is_companion(path: str) -> bool:
    """Whether a file is what lies beside videos and is none: a text, a picture or JSON, in the folder of a class."""
    kind = KINDS.guess_type(path)[0] or ""
    return path.count("/") == 1 and kind.startswith(("text/", "image/", "application/json")) and not is_video(path)


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
