"""``python -m david.book``: run the notebooks with papermill, then build the Jupyter Book from their outputs."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from david.files import atomic


def load_plan(root: Path, preset: str) -> list[dict]:
    """What to run, in order: ``book/params/<preset>.yml``, a list of {notebook, output, title, parameters}.

    An entry {published_pages_of: other} stands for the pages of another preset that read published records.

    Raises:
        FileNotFoundError: no such preset, or no such notebook.
        ValueError: a parameter that the notebook does not have.
    """
    path = root / "book" / "params" / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml")))
        raise FileNotFoundError(f"no parameter file {path}; known presets are {known}")
    plan = []
    for page in yaml.safe_load(path.read_text()):
        other = page.get("published_pages_of")
        pages = load_plan(root, other) if other else [page]
        plan += [p for p in pages if not other or (p.get("parameters") or {}).get("published")]
    for page in plan:
        source = root / "notebooks" / page["notebook"]
        if not source.is_file():
            raise FileNotFoundError(f"{path} names a notebook that does not exist: {source}")
        known = papermill.inspect_notebook(str(source))
        if unknown := sorted(set(page.get("parameters") or {}) - set(known)):
            raise ValueError(f"{path}: {page['notebook']} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
    return plan


def run_notebook(root: Path, page: dict) -> None:
    """Execute one notebook into ``book/notebooks``; its output is written only when it ran to the end."""
    source = root / "notebooks" / page["notebook"]
    target = root / "book" / "notebooks" / page["output"]
    notebook = papermill.execute_notebook(
        str(source), None, page.get("parameters") or {}, cwd=str(root / "notebooks"),
        kernel_name="python3", progress_bar=False,
    )  # fmt: skip
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
    if title := page.get("title"):
        head = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
        head.source = "\n".join([f"# {title}", *head.source.splitlines()[1:]])
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def build_html(root: Path) -> Path:
    """Build the HTML with every warning an error, and return the first page."""
    # --all: an incremental build keeps stale numbers in pages that quote a notebook which was run again.
    command = ["jupyter-book", "build", "book", "--all", "-W", "-n", "--keep-going"]
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], cwd=root, check=True)
    index = root / "_build" / "html" / "index.html"
    if not index.is_file():
        raise FileNotFoundError(f"jupyter-book ended without writing {index}")
    return index


def main(arguments: list[str] | None = None) -> int:
    """Run every notebook of a preset, report the failures together, and build the book if there were none."""
    parser = argparse.ArgumentParser(prog="python -m david.book", description=__doc__)
    parser.add_argument("--preset", default="demo", help="parameter file in book/params (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository (default: this folder)")
    parser.add_argument("--only", help="run only the notebooks whose output name contains this")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    # Progress bars would be frozen into the pages; frozen modules make the debugger warn at every kernel start.
    os.environ |= {"DAVID_PROGRESS": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    plan = load_plan(root, options.preset)
    chosen = [page for page in plan if not options.only or options.only in page["output"]]
    if not chosen:
        parser.error(f"--only {options.only} matches no output of preset {options.preset}")
    failures = []
    for number, page in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {page['output']} ... ", end="", flush=True)
        started = time.perf_counter()
        try:
            run_notebook(root, page)
            print(f"{time.perf_counter() - started:.0f} s", flush=True)
        except PapermillExecutionError as error:
            print("failed", flush=True)
            failures.append((page["output"], error))
    for name, error in failures:
        print(f"\n{name} failed:\n{error}", file=sys.stderr)
    if failures:
        return 1
    print(f"The book is built: open {build_html(root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
