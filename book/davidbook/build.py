"""``python -m davidbook``: run the notebooks with papermill, then build the Jupyter Book from their outputs."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import nbformat
import papermill
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell
from papermill.exceptions import strip_color

from david.runs.parameters import there
from david.support.files import atomic
from david.support.values import argument
from davidbook import execution, timings
from davidbook.parameters import check, declared


def load_plan(root: Path, preset: str) -> list[dict]:
    """What to run, in order: ``book/params/<preset>.yml``, a list of {notebook, output, title, parameters}.

    An entry {published_pages_of: other} stands for the pages of another preset that read published records.

    Raises:
        FileNotFoundError: no such preset, or no such notebook.
        ValueError: a parameter that the notebook does not have, or a wrong value of one.
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
        cells = nbformat.read(source, as_version=4).cells
        known = declared(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])))
        given = page.get("parameters") or {}
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"{path}: {page['notebook']} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
        try:
            with contextlib.chdir(source.parent):  # where it will run
                check(known, given)
        except ValueError as error:
            raise ValueError(f"{path}: {page['output']}: {error}") from None
    return plan


def toc_pages(root: Path) -> list[str]:
    """The files that ``book/_toc.yml`` lists, in order, without suffix."""
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def check_toc(root: Path, plan: list[dict]) -> None:
    """ValueError for a page that the table of contents lists and the plan does not make, or the other way round."""
    made = {f"notebooks/{Path(page['output']).stem}" for page in plan} | {"notebooks/statistics"}
    if apart := made ^ {name for name in toc_pages(root) if name.startswith("notebooks/")}:
        names = ", ".join(sorted(apart))
        raise ValueError(f"book/_toc.yml and the parameter file do not name the same pages: {names}")


def run_notebook(root: Path, page: dict, progress: str | None = None) -> None:
    """Execute one notebook into ``book/notebooks``; its output is written only when it ran to the end.

    Until then, and after a failure, what there is of it lies in ``_build/unfinished``. ``progress`` labels a bar of
    its cells; None shows none.
    """
    begun = unfinished(root, page)
    sources = execution.sources(root, page)  # before the run: what changes meanwhile makes the page outdated
    notebook = nbformat.read(root / "notebooks" / page["notebook"], as_version=4)
    notebook.cells.append(new_code_cell(execution.REPORT))
    with atomic(begun) as temporary:
        nbformat.write(notebook, temporary)
    notebook = papermill.execute_notebook(
        begun, begun, page.get("parameters") or {}, cwd=root / "notebooks", kernel_name="python3",
        progress_bar={"desc": progress, "leave": False} if progress else False,
    )  # fmt: skip
    report = next(output.text for output in notebook.cells.pop().outputs if output.get("name") == "stdout")
    notebook.metadata["david"] = json.loads(report) | {"sources": sources}
    for name in ("input_path", "output_path"):
        del notebook.metadata.papermill[name]  # folders of this machine
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
    head = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown")
    if title := page.get("title"):
        notebook.cells[head].source = "\n".join([f"# {title}", *notebook.cells[head].source.splitlines()[1:]])
    if links := source_links(root, page["notebook"]):
        notebook.cells.insert(head + 1, new_markdown_cell(links, id="run-it-yourself"))
    with atomic(root / "book" / "notebooks" / page["output"]) as temporary:
        nbformat.write(notebook, temporary)
    begun.unlink()


def unfinished(root: Path, page: dict) -> Path:
    """Where the notebook of a page lies while it runs."""
    return root / "_build" / "unfinished" / page["output"]


def source_links(root: Path, notebook: str) -> str:
    """A line of Markdown with links to the notebook in the repository that ``_config.yml`` names, "" if it names none.

    The links of Jupyter Book itself would point at a notebook of the page's name, which the repository does not have.
    """
    config = root / "_config.yml"
    repository = (yaml.safe_load(config.read_text()) if config.is_file() else {}).get("repository", {})
    host, _, name = repository.get("url", "").removeprefix("https://").partition("/")
    if host != "github.com":
        return ""
    branch, path = repository.get("branch", "main"), f"notebooks/{notebook}"
    colab = f"https://colab.research.google.com/github/{name}/blob/{branch}/{path}"
    binder = f"https://mybinder.org/v2/gh/{name}/{branch}?labpath={quote(path, safe='')}"
    source = f"https://github.com/{name}/blob/{branch}/{path}"
    return f"Run [its notebook]({source}) at quick settings: [in Colab]({colab}), [in Binder]({binder})."


