"""Judge the claims that ``paper.yml`` lists, by the paper's own tables and by our records, with one evaluator."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from david.data.readers.motions import KIND
from david.runs.costs import search_costs
from david.runs.methods import method
from david.runs.records import summary
from david.runs.settings import Settings
from davidbook.differences import intervals
from davidbook.tables import paper_tables

PAPER = yaml.safe_load(Path(__file__).with_name("paper.yml").read_text())
STANDS_FOR: dict[str, list[str]] = PAPER["rows"]
CLAIMS = [{"page": "02-table-1", "ipcs": [1], "datasets": []} | claim for claim in PAPER["claims"]]
TERM = re.compile(r"(?:(?P<factor>[\d.]+) )?(?P<row>.+?)(?:\[(?P<of>.+)\])?(?:@(?P<ipc>\d+))?")
WORDS = {"above": "holds", "below": "fails", "overlap": "undecided", "unknown": "undecided"}
Quantity = Callable[..., "Interval"]  # (row of the paper or method, ipc=1, of="top1") -> what is known of it


@dataclass(frozen=True)
class Interval:
    """mean ± std of what ``label`` says, and the records that it comes from: none for a number of the paper.

    A mean of NaN stands for what was not run, and stays NaN in differences and multiples.
    """

    mean: float = math.nan
    std: float = math.nan
    label: str = ""
    records: tuple = ()

    def __sub__(self, other: "Interval") -> "Interval":
        # Deviations add, so that a difference is apart from 0 just where two intervals are apart.
        label = f"{self.label} - {other.label}"
        return Interval(self.mean - other.mean, self.std + other.std, label, self.records + other.records)

    def __rmul__(self, factor: float) -> "Interval":
        label = self.label if math.isnan(self.mean) else f"{factor:.3g} x {self.label}"
        return Interval(factor * self.mean, factor * self.std, label, self.records)

    def __str__(self) -> str:
        # The paper gives some numbers without a deviation, and some with one of 0.0.
        known = self.std > 0 or (self.std == 0 and self.records)
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if known else "")


def measure(records: list[dict], of: str) -> tuple[float, float]:
    """Mean and deviation over seeds of one property of records, at least one, of one method, IPC and settings.

    Args:
        records: of the seeds.
        of: "top1" or "top5" (per cent, all classes); "static" or "dynamic" (top-1 of that kind of class), "gap" (points
            between the kinds), "static L" or "dynamic L" (frames): NaN where the kinds of the classes are not known;
            "search" (TFLOP) or "hours" (of the search).
    """
    if of in ("top1", "top5"):
        row = summary(records, metric=of).iloc[0]
        return 100 * row["mean"], 100 * row["std"]
    sample = pd.Series([_property(record, of) for record in records], dtype=float)
    return sample.mean(), sample.std()


def _property(record: dict, of: str) -> float:
    if of in ("search", "hours"):
        costs = search_costs(record["search"]["episodes"], Settings().replace(**record["settings"]))
        return costs["flops"] / 1e12 if of == "search" else costs["seconds"] / 3600
    kinds = pd.Series(record["classes"]).map(KIND)
    if kinds.isna().any() or kinds.nunique() < 2:
        return math.nan
    accuracies = 100 * pd.DataFrame([student["per_class"] for student in record["students"]]).mean()
    values = pd.Series(record["frames_per_segment"]) if of.endswith(" L") else accuracies
    static, dynamic = (values[kinds == kind].mean() for kind in ("appearance", "motion"))
    return {"static": static, "dynamic": dynamic, "gap": abs(static - dynamic)}[of.removesuffix(" L")]


def paper_quantity(dataset: str) -> Quantity:
    """What the paper's tables say of a dataset: per cent or, of="search", hours, whose deviation counts as 0."""
    said = {}
    for cell in paper_tables().query("dataset == @dataset").itertuples():
        of, std = ("search", 0.0) if cell.table == 3 else ("top1", cell.std)
        for ipc in (1, 5) if math.isnan(cell.ipc) else (int(cell.ipc),):  # full data has none
            said.setdefault((cell.row, ipc, of), Interval(cell.mean, std, cell.row))
    return lambda row, ipc=1, of="top1": said.get((row, ipc, of), Interval(label=row))


