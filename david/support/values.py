"""Values that people type: text becomes what is asked for where it can be read in one way only, else it is an error."""

import argparse
import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args, get_origin

# What YAML takes for a truth value and for nothing, in small letters; Python writes None.
TRUTH = dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)
NOTHING = ("null", "none", "~")

_ONE = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}
_ONE |= {Path: "a path"}
_MANY = {str: "texts", int: "whole numbers", float: "numbers", bool: "truth values", list: "lists", dict: "mappings"}


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """The error of a name that is not ``known``: it says which one is nearest, or all of them."""
    known = list(map(str, known))
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return ValueError(f"unknown {what} {name!r}; {hint}")


def describe(kind: Any, words: dict = _ONE) -> str:
    """A kind of value in words: "a list of whole numbers" of ``list[int]``."""
    inner = [part for part in get_args(kind)[-1:] if part in _MANY or get_origin(part)]
    of = {list: "of", dict: "to"}.get(get_origin(kind))
    return words[get_origin(kind) or kind] + "".join(f" {of} {describe(part, _MANY)}" for part in inner)


def convert(value: Any, kind: Any) -> Any:
    """``value`` as a ``kind``: str, int, float, bool, list, dict, ``list[...]``, ``dict[str, ...]``, or Any.

    Of text, lists and mappings are read as YAML, and what is in them as its own kind is: "[0, 1]" as ``list[int]`` is
    [0, 1], "false" as bool is False. A whole number will do for a number, a tuple for a list; nothing else is changed.

    Raises:
        ValueError: it is of another kind, and not text that can be read as this one.
    """
    outer, inner = get_origin(kind) or kind, get_args(kind) or (Any,)
    if isinstance(value, str) and outer in (list, dict):
        read = _read_yaml(value)
    elif isinstance(value, str) and outer in (int, float, bool):
        read = _read_scalar(value.strip(), outer)
    else:
        read = list(value) if isinstance(value, tuple) and outer is list else value
    right = outer is Any or isinstance(read, (int, float) if outer is float else outer)
    if not right or (isinstance(read, bool) and outer in (int, float)):
        raise ValueError(f"{value!r} is not {describe(kind)}")
    if outer is list:
        return [convert(one, inner[0]) for one in read]
    if outer is dict:
        if odd := [key for key in read if not isinstance(key, str)]:
            raise ValueError(f"the name {odd[0]!r} in {value!r} is not text")
        return {key: convert(one, inner[-1]) for key, one in read.items()}
    return read


def _read_scalar(text: str, kind: type) -> Any:
    """Text as a number or a truth value; itself where it is none."""
    try:
        return TRUTH.get(text.lower(), text) if kind is bool else kind(text)
    except ValueError:
        return text


def _read_yaml(text: str) -> Any:
    """Text as the lists and mappings that it is in YAML, of text alone; None where it is no YAML."""
    import yaml  # of the extra "book", as notebooks are; of a command, lists alone need it

    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return None


def argument(check: Callable, example: object, kind: Any = str) -> Callable[[str], Any]:
    """The ``type=`` of an option of a command: text that ``convert`` reads and ``check`` judges, or one line of error.

    Args:
        check: takes the value, and returns it or another in its place; ValueError or OSError where it is wrong.
        example: a right value.
        kind: as ``convert`` takes it, or Path.
    """

    def read(text: str) -> Any:
        try:
            return check(Path(text) if kind is Path and text else convert(text, kind))
        except (ValueError, OSError) as error:
            raise argparse.ArgumentTypeError(f"{error} (right is, say, {example})") from None

    return read


def assignment(text: str) -> tuple[str, str]:
    """``name=value`` as (name, value); the ``type=`` of an option, for values whose kind depends on their name."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value (right is, say, size=64)")
    return name, value


def known_device(text: str) -> str:
    """The name of a torch device that is a CPU or a GPU, which need not be here."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ValueError(f"{text!r} is not cpu, cuda, or a GPU by its number, as cuda:0")
    return text


def jobs(count: int) -> int:
    """How many processes, as joblib counts them: -1 is one a core, -2 one less."""
    if not count:
        raise ValueError("0 processes make nothing; -1 is one a core")
    return count
