"""The methods, each one file with one function: ``distill(train, *, ipc, seed, settings, work) -> DistilledSet``."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from david.methods import david, dm, full, random
from david.presets import RULES


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: what was asked for, e.g. "dm:4".
        title: how tables print it.
        paper: the row of the paper's tables that it reproduces, or None.
        distill: the function, options bound.
        stages: the prefixes of the settings it depends on, beside the common ones.
        rule: the search rule that replaces the settings' own, or None.
    """

    name: str
    title: str
    paper: str | None
    distill: Callable
    stages: tuple[str, ...]
    rule: str | None = None


def method(name: str) -> Method:
    """Look a method up by name: "full", "random", "dm", "david"; or with an option after a colon.

    "random:2" and "dm:2" use segments of L = 2 frames for all classes; "david:paper" and "david:recommended"
    name the search rule, which plain "david" takes from the settings.

    Raises:
        ValueError: unknown name or option, with the nearest known one.
    """
    base, _, option = name.partition(":")
    if base == "full" and not option:
        return Method(name, "Full data", "Full DS", full.distill, ("teacher",))
    if base in ("random", "dm"):
        module, title, paper = (random, "Random", "Random") if base == "random" else (dm, "DM", "DM")
        stages = ("student",) if base == "random" else ("distill", "student")
        if not option:
            return Method(name, title, paper, module.distill, stages)
        if option.isdecimal() and int(option) > 0:
            bound = partial(module.distill, frames_per_segment=int(option))
            return Method(name, f"{title}, L = {option}", None, bound, stages)
        raise ValueError(f"method {name!r}: the option of {base} is a segment length L, as in '{base}:4'")
    if base == "david":
        stages = ("distill", "search", "teacher", "student")
        if not option:
            return Method(name, "DAViD", "DAViD", david.distill, stages)
        if option in RULES:
            bound = partial(david.distill, rule=option)
            return Method(name, f"DAViD ({option} rule)", "DAViD", bound, stages, option)
        raise ValueError(f"method {name!r}: the option of david is a search rule, one of {', '.join(RULES)}")
    known = ("full", "random", "dm", "david")
    near = difflib.get_close_matches(base, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"unknown method {name!r}{hint} Known are {', '.join(known)}")