def our_quantity(runs: dict[tuple[str, int], list[dict]]) -> Quantity:
    """What our records of one dataset say, (method, IPC) -> records; one seed, but for full data, has no deviation."""

    @cache
    def quantity(row: str, ipc: int = 1, of: str = "top1") -> Interval:
        name = STANDS_FOR.get(row, (row,))[0]
        records = runs.get((name, 0 if name == "full" else ipc), [])
        label = method(name).title + ("" if of in ("top1", "search") else f", {of}")
        if not records:
            return Interval(label=label)
        mean, std = measure(records, of)
        return Interval(mean, math.nan if len(records) == 1 and name != "full" else std, label, tuple(records))

    return quantity


def term(text: str, quantity: Quantity, ipc: int) -> Interval:
    """What one side of a claim is worth, such as "2 DM[top5]@1", or a difference; at ``ipc`` unless it says so."""
    left, minus, right = text.partition(" - ")
    if minus:
        return term(left, quantity, ipc) - term(right, quantity, ipc)
    part = TERM.fullmatch(text)
    found = quantity(part["row"], ipc=int(part["ipc"] or ipc), of=part["of"] or "top1")
    return float(part["factor"]) * found if part["factor"] else found


def compare(left: Interval, right: Interval, reach: bool = False) -> str:
    """Whether ``left`` is larger than ``right``, by ``differences.intervals``.

    Returns:
        "holds": left's interval lies wholly above right's (with ``reach``: not wholly below); "fails": wholly below;
        "undecided": neither, or one of them has no deviation; "not run": one is missing.
    """
    if math.isnan(left.mean + right.mean):
        return "not run"
    found = intervals((left.mean, left.std), (right.mean, right.std))
    return "holds" if reach and found == "overlap" else WORDS[found]


@dataclass(frozen=True)
class Judgement:
    """A claim at one IPC on one dataset: the verdict, the two sides that decide it, and what is missing of others."""

    claim: dict  # of CLAIMS
    ipc: int
    source: str  # the dataset: one of the paper's or, where ``own``, one of ours
    own: bool
    verdict: str
    left: Interval
    right: Interval
    missing: tuple[str, ...] = ()


def judge(claim: dict, ipc: int, quantity: Quantity, source: str = "", own: bool = True) -> Judgement:
    """Compare every pair of a claim at one IPC.

    The claim holds if every pair holds, and fails if one fails; it is undecided if one is undecided, whether or not
    others are missing, since no further run could make it hold. Of the paper (not ``own``) what is missing is passed
    over, as its tables differ in their rows.
    """
    found, missing = [], []
    for comparison in claim["says"].split("; "):
        left, sign, rivals = re.split(" (>=?) ", comparison)
        for rival in rivals.split(", "):
            pair = term(left, quantity, ipc), term(rival, quantity, ipc)
            found.append((compare(*pair, reach=sign == ">="), *pair))
            missing += [side.label for side in pair if math.isnan(side.mean)]
    if not own:
        found = [row for row in found if row[0] != "not run"] or found[:1]
    order = ("fails", "undecided", "not run", "holds")
    nearest = min(found, key=lambda f: (order.index(f[0]), f[1].mean - f[1].std - f[2].mean - f[2].std))
    return Judgement(claim, ipc, source, own, *nearest, tuple(dict.fromkeys(missing)))


def judgements(ours: dict[str, dict]) -> list[Judgement]:
    """Every claim at each of its IPCs, on the paper's own tables and on our data, dataset -> (method, IPC) -> records.

    A dataset of the paper is left out where the claim is not about it, or where the tables lack the numbers.
    """
    theirs = {name: paper_quantity(name) for name in paper_tables()["dataset"].unique()}
    own = {name: our_quantity(runs) for name, runs in ours.items()}
    found = []
    for claim, ipc in [(one, ipc) for one in CLAIMS for ipc in one["ipcs"]]:
        papers = [judge(claim, ipc, theirs[name], name, own=False) for name in claim["datasets"] or theirs]
        found += [judgement for judgement in papers if judgement.verdict != "not run"]
        found += [judge(claim, ipc, quantity, name) for name, quantity in own.items()]
    return found
