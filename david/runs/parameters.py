"""A notebook's parameters: names that papermill injects must be names that the notebook declares."""

import ast
import difflib


def assigned(source: str) -> list[str]:
    """Names that a cell of plain assignments assigns."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Assign | ast.AnnAssign)]
    return [s.target.id if isinstance(s, ast.AnnAssign) else s.targets[0].id for s in statements]


def check_parameters(cells: list[str]) -> None:
    """Refuse a parameter that the notebook does not have, about which papermill itself only warns.

    Args:
        cells: sources of the cells run so far, IPython's ``In``. Papermill's cell follows the one that declares
            the parameters and starts with "# Parameters"; without it there is nothing to check.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    at = next((i for i, cell in enumerate(cells) if cell.startswith("# Parameters\n")), 0)
    known = assigned(cells[at - 1]) if at else []
    for name in assigned(cells[at]) if at else []:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
            raise ValueError(f"this notebook has no parameter {name!r}{hint}")