def describe_failure(root: Path, page: dict, error: Exception) -> str:
    """The cell that failed, by its number in the source notebook, its code, and the traceback."""
    kept = unfinished(root, page)
    ran = nbformat.read(kept, as_version=4).cells if kept.is_file() else []
    # papermill notes no failure where a kernel died, but it starts no cell after one that failed.
    started = [cell for cell in ran if cell.metadata.get("papermill", {}).get("start_time")]
    said = f"{type(error).__name__}: {error}"
    if not started:
        return f"{page['output']} failed: {said}"
    failed = started[-1]
    source = nbformat.read(root / "notebooks" / page["notebook"], as_version=4).cells
    number = next((f"cell {n}" for n, cell in enumerate(source, 1) if cell.id == failed.id), "an added cell")
    errors = ["\n".join(output.traceback) for output in failed.get("outputs", []) if output.output_type == "error"]
    where = f"{page['output']} failed in {number} of notebooks/{page['notebook']}; what ran of it is {kept}"
    return f"{where}\n\n{failed.source}\n\n{strip_color(errors[0]) if errors else said}"


def build_html(root: Path) -> Path:
    """Build the HTML with every warning an error, put it into ``_build/html`` when it is whole; returns its first page.

    Raises:
        RuntimeError: jupyter-book failed; the message is what it said.
    """
    new, html = root / "_build" / "new", root / "_build" / "html"
    shutil.rmtree(new, ignore_errors=True)  # from nothing: an old build's pages and numbers must not survive
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book", "--path-output", str(new)]
    command += ["--all", "-W", "-n", "--keep-going"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    built = new / "_build" / "html"
    if done.returncode or not (built / "index.html").is_file():
        raise RuntimeError(f"{done.stdout}\njupyter-book failed (exit {done.returncode}); see the warnings above")
    shutil.rmtree(html, ignore_errors=True)
    built.replace(html)
    shutil.rmtree(new)
    return html / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Run what has changed, report the failures together, and build the book if there were none."""
    parser = argparse.ArgumentParser(prog="python -m davidbook", description=__doc__)
    parser.add_argument("--preset", default="demo", help="parameter file in book/params (default: %(default)s)")
    repository = argument(there, ".", Path)
    parser.add_argument("--root", type=repository, default=Path.cwd(), help="the repository (default: this folder)")
    parser.add_argument("--only", help="run only the notebooks whose output name contains this")
    parser.add_argument("--force", action="store_true", help="run also what has not changed since its last run")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    # Progress bars would be frozen into the pages; frozen modules make the debugger warn at every kernel start.
    os.environ |= {"DAVID_PROGRESS": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    try:
        plan = load_plan(root, options.preset)
        check_toc(root, plan)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    chosen = [page for page in plan if not options.only or options.only in page["output"]]
    if not chosen:
        parser.error(f"--only {options.only} matches no output of preset {options.preset}")
    failures = []
    for number, page in enumerate(chosen, 1):
        line = f"[{number}/{len(chosen)}] {page['output']} ... "
        bar, again = (line, f"\r{line}") if sys.stderr.isatty() else (None, "")  # a bar leaves an empty line
        print(line, end="", flush=True)
        if not options.force and execution.unchanged(root, page):
            print("unchanged", flush=True)
            continue
        started = time.perf_counter()
        try:
            run_notebook(root, page, bar)
            print(f"{again}{time.perf_counter() - started:.0f} s", flush=True)
        except Exception as error:  # a notebook that cannot run must not cost the others
            print(f"{again}failed", flush=True)
            failures.append(describe_failure(root, page, error))
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if failures:
        return 1
    for page in plan:
        if page not in chosen and not execution.unchanged(root, page):
            print(f"{page['output']} was left as it is, though its sources have changed", file=sys.stderr)
    timings.write_page(root, plan)
    print("building the HTML", flush=True)
    print(f"The book is built: open {build_html(root)}")
    return 0
