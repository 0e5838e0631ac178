"""Judge a notebook's parameters: what their names mean, and so what their values may be."""

import ast
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from david.data.readers import READERS, base, check_options, load
from david.data.readers.motions import KIND
from david.runs.methods import REAL
from david.runs.parameters import changed, known_dataset, known_method, number, one_of, there, writable
from david.runs.settings import PRESETS
from david.support.values import NOTHING, convert
from davidbook.tables import paper_tables

# Whole numbers are at least 1, but these.
_LEAST = {"seed": 0, "seeds": 0, "held_out": 0, "k": 0, "strips": 0, "opinions": 0}
# Lists and mappings may be empty where the notebook's own are, and these.
_MAY_BE_EMPTY = ("options", "settings", "early", "full")
# Where the notebook's own need not be there: it may have been opened outside the repository.
_PLACES = ("published", "records", "said", "tried", "toc")
# A right value where the notebook's own is empty or None.
_EXAMPLES = {
    "root": "/data/UCF-101", "published": "../book/records", "options": {"split": 1}, "settings": {"size": 64},
    "longer": {"distill_iterations": 400}, "methods": ["random", "dm", "david"], "shown": ["MoveLeft", "Disc"],
    "roots": {"ucf12": "/data/UCF-101"},
}  # fmt: skip


def check_parameters(notebook: dict, sets: bool = False) -> None:
    """Judge a notebook's parameters before any work, and put what they stand for in their place.

    Papermill's ``-p`` hands over everything that is not a number as text, and only warns of a name that is not known.

    Args:
        notebook: its ``globals()``. Of the cells run so far, IPython's ``In``, the parameters are declared by the one
            before papermill's, which starts with "# Parameters", or without that by the last of annotated assignments
            alone; without either there is nothing to judge.
        sets: whether the notebook looks at distilled sets, which full data has not.

    Raises:
        ValueError: as ``check`` says.
    """
    cells = [cell for cell in notebook.get("In", ()) if cell.strip()]
    injected = max((i for i, cell in enumerate(cells) if i and cell.startswith("# Parameters\n")), default=None)
    own = filter(_declares, cells) if injected is None else [cells[injected - 1]]
    if known := declared(([*own] or [""])[-1]):
        names = dict.fromkeys([*known, *(_assigned(cells[injected]) if injected else {})])
        notebook |= check(known, {name: notebook[name] for name in names}, sets)


def _declares(cell: str) -> bool:
    """Whether a cell is of annotated assignments alone."""
    try:
        parts = ast.parse(cell).body
    except SyntaxError:  # IPython's own
        return False
    return bool(parts) and all(isinstance(part, ast.AnnAssign) for part in parts)


def _assigned(cell: str) -> dict[str, ast.AnnAssign | ast.Assign]:
    """name -> the statement that assigns it, in a cell of assignments."""
    parts = [part for part in ast.parse(cell).body if isinstance(part, ast.AnnAssign | ast.Assign) and part.value]
    targets = [part.target if isinstance(part, ast.AnnAssign) else part.targets[0] for part in parts]
    return {target.id: part for target, part in zip(targets, parts) if isinstance(target, ast.Name)}


def declared(cell: str) -> dict[str, tuple[Any, Any]]:
    """name -> (kind, default) of what a cell of assignments assigns; a kind is annotated, or that of the default.

    Kinds are as ``values.convert`` takes them. A default that is no literal, as whoever edits a cell may write it, is
    an Ellipsis.
    """
    found = {}
    for name, part in _assigned(cell).items():
        try:
            default = ast.literal_eval(part.value)
        except ValueError:
            default = ...
        found[name] = eval(ast.unparse(part.annotation)) if isinstance(part, ast.AnnAssign) else _kind(default), default
    return found


def _kind(value: Any) -> Any:
    if isinstance(value, list) and value:
        return list[_kind(value[0])]
    return Any if value in (None, ...) else type(value)


