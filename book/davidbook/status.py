"""Lay out the reproduction status: the paper's numbers cell by cell, its claims one by one, beside our records."""

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd
import yaml

from david.runs.experiment import Experiment
from david.runs.methods import method
from david.runs.records import FORMAT, Store, check_versions
from david.runs.settings import Settings
from david.support.files import read_json
from davidbook.claims import PAPER, STANDS_FOR, Interval, Judgement, judgements, measure
from davidbook.differences import intervals
from davidbook.tables import paper_tables

# The paper's datasets -> our reader, and the paper's settings. TR-UCF is left out: the paper does not publish its
# classes, so our "tr-ucf101" would be another dataset.
# VDSD, whose loading the paper follows, spreads the frames of SSv2 over the video, and takes two a second of K400.
_HEAVY = Settings(frames=8, size=64)
PAPER_SETTINGS = {
    "UCF101": ("ucf101", Settings()),
    "HMDB51": ("hmdb51", Settings()),
    "SSv2": ("ssv2", _HEAVY.replace(stride=1000)),
    "K400": ("kinetics400", _HEAVY.replace(stride=15)),
}
UNITS = {"search": " TFLOP", "hours": " h"}
THEIRS = "the paper's own numbers"
Runs = dict[tuple[str, int], list[dict]]  # (method, IPC) -> records, one a seed


def load_records(folder: str | Path) -> list[dict]:
    """All records of a folder, each with its ``path``; a folder that does not exist has none.

    Raises:
        ValueError: a record of an unknown method, with its file.
    """
    records = []
    for path in sorted(Path(folder).glob("*.json")):
        record = read_json(path)
        if isinstance(record, dict) and record.get("format") == FORMAT:
            try:
                method(record["method"])
            except ValueError as error:
                raise ValueError(f"update david, or move {path} elsewhere: {error}") from error
            records.append({**record, "path": path, "published": True})
    return records


def wanted_settings(dataset: str, settings: Settings, name: str) -> dict:
    """What a record of a method has as its settings if it was made under ``settings``."""
    experiment = Experiment(dataset, settings, Store("."))
    experiment.at_hand = False  # no data is read
    return experiment.identity(name, ipc=1, seed=0)["settings"]


def at_settings(records: Iterable[dict], dataset: str, settings: Settings) -> Runs:
    """The records of one dataset that were made with exactly these settings, so that they may be compared.

    Raises:
        ValueError: they were made from different versions of the data, with a file of each.
    """
    own = [r for r in records if r["dataset"] == dataset]
    own = [r for r in own if r["settings"] == wanted_settings(dataset, settings, r["method"])]
    check_versions(own, dataset)
    runs: Runs = {}
    for record in sorted(own, key=lambda record: record["seed"]):
        runs.setdefault((record["method"], record["ipc"]), []).append(record)
    return runs


def stand_in(row: str, table: int) -> list[str]:
    """Our methods for a row of the paper's table; in Table 2, VDSD is VDSD on MTT (the paper's section 4.4.2)."""
    return ["vdsd:mtt"] if (row, table) == ("VDSD", 2) else STANDS_FOR[row]


def verdict(cell, runs: Runs) -> str:
    """Whether a row of ``paper_tables()`` was reproduced by runs on its dataset at its settings.

    The first of our methods for the row that was run decides.

    Returns:
        "reproduced": the intervals overlap or, for hours, which depend on the device, ours are at most twice and at
        least half as many; "not reproduced"; "not run".
    """
    ipc = 0 if math.isnan(cell.ipc) else int(cell.ipc)
    records = next((runs[name, ipc] for name in stand_in(cell.row, cell.table) if (name, ipc) in runs), None)
    if records is None:
        return "not run"
    mean, std = measure(records, {2: "top5", 3: "hours"}.get(cell.table, "top1"))
    if cell.table == 3:
        same = 0.5 <= mean / cell.mean <= 2
    else:
        same = intervals((mean, 0 if math.isnan(std) else std), (cell.mean, cell.std)) == "overlap"
    return "reproduced" if same else "not reproduced"


