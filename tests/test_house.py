"""The house: who may import whom, and that documents name files that are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a module imports from its own floor or from below. A name without a dot is a file of the hall.
FLOORS = (
    ("support.values", "support.seeds", "support.progress", "support.pixels", "qlearning", "delta"),
    ("support.files", "support.costs", "c3d", "partition"),
    ("support.loop", "sets", "data"),
    ("fast_embed", "export", "publish"),
    ("matching", "training"),
    ("reward", "baselines.halving"),
    ("sweep",),
    ("algorithm",),
    ("baselines",),
    ("runs.settings",),
    ("runs",),
)
# Within functions: a file says which kind of set it holds, and what a set is exported by takes PyAV.
UP = {("sets", "baselines.static_dynamic"), ("sets", "export")}


def modules() -> dict[str, Path]:
    """Name below ``david`` -> file."""
    paths = [path for path in (ROOT / "david").rglob("*.py") if path.stem not in ("__init__", "__main__")]
    found = {".".join(path.relative_to(ROOT / "david").with_suffix("").parts): path for path in paths}
    return found | {"data.readers": ROOT / "david" / "data" / "readers" / "__init__.py"}


def floor(name: str) -> int:
    """That of the longest name that it begins with."""
    fits = [(len(own), k) for k, row in enumerate(FLOORS) for own in row if f"{name}.".startswith(f"{own}.")]
    assert fits, f"david.{name} has no floor"
    return max(fits)[1]


def imported(path: Path) -> set[str]:
    """The modules of david that a file imports, also within functions; not those for type checkers alone."""
    tree, names = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("david", "davidbook"):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name.removeprefix("david.") in modules() else node.module for name in whole}
    return {name.removeprefix("david.") for name in names}


@pytest.mark.parametrize("name", sorted(modules()))
def test_arrows_run_down_only(name):
    for other in imported(modules()[name]) - {"david"}:
        assert not other.startswith("davidbook"), f"{name} imports the book's tools"
        assert (name, other) in UP or floor(other) <= floor(name), (
            f"david.{name} imports david.{other}, which stands above it"
        )


def test_documents_name_files_that_are_there():
    texts = [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    named = {
        name
        for path in texts
        for name in re.findall(r"`((?:david|book|tests|benchmarks)/[\w/]+\.py)`", path.read_text())
    }
    assert named and not [name for name in sorted(named) if not (ROOT / name).is_file()]


def test_it_does_not_grow_unasked():
    """Lines of Python. Whoever raises a bound says in the commit what for."""

    def lines(paths) -> int:
        return sum(len(path.read_text().splitlines()) for path in paths)

    assert lines((ROOT / "david").glob("*.py")) <= 2650  # the hall: the paper, and what people do with sets
    assert lines((ROOT / "david").rglob("*.py")) <= 9400
    assert lines((ROOT / "book" / "davidbook").glob("*.py")) <= 2350
