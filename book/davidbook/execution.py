"""Note what an executed page was made from and on what, so that it is run again only when that has changed."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from glob import escape, glob
from pathlib import Path

import joblib
import nbformat

import david
from david.runs.provenance import machine, versions

# The last cell of every notebook that davidbook.build runs; what it prints moves to the page's metadata. Its first line
# is for jupyter_client, which interrupts a kernel before it ends it: a kernel that is still sending its last reply
# would print an error. Nothing runs after this cell, so it ignores interrupts from here on, as between messages.
REPORT = """get_ipython().kernel.pre_handler_hook = lambda: None
from davidbook.execution import report

print(report())"""


def digest(paths: Iterable[Path]) -> str:
    """Hex digits that depend on the names and contents of files."""
    return joblib.hash([(path.name, path.read_bytes()) for path in sorted(paths)])


def _found(patterns: Iterable[str], folder: Path) -> dict[str, str]:
    """The digest of the files that match each pattern; relative patterns start at ``folder``."""
    return {pattern: digest(folder / name for name in glob(pattern, root_dir=folder)) for pattern in sorted(patterns)}


def report() -> str:
    """JSON, run at the end of a notebook: machine, versions, the records that it used and where it looked for them."""
    records = sys.modules.get("david.runs.records")  # a notebook that did not import it asked for none
    asked = [f"{escape(str(path.parent))}/{path.name}" for path in records.asked] if records else []
    content = {"machine": machine(), "versions": versions(), "asked": _found(asked, Path.cwd())}
    return json.dumps(content | {"records": Counter(records.used.values()) if records else {}})


def sources(root: Path, page: dict) -> str:
    """A digest of what a page is made from, except the records that it asks for; see ``unchanged``.

    These are its notebook and its entry in the parameter file, the packages with their data files, the versions of what
    they require, ``_config.yml``, and every JSON file under ``book``, the published records among them.
    """
    found = [path for folder in (david, sys.modules[__name__]) for path in Path(folder.__file__).parent.rglob("*.*")]
    package = [path for path in found if path.is_file() and path.suffix != ".pyc"]
    book = [path for path in (root / "book").rglob("*.json") if "notebooks" not in path.parts]
    parts = [root / "notebooks" / page["notebook"]], package, book, filter(Path.is_file, [root / "_config.yml"])
    return joblib.hash([page, versions(), *map(digest, parts)])


def unchanged(root: Path, page: dict) -> bool:
    """Whether the page exists and a run could not change it: neither its sources nor the records it had looked for.

    Videos are not looked at: a page whose notebook was given a folder of videos (``root``) counts as changed.
    """
    path = root / "book" / "notebooks" / page["output"]
    if not path.is_file() or (page.get("parameters") or {}).get("root"):
        return False
    made = nbformat.read(path, as_version=4).metadata.get("david", {})
    return made.get("sources") == sources(root, page) and made["asked"] == _found(made["asked"], root / "notebooks")
