"""Judge single values of a command line or of a notebook: a dataset, a method, a folder, a number."""

import math
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path

from david.data.readers import check_name
from david.partition import num_segments
from david.runs.methods import method
from david.runs.settings import Settings, preset
from david.support.values import convert, unknown


def changed(name: str, changes: dict, before: dict | None = None) -> Settings:
    """The settings of a preset with changes, text among which is read as its setting's kind is.

    Args:
        before: changes that come first.

    Raises:
        ValueError: an unknown preset or setting, or a wrong value.
    """
    kinds = {field.name: field.type for field in fields(Settings)}
    read = {k: convert(v, kinds[k]) if isinstance(v, str) and k in kinds else v for k, v in changes.items()}
    return preset(name, **(before or {})).replace(**read)


def number(value: float, least: float = 0, most: float = math.inf, above: bool = False) -> float:
    """The value; ValueError where it is not finite, too small or too large."""
    if not least <= value <= most or not math.isfinite(value) or (above and value == least):
        bounds = f"{'above' if above else 'of at least'} {least}{f' and at most {most}' if most < math.inf else ''}"
        raise ValueError(f"{value!r} is not a number {bounds}")
    return value


def known_dataset(value: str) -> str:
    """The value; ValueError where there is no such dataset."""
    check_name(value)
    return value


def known_method(value: str, frames: int | None = None, what: str = "", among: Callable = lambda *_: True) -> str:
    """The shortest name of a method; ValueError where there is none, or it is not ``among`` those that are ``what``, or
    a length L of it does not divide ``frames``."""
    found = method(value, frames)
    if not among(found.name, found.name.partition(":")[0]):
        raise ValueError(f"{value!r} is not a method {what}")
    lengths = found.options.get("policy", ())
    for length in lengths if frames and lengths != "any" else ():
        num_segments(frames, length)
    return found.name


def one_of(what: str, known: Collection[str]) -> Callable[[str], str]:
    """A function that returns its argument if that is ``known``, and else raises a ValueError."""

    def check(value: str) -> str:
        if value not in known:
            raise unknown(what, value, known)
        return value

    return check


def there(value: str | Path, kind: Callable[[Path], bool] = Path.is_dir) -> str | Path:
    """The path; ValueError where there is no such folder, or, with ``Path.is_file``, file."""
    if not kind(Path(value).expanduser()):
        raise ValueError(f"{str(value)!r} is no {'folder' if kind is Path.is_dir else 'file'} that is here")
    return value


def writable(value: str | Path) -> str | Path:
    """The path; ValueError where it cannot be a folder, as it is a file or in one."""
    path = Path(value).expanduser().absolute()
    if not next(place for place in (path, *path.parents) if place.exists()).is_dir():
        raise ValueError(f"{str(value)!r} is, or is in, a file and no folder")
    return value
