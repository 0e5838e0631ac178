"""Write the page that says what the book took: each page's run, the published records, and their recomputation."""

import math
from pathlib import Path

import nbformat
import pandas as pd

from david.runs.methods import REAL
from david.support.files import read_json, write_bytes


def write_page(root: Path, plan: list[dict]) -> Path:
    """Write ``book/notebooks/statistics.md`` by the text of ``statistics.md``, and return its path.

    Args:
        root: the repository.
        plan: the pages, see ``davidbook.build.load_plan``.

    Raises:
        FileNotFoundError: a page of the plan was not run yet.
    """
    records = [read_json(path) for path in (root / "book" / "records").glob("*.json")]
    report = root / "book" / "reproduction.json"
    parts = {
        "pages": _pages(root, plan),
        "records": _records(records) if records else "There are none.",
        "again": "No report of such a run is part of this copy of the book.",
    }
    if report.is_file():
        parts["again"] = _again(read_json(report), len(records))
    path = root / "book" / "notebooks" / "statistics.md"
    write_bytes(path, Path(__file__).with_name("statistics.md").read_text().format(**parts).encode())
    return path


def _pages(root: Path, plan: list[dict]) -> str:
    """A line for each page, their sum, and the machines that the lines name by letters."""
    machines, rows, total = [], [], 0
    for page in plan:
        path = root / "book" / "notebooks" / page["output"]
        notebook = nbformat.read(path, as_version=4) if path.is_file() else None
        if notebook is None or "david" not in notebook.metadata:
            raise FileNotFoundError(f"{path} was not made by this version of davidbook.build: run it, without --only")
        made, run = notebook.metadata.david, notebook.metadata.papermill
        on = f"{made.machine}; Python {made.versions.python}, torch {made.versions.torch}"
        machines += [on] if on not in machines else []
        total += run.duration
        link, preset = f"[{path.stem}]({page['output']})", (page.get("parameters") or {}).get("preset", "default")
        at = run.start_time[:16].replace("-", "\u2011").replace("T", "\u00a0")  # in one line
        used = " / ".join(str(made.records.get(kind, 0)) for kind in ("published", "read", "made"))
        rows.append((link, preset, at, f"{run.duration:.0f}", used, chr(ord("A") + machines.index(on))))
    table = pd.DataFrame(rows, columns=["page", "preset", "run at (UTC)", "seconds", "records", "on"])
    named = [f"**{chr(ord('A') + k)}**: {on}" for k, on in enumerate(machines)]
    return "\n\n".join([_markdown(table), f"In all {len(rows)} pages in {total:.0f} s.", *named])


def _records(records: list[dict]) -> str:
    """What the published records took when they were made, by dataset."""
    table = pd.DataFrame({"dataset": r["dataset"], **r["seconds"], "on": r["made"]["device"]} for r in records)
    part = [math.nan if r["method"] in REAL else 1 / len(r["students"]) for r in records]
    table["student"] = table["evaluate"] * part
    own = table.groupby("dataset")
    hours, student = own[["distill", "evaluate"]].sum() / 3600, own["student"].agg(["min", "max"])
    shown = pd.DataFrame({"dataset": hours.index, "records": own.size()})
    shown["distillation, h"] = hours["distill"].map("{:.2f}".format)
    shown["evaluation, h"] = hours["evaluate"].map("{:.2f}".format)
    shown["in all, h"] = hours.sum(axis=1).map("{:.2f}".format)
    shown["a student, s"] = student["min"].map("{:.0f} to ".format) + student["max"].map("{:.0f}".format)
    shown["on"] = own["on"].agg(lambda devices: "; ".join(sorted(set(devices))))
    return _markdown(shown.replace("nan to nan", ""))


def _again(report: dict, published: int) -> str:
    """What ``david.runs.reproduce`` reported of so many published records."""
    rows = pd.DataFrame(report["rows"])
    hours = (rows["n"] * rows["seconds again"]).sum() / 3600
    said = (
        f"Done until {report['time'][:10]} on {report['machine']}, torch {report['versions']['torch']}: "
        f"{rows['n'].sum()} of the {published} published records in {hours:.2f} h of processes of one thread, "
        f"{rows['identical'].sum()} of them identical."
    )
    shown = rows.drop(columns=["seconds published", "seconds again"])
    # Means stay in one line, a list of lengths may break; it has to fit a laptop's page.
    kept = shown.map(lambda cell: str(cell).replace(" ± ", "\u00a0±\u00a0").replace(",", ",\u200b"))
    return f"{said}\n\n```{{table}}\n:class: compact\n\n{_markdown(kept)}\n```"


def _markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, without its index."""
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