def check(known: dict[str, tuple[Any, Any]], values: dict[str, Any], sets: bool = False) -> dict[str, Any]:
    """Values of parameters as they are meant: text read as the parameter's kind is, methods by their shortest names.

    Args:
        known: name -> (kind, default) of every parameter, as ``declared`` finds them.
        values: of some of them; the others have their defaults.
        sets: as of ``check_parameters``.

    Raises:
        ValueError: an unknown name, with the nearest known one; or a wrong value, in one sentence, with a right one.
    """
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ValueError(f"this notebook has no parameter {name!r}; {hint}")

    def judge(name: str, function: Callable, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (ValueError, TypeError, OSError) as error:
            default = known[name][1]
            example = _EXAMPLES.get(name, default) if default in (None, [], {}) else default
            said, given = " ".join(str(error).split()), repr(values[name])
            given = given if len(given) < 100 else f"{given[:97]}..."
            raise ValueError(f"parameter {name}={given} is wrong: {said} (right is, say, {name}={example!r})") from None

    read = {name: judge(name, _read, value, name, *known[name]) for name, value in values.items()}
    meanings = _meanings({name: default for name, (_, default) in known.items()} | read, sets)
    for name in [*(name for name in read if name not in meanings), *(name for name in meanings if name in read)]:
        kind, default = known[name]
        if read[name] is not None and not (name in _PLACES and read[name] == default):
            read[name] = judge(name, _meant, read[name], meanings.get(name, _number_of(name, kind)))
    return read


def _read(value: Any, name: str, kind: Any, default: Any) -> Any:
    """A value as its kind, and not empty where that makes no sense."""
    value = str(value) if isinstance(value, Path) else value
    if default is None and (value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)):
        return None
    value = convert(value, kind)
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is empty")
    if isinstance(value, list | dict) and not value and default and name not in _MAY_BE_EMPTY:
        raise ValueError("it is empty")
    return value


def _meant(value: Any, meaning: Callable) -> Any:
    """What a value stands for; each of a list for itself, and no two for the same."""
    if not isinstance(value, list):
        return meaning(value)
    found = [meaning(one) for one in value]
    if twice := [one for one in found if found.count(one) > 1]:
        raise ValueError(f"{twice[0]!r} is in it twice")
    return found


def _number_of(name: str, kind: Any) -> Callable:
    """The meaning of a name that is nothing but a number, or several; any other value stands for itself."""
    kind = (get_args(kind) or (kind,))[-1]
    if kind is int:
        return lambda value: number(value, _LEAST.get(name, 1))
    return (lambda value: number(value, above=True)) if kind is float else (lambda value: value)


def _meanings(given: dict, sets: bool) -> dict[str, Callable]:
    """What each other name means, what others depend on first: a function of its value, or of each of a list, that
    returns what it stands for.

    Args:
        given: all values of a notebook.
        sets: as of ``check_parameters``.
    """
    name, changes, root = given.get("preset", "paper"), given.get("settings", {}), given.get("root")
    dataset = given.get("dataset", "folder" if "root" in given else "motions")
    at_hand = root is not None or base(dataset) == "motions"

    def settings(value: dict, before: dict | None = None) -> dict:
        made = changed(name, value, before)
        return {setting: getattr(made, setting) for setting in value}

    def datasets(value: dict) -> dict:
        return {known_dataset(own): settings(changes) for own, changes in value.items()}

    def folders(value: dict) -> dict:
        known = one_of("dataset of this notebook", given.get("datasets", READERS))
        return {known(own): there(folder) for own, folder in value.items()}

    def options(value: dict) -> dict:
        read = check_options(dataset, value)
        if read and at_hand:
            load(dataset, root, **read)  # the reader itself knows best; of motions it renders what is right
        return read

    def shown(value: str) -> str:
        options = given.get("options", {})
        if dataset == "motions":
            return one_of("class", options.get("classes", KIND))(value)
        return one_of("class", load(dataset, root, **options).classes)(value) if at_hand else value

    def pairs(value: dict) -> dict:
        for own in value.values():
            if len(own) != 2 or min(own) < 1:
                raise ValueError(f"{own!r} is not two whole numbers of at least 1")
        return value

    def methods(what: str, among: Callable) -> Callable:
        return lambda value: known_method(value, changed(name, changes).frames, what, among)

    anyone = methods("that has a set", lambda full, base: not sets or base not in REAL)
    search = methods("that searches, as 'david' does", lambda full, base: base == "david")
    grid = methods("that tries every L once", lambda full, base: full in ("david:grid", "david:once"))
    videos = methods("whose set holds videos", lambda full, base: base not in (*REAL, "vdsd"))
    movement, device, file = one_of("class of motions", KIND), _short_name, lambda value: there(value, Path.is_file)
    return {
        "preset": one_of("preset", PRESETS), "settings": settings, "longer": lambda value: settings(value, changes),
        "dataset": known_dataset, "datasets": datasets, "ours": datasets, "roots": folders,
        "root": there, "runs": writable, "published": there, "records": there, "said": there, "tried": file,
        "toc": file, "methods": anyone, "learned": anyone, "method": videos, "grid": grid, "early": search,
        "full": search, "static": movement, "dynamic": movement, "metric": one_of("metric", ("top1", "top5")),
        "beside": _of_the_paper, "device": device, "gpu": device, "targets": pairs,
        "share": lambda value: number(value, 0, 1), "shown": shown, "options": options,
    }  # fmt: skip


def _of_the_paper(value: str) -> str:
    return one_of("dataset of the paper's Tables 1 and 2", [*paper_tables().query("table < 3")["dataset"].unique()])(
        value
    )


def _short_name(value: str) -> str:
    if not value.replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"{value!r} is not the short name of a device")
    return value
