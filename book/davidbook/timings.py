"""The page of the book that says what it took: every page's run, the published records, and their recomputation."""

import math
from pathlib import Path

import nbformat
import pandas as pd

from david.runs.methods import REAL
from david.support.files import read_json, write_bytes

INTRODUCTION = """# Execution statistics

What this copy of the book took: when each page was run, at which preset, for how many seconds, and on what. *Records*
are those that it used: published with the repository / read back from earlier runs of this installation / made by the
page itself. A page whose sources have not changed is not run again and keeps its line."""

RECORDS = """## What the published records took

Sums of the seconds that the records in `book/records` hold: each the time of one process, not counting what several
records share (decoded clips, the teacher, MTT's experts). *A student* is trained and tested by the same steps in every
record of a dataset, so the last column but one says how unequal the machine's other work was: seconds of different
records do not compare methods."""

AGAIN = """## The published records, computed again

`make reproduce` computes every published record anew and compares. *Identical* counts the records whose accuracies are
the same to the last digit; a difference is in points of top-1 accuracy, beside the published deviation over seeds.
The seconds of both are in `book/reproduction.json`, and time is summed as above."""


def write_page(root: Path, plan: list[dict]) -> Path:
    """Write ``book/notebooks/statistics.md`` and return its path.

    Args:
        root: the repository.
        plan: the pages, see ``davidbook.build.load_plan``.

    Raises:
        FileNotFoundError: a page of the plan was not run yet.
    """
    parts = [INTRODUCTION, *_pages(root, plan), RECORDS, _records(root), AGAIN, *_again(root)]
    path = root / "book" / "notebooks" / "statistics.md"
    write_bytes(path, ("\n\n".join(parts) + "\n").encode())
    return path


def _pages(root: Path, plan: list[dict]) -> list[str]:
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
        rows.append(
            {
                "page": f"[{path.stem}]({page['output']})",
                "preset": (page.get("parameters") or {}).get("preset", "default"),
                "run at (UTC)": run.start_time[:16].translate({ord("-"): "\u2011", ord("T"): "\u00a0"}),  # in one line
                "seconds": f"{run.duration:.0f}",
                "records": " / ".join(str(made.records.get(kind, 0)) for kind in ("published", "read", "made")),
                "on": chr(ord("A") + machines.index(on)),
            }
        )
    named = [f"**{chr(ord('A') + k)}**: {on}" for k, on in enumerate(machines)]
    return [_markdown(pd.DataFrame(rows)), f"In all {len(rows)} pages in {total:.0f} s.", *named]


def _records(root: Path) -> str:
    """What the published records took when they were made, by dataset."""
    records = [read_json(path) for path in sorted((root / "book" / "records").glob("*.json"))]
    if not records:
        return "There are none."
    table = pd.DataFrame(
        {
            "dataset": r["dataset"],
            **r["seconds"],
            "student": math.nan if r["method"] in REAL else r["seconds"]["evaluate"] / len(r["students"]),
            "on": r["made"]["device"],
        }
        for r in records
    )
    rows = [
        {
            "dataset": dataset,
            "records": len(group),
            "distillation, h": f"{group['distill'].sum() / 3600:.2f}",
            "evaluation, h": f"{group['evaluate'].sum() / 3600:.2f}",
            "in all, h": f"{(group['distill'].sum() + group['evaluate'].sum()) / 3600:.2f}",
            "a student, s": _range(group["student"].dropna()),
            "on": "; ".join(sorted(group["on"].unique())),
        }
        for dataset, group in table.groupby("dataset")
    ]
    return _markdown(pd.DataFrame(rows))


def _range(values: pd.Series) -> str:
    return f"{values.min():.0f} to {values.max():.0f}" if len(values) else ""


def _again(root: Path) -> list[str]:
    """The report of ``david.runs.reproduce``, if it was published."""
    path = root / "book" / "reproduction.json"
    if not path.is_file():
        return ["No report of such a run is part of this copy of the book."]
    report = read_json(path)
    rows = pd.DataFrame(report["rows"])
    hours = (rows["n"] * rows["seconds again"]).sum() / 3600
    said = f"Done until {report['time'][:10]} on {report['machine']}, torch {report['versions']['torch']}: "
    published = sum(1 for _ in (root / "book" / "records").glob("*.json"))
    said += f"{rows['n'].sum()} of the {published} published records in {hours:.2f} h of processes of one thread, "
    said += f"{rows['identical'].sum()} of them identical."
    shown = rows.drop(columns=["seconds published", "seconds again"])
    # Means stay in one line, a list of lengths may break; it has to fit a laptop's page.
    kept = shown.map(lambda cell: str(cell).replace(" ± ", "\u00a0±\u00a0").replace(",", ",\u200b"))
    return [said, "```{table}\n:class: compact\n\n" + _markdown(kept) + "\n```"]


def _markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, without its index."""
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
