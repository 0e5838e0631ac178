"""Who the videos are: files with a class, a group and a split. Pixels come later, in `clips`.

>>> dataset = david.data.readers.load("ucf101", root="~/data/UCF-101")
>>> dataset.train[0]
Video(path=..., name='v_ApplyEyeMakeup_g08_c01', label=0, group='g08')
"""

import difflib
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

from david.support.values import NOTHING, convert, unknown

# name -> the module in this package and its function; imported when asked for.
READERS = {
    "motions": ("motions", "motions"),
    "ucf101": ("ucf101", "ucf101"),
    "ucf12": ("ucf101", "ucf12"),
    "hmdb51": ("hmdb51", "hmdb51"),
    "jhmdb21": ("hmdb51", "jhmdb21"),
    "ssv2": ("ssv2", "ssv2"),
    "kinetics400": ("kinetics400", "kinetics400"),
    "msraction3d": ("msraction3d", "msraction3d"),
    "frames": ("frames", "frames"),
    "folder": ("folder", "folder"),
}

DERIVED = ("tr-", "heldout-")  # before a name: see the functions in `derived`


@dataclass(frozen=True)
class Video:
    """One video file: where it is, its `name` (no folder, no suffix), its class as an index, and its group.

    Videos of one group show the same scene, people or source film, so groups, not videos, are what a split
    separates.
    """

    path: Path
    name: str
    label: int
    group: str


@dataclass(frozen=True)
class Dataset:
    """The videos of one dataset and one split of it.

    flip: whether a clip seen in a mirror keeps its label. settings: what else defines the videos of a
    generated dataset. missing: (class, file) of the listed videos that were not found and left out. across: whether
    groups of the same name in two classes are one source, as a person is: see `source`. unread: the files in the
    dataset's folder that are not read, as paths within it; of a dataset with lists, which say what there is, none.
    fingerprint: the same on every machine, as it covers names, labels, groups, splits and settings, but not
    paths or dates. `report.describe` and `report.duplicates` say what is in it.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Video, ...]
    test: tuple[Video, ...]
    flip: bool
    settings: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    across: bool = False
    unread: tuple[str, ...] = ()
    fingerprint: str = field(init=False)

    def __post_init__(self):
        splits = [[(v.name, v.label, v.group) for v in videos] for videos in (self.train, self.test)]
        fingerprint = digest(self.name, self.classes, splits, self.flip, self.settings)
        object.__setattr__(self, "fingerprint", fingerprint)

    def source(self, video: Video) -> str:
        """The video's group, with its class unless groups go across: UCF101's g01 of two classes is two sources."""
        return video.group if self.across else f"{self.classes[video.label]}/{video.group}"


def digest(*parts) -> str:
    """A short sha256 (16 hex digits) of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def base(name: str) -> str:
    """The reader behind a dataset's name: "ucf101" of "tr-ucf101" and of "heldout-ucf101"."""
    while name.startswith(DERIVED):
        name = name.partition("-")[2]
    return name


def check_name(name: str) -> None:
    """ValueError unless `name` is a key of READERS, alone or derived, with the nearest that is."""
    name = base(name)
    if name not in READERS:
        close = difflib.get_close_matches(name, READERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(READERS)}.{hint}")


def _function(module: str, name: str) -> Callable[..., Dataset]:
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def check_options(name: str, options: dict) -> dict:
    """The options of the reader of dataset `name`, text among them read as its kind of option is: "no" as False.

    ValueError for an unknown dataset or option, with the nearest known one, and for a value of another kind.
    """
    check_name(name)
    known = {k: v for k, v in inspect.signature(_function(*READERS[base(name)])).parameters.items() if k != "root"}
    while name.startswith(DERIVED):
        function, _, name = name.partition("-")
        own = inspect.signature(_function("derived", function)).parameters.items()
        known |= {k: v for k, v in own if v.kind is v.KEYWORD_ONLY}
    return {option: _read_option(option, value, known) for option, value in options.items()}


def _read_option(option: str, value, known: dict):
    """The value of an option; `known` has the parameters of the reader."""
    if option not in known:
        raise unknown("option", option, known)
    kind = known[option].annotation
    try:
        if isinstance(kind, UnionType):  # of a path, or an object, or None
            value = None if isinstance(value, str) and value.strip().lower() in NOTHING else value
            if not isinstance(value, kind) or value == "":
                raise ValueError(f"{value!r} is not {' or '.join(own.__name__ for own in kind.__args__)}")
            return value
        if get_origin(kind) is tuple:
            return tuple(convert(value, list[get_args(kind)[0]]))
        value = convert(value, kind)
        if kind is int and value < (0 if option.endswith("seed") else 1):
            raise ValueError(f"{value!r} is too small")
        return value
    except ValueError as error:
        raise ValueError(f"option {option}: {error}") from None


def load(name: str, /, root: str | Path | None = None, split: int = 1, **options) -> Dataset:
    """The dataset `name` (a key of READERS), read from the folder `root`, with the official split `split`.

    `motions` needs no root: it makes its own videos. `options` go to the reader, as `check_options` reads them;
    `name="..."` among them renames a dataset of your own. "tr-" before the name keeps the classes of largest Delta
    alone, "heldout-" tests on some of the training groups: see `derived`. ValueError for an unknown name or option.
    """
    options = check_options(name, {"split": split} | options)
    if name.startswith(DERIVED):
        function, _, name = name.partition("-")
        return _function("derived", function)(name, root=root, **options)
    return _function(*READERS[name])(root=root, **options)