class Status:
    """What the status page is made of; its tables are strings of HTML for ``tables.show``.

    Args:
        folder: of published records.
        settings: our datasets, by name -> the settings whose records are shown.
        link: what a link to a record has before its file name.
        toc: the book's table of contents, for links to its pages; without that file there are none.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Settings], link: str, toc: str | Path):
        self.records, self.settings, self.link = load_records(folder), settings, link
        parts = yaml.safe_load(Path(toc).read_text())["parts"] if Path(toc).is_file() else []
        self.pages = [Path(entry["file"]).name for part in parts for entry in part["chapters"]]
        self.ours = {name: at_settings(self.records, name, s) for name, s in settings.items()}
        self.theirs = {name: at_settings(self.records, *known) for name, known in PAPER_SETTINGS.items()}
        self.judgements = judgements(self.ours)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """``paper_tables()`` with a column "verdict"."""
        table = paper_tables()
        return table.assign(verdict=[verdict(c, self.theirs.get(c.dataset, {})) for c in table.itertuples()])

    def links(self, records: Iterable[dict]) -> str:
        """Links to records, "0 1 2": the text of each is its seed."""
        return " ".join(f'<a href="{self.link}{r["path"].name}">{r["seed"]}</a>' for r in records)

    def cell_table(self, number: int) -> pd.DataFrame:
        """One of the paper's Tables 1 to 4: its number and our verdict, and what our own data have instead.

        A * marks what the paper quotes from VDSD; seeds x students and links to the records follow ours.
        """
        here, instead = {2: ("top5", "top5"), 3: ("hours", "search")}.get(number, ("top1", "top1"))
        cells = self.cells[self.cells["table"] == number].fillna({"ipc": 0, "quoted_from": ""})
        rows = []
        for (row, ipc), group in cells.groupby(["row", "ipc"], sort=False):
            names, found = stand_in(row, number), {"row": row, "IPC": f"{ipc:.0f}" if ipc else "all"}
            for cell in group.itertuples():
                printed = f"{cell.mean:g} h" if number == 3 else f"{cell.mean} ± {cell.std}"
                own = self._lines(names, ipc, self.theirs.get(cell.dataset, {}), here)
                found[cell.dataset] = "<br>".join([printed + " *" * bool(cell.quoted_from), *own, cell.verdict])
            for name, runs in self.ours.items():
                found[f"instead: {name}"] = "<br>".join(self._lines(names, ipc, runs, instead)) or "not run"
            rows.append(found)
        return pd.DataFrame(rows).set_index("row").rename_axis(index=None, columns="row")

    def _lines(self, names: list[str], ipc: int, runs: Runs, of: str) -> list[str]:
        """What our records have for a cell: value, n and links, method by method."""
        lines = []
        for name in names:
            if records := runs.get((name, ipc)):
                lines += [f"{method(name).title}:"] * (name != names[0])
                n = f"{len(records)} x {len(records[0]['students'])}"
                value = Interval(*measure(records, of), records=tuple(records))
                lines += [f"{value}{UNITS.get(of, '')}", f"{n}: {self.links(records)}"]
        return lines

    def claim_table(self, part: str) -> pd.DataFrame:
        """The claims of one part ("accuracy", ...): verdicts, which link to our pages, and the numbers that decide."""
        table: dict[str, dict] = {}
        for one in (one for one in self.judgements if one.claim["part"] == part):
            at = f", IPC\u00a0{one.ipc}" if len(one.claim["ipcs"]) > 1 else ""
            row = table.setdefault(f"<div>{one.claim['text']}{at}<br><i>{one.claim['where']}</i></div>", {THEIRS: {}})
            if one.own:
                row[one.source] = f"<div>{'<br>'.join(self._judged(one))}</div>"
            else:
                said = row[THEIRS].setdefault(one.verdict, [f"<b>{one.verdict}</b>"])
                said.append(f"{one.source} {one.left}, {one.right}")
        for row in table.values():
            said = "<br>".join(line for lines in row[THEIRS].values() for line in lines)
            row[THEIRS] = f"<div>{said or 'not in its tables'}</div>"
        table = pd.DataFrame.from_dict(table, orient="index", columns=[*self.ours, THEIRS])
        return table.rename_axis("claim", axis=1)

    def _judged(self, one: Judgement) -> list[str]:
        """What our records say of a claim: the verdict, the two sides that decide it, what is missing."""
        if one.verdict == "not run":
            return ["not run"]
        # A page without a dataset in its name shows motions, the default of every notebook.
        page = one.claim["page"]
        names = [f"{page}-{one.source}"] + [page] * (one.source == "motions")
        said = f"<b>{one.verdict}</b>"
        lines = [next((f'<a href="{name}.html">{said}</a>' for name in names if name in self.pages), said)]
        for side in (one.left, one.right):
            lines += [f"{side.label}", f"{side}: {self.links(side.records)}"]
        return lines + [f"without {name}" for name in one.missing]

    def figure_table(self) -> pd.DataFrame:
        """The paper's figures that hold results, and the pages of the book that are their counterparts."""
        rows = {}
        for name, figure in PAPER["figures"].items():
            found = [f'<a href="{page}.html">{page}</a>' for page in self.pages if page.startswith(figure["page"])]
            rows[f"<div>{name}: {figure['shows']}</div>"] = {
                "its data": figure["data"],
                "on its data": "see our page" if found and self.theirs.get(figure["data"]) else "not run",
                "on our data": "<br>".join(found) or "not run yet",
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("figure", axis=1)

    def other_records(self) -> pd.DataFrame:
        """The records that this page leaves out because they have other settings: which these are, and links."""
        groups: dict[tuple, list[dict]] = {}
        for record in self.records:
            name, has = record["dataset"], record["settings"]
            known = [s for n, s in (*self.settings.items(), *PAPER_SETTINGS.values()) if n == name]
            wanted = [wanted_settings(name, s, record["method"]) for s in known]
            if has not in wanted:
                keys = sorted(k for k in {**has, **wanted[0]} if has.get(k) != wanted[0].get(k)) if wanted else []
                changed = ", ".join(f"{k} {has.get(k, 'absent')}" for k in keys) or "a dataset that is not on this page"
                groups.setdefault((name, record["method"], record["ipc"], changed), []).append(record)
        columns = ["dataset", "method", "IPC", "what differs", "records"]
        rows = [(*key, self.links(group)) for key, group in groups.items()]
        return pd.DataFrame(rows, columns=columns).set_index("dataset").rename_axis(None)
