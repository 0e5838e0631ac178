"""What the paper claims, written as comparisons that its own tables and our records can both answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pandas as pd

from david.data.readers.motions import KIND
from david.runs.costs import search_costs
from david.runs.methods import method
from david.runs.records import summary
from david.runs.settings import Settings
from davidbook.tables import paper_tables

# The paper's rows -> our methods, the first of which stands for the row in a claim. Other names are our own methods.
STANDS_FOR = {
    "Full DS": ("full",),
    "Random": ("random",),
    "KeyFrame": ("keyframe",),
    "DM": ("dm", "dm:published"),
    "MTT": ("mtt",),
    "VDSD": ("vdsd", "vdsd:mtt"),
    "DAViD": ("david", "david:paper"),
    "Grid Search": ("david:grid",),
    "RL Search": ("david:full", "david:paper-full"),
    "RL Search w. Early Stage DD": ("david", "david:paper"),
    "A: no partition": ("dm",),
    "B: one L for all classes": ("david:shared",),
}
RIVALS = ("Random", "KeyFrame", "DM", "MTT", "VDSD")
STATIC, DYNAMIC = "static", "dynamic"
_KINDS = {STATIC: "appearance", DYNAMIC: "motion"}


@dataclass(frozen=True)
class Interval:
    """mean ± std of what ``label`` says, and the records that it comes from: none for a number of the paper.

    A mean of NaN stands for what was not run, and stays NaN in differences and multiples.
    """

    mean: float = math.nan
    std: float = math.nan
    label: str = ""
    records: tuple = ()

    @property
    def low(self) -> float:
        return self.mean - self.std

    @property
    def high(self) -> float:
        return self.mean + self.std

    def __sub__(self, other: "Interval") -> "Interval":
        # Deviations add, so that a difference is apart from 0 just where two intervals are apart.
        label = f"{self.label} - {other.label}"
        return Interval(self.mean - other.mean, self.std + other.std, label, self.records + other.records)

    def __rmul__(self, factor: float) -> "Interval":
        label = self.label if factor == 1 or math.isnan(self.mean) else f"{factor:.3g} x {self.label}"
        return Interval(factor * self.mean, factor * self.std, label, self.records)

    def __str__(self) -> str:
        # The paper gives some numbers without a deviation, and some with one of 0.0.
        known = self.std > 0 or (self.std == 0 and self.records)
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if known else "")


def compare(left: Interval, right: Interval, reach: bool = False) -> str:
    """The rule of the status page, for the claim that ``left`` is larger than ``right``.

    Returns:
        "holds": left's interval, mean ± std, lies wholly above right's (with ``reach``: not wholly below);
        "fails": wholly below; "undecided": neither, or one of them has no deviation; "not run": one is missing.
    """
    if math.isnan(left.mean) or math.isnan(right.mean):
        return "not run"
    if left.high < right.low:
        return "fails"
    return "holds" if left.low > right.high or (reach and left.high >= right.low) else "undecided"


def _per_record(records: list[dict], value: Callable[[dict], float]) -> tuple[float, float]:
    sample = pd.Series([value(record) for record in records], dtype=float)
    return sample.mean(), sample.std()


def _search_costs(record: dict) -> dict[str, float]:
    return search_costs(record["search"]["episodes"], Settings().replace(**record["settings"]))


def _mean_length(record: dict, classes: list[str]) -> float:
    lengths = dict(zip(record["classes"], record["frames_per_segment"], strict=True))
    return sum(lengths[name] for name in classes) / len(classes)


def measure(records: list[dict], of: str) -> tuple[float, float]:
    """Mean and deviation over seeds of one property of records of one method, IPC and settings.

    Args:
        records: at least one.
        of: "top1" or "top5" (per cent, all classes); STATIC or DYNAMIC (top-1 of that kind of class); "gap" (points
            between the kinds, without sign); "static L" or "dynamic L" (frames, mean over the kind); "search" (TFLOP);
            "hours" (of the search).

    Returns:
        NaN and NaN where the kinds of the classes are not known.
    """
    if of in ("top1", "top5"):
        row = summary(records, metric=of).iloc[0]
        return 100 * row["mean"], 100 * row["std"]
    if of == "search":
        return _per_record(records, lambda r: _search_costs(r)["flops"] / 1e12)
    if of == "hours":
        return _per_record(records, lambda r: _search_costs(r)["seconds"] / 3600)
    classes = records[0]["classes"]
    kinds = {title: [name for name in classes if KIND.get(name) == kind] for title, kind in _KINDS.items()}
    if not all(kinds.values()) or not set(classes) <= set(KIND):
        return math.nan, math.nan
    if of == "gap":
        top1 = {title: [summary([r], names).iloc[0]["mean"] for r in records] for title, names in kinds.items()}
        gaps = pd.Series(top1[STATIC]) - pd.Series(top1[DYNAMIC])
        return 100 * gaps.abs().mean(), 100 * gaps.abs().std()
    if of in kinds:
        row = summary(records, kinds[of]).iloc[0]
        return 100 * row["mean"], 100 * row["std"]
    return _per_record(records, lambda r: _mean_length(r, kinds[of.removesuffix(" L")]))


def paper_quantity(dataset: str) -> Callable[..., Interval]:
    """What the paper's tables say of a dataset: a function (row, ipc, of) -> Interval, of NaN where they are silent.

    Per cent; with of="search", hours, which the paper gives without a deviation: it counts as 0.
    """
    said = {}
    for cell in paper_tables().query("dataset == @dataset").itertuples():
        of, std = ("search", 0.0) if cell.table == 3 else ("top1", cell.std)
        for ipc in (1, 5) if math.isnan(cell.ipc) else (int(cell.ipc),):  # full data has none
            said.setdefault((cell.row, ipc, of), Interval(cell.mean, std, cell.row))
    return lambda row, ipc=1, of="top1": said.get((row, ipc, of), Interval(label=row))


def our_quantity(runs: dict[tuple[str, int], list[dict]]) -> Callable[..., Interval]:
    """The same for our records of one dataset, (method, IPC) -> records: ``status.at_settings`` makes them.

    One distillation seed has no deviation, so that nothing holds or fails by it; full data has that of its networks.
    """

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


@dataclass(frozen=True)
class Claim:
    """One statement of the paper.

    Attributes:
        text: what is claimed.
        where: in the paper.
        part: what it is about: "accuracy", "parts" of the method, the "search", or kinds of "classes".
        pairs: given a quantity with its IPC bound, the (left, right) of which every left must be larger.
        page: the page of the book that shows our numbers: how its name starts.
        ipcs: where it is tested; claims about one IPC have one.
        on: the paper's datasets that it speaks of; (): all that have the numbers.
        reach: whether left need only reach right.
    """

    text: str
    where: str
    part: str
    pairs: Callable[[Callable[..., Interval]], list[tuple[Interval, Interval]]]
    page: str = "02-table-1"
    ipcs: tuple[int, ...] = (1,)
    on: tuple[str, ...] = ()
    reach: bool = False


@dataclass(frozen=True)
class Outcome:
    """A verdict, the pair that decides it, and what is missing of the others."""

    verdict: str
    left: Interval
    right: Interval
    missing: tuple[str, ...] = ()


def judge(claim: Claim, quantity: Callable[..., Interval], ipc: int, skip_missing: bool = False) -> Outcome:
    """Apply ``compare`` to every pair of a claim at one IPC.

    The claim holds if every pair holds, and fails if one fails; it is undecided if one is undecided, whether or not
    others are missing, since no further run could make it hold.

    Args:
        skip_missing: leave pairs out of which one side is missing, as the paper's tables differ in their rows.
    """
    pairs = claim.pairs(partial(quantity, ipc=ipc))
    found = [(compare(left, right, claim.reach), left, right) for left, right in pairs]
    missing = tuple(x.label for _, *pair in found for x in pair if math.isnan(x.mean))
    if skip_missing:
        found = [row for row in found if row[0] != "not run"] or found[:1]
    order = ("fails", "undecided", "not run", "holds")
    verdict, left, right = min(found, key=lambda row: (order.index(row[0]), row[1].low - row[2].high))
    return Outcome(verdict, left, right, tuple(dict.fromkeys(missing)))


def larger(left: str, *rights: str, factor: float = 1, of: str = "top1"):
    """Pairs for a Claim: a row against others, which are multiplied by ``factor``."""
    return lambda q: [(q(left, of=of), factor * q(right, of=of)) for right in rights]


def _gain(q, ipc: int) -> Interval:
    return q("DAViD", ipc=ipc) - q("DM", ipc=ipc)


_ACCURACY, _PARTS, _SEARCH, _CLASSES = "accuracy", "parts", "search", "classes"
CLAIMS = (
    Claim("DAViD beats DM, its backbone", "Tables 1 and 2", _ACCURACY, larger("DAViD", "DM")),
    Claim("DAViD beats VDSD", "Tables 1 and 2", _ACCURACY, larger("DAViD", "VDSD")),
    Claim(
        "DAViD beats every other method", "abstract; Tables 1 and 2", _ACCURACY, larger("DAViD", *RIVALS), ipcs=(1, 5),
    ),
    Claim(
        "DAViD has more than twice the accuracy of VDSD", "section 4.4.1, of TR-UCF", _ACCURACY,
        larger("DAViD", "VDSD", factor=2), ipcs=(1, 5), on=("TR-UCF",),
    ),
    Claim(
        "DAViD is more than 50 % better than the best before", "section 4.4.1, of HMDB51", _ACCURACY,
        larger("DAViD", *RIVALS, factor=1.5), ipcs=(1, 5), on=("HMDB51",),
    ),
    Claim(
        "DAViD reaches 83.5 % of the accuracy of full data", "section 4.4.1, of TR-UCF", _ACCURACY,
        larger("DAViD", "Full DS", factor=0.835), ipcs=(5,), on=("TR-UCF",), reach=True,
    ),
    Claim(
        "DAViD's advantage, here over DM, is larger at IPC 5 than at IPC 1", "section 4.4.2, of SSv2 and K400",
        _ACCURACY, lambda q: [(_gain(q, 5), _gain(q, 1))], ipcs=(5,), on=("SSv2", "K400"),
    ),
    Claim("KeyFrame beats Random", "Table 1; our question", _ACCURACY, larger("KeyFrame", "Random"), ipcs=(1, 5)),
    Claim(
        "VDSD beats image-level methods, here DM, if marginally", "section 2.1; Table 1", _ACCURACY,
        larger("VDSD", "DM"), ipcs=(1, 5),
    ),
    Claim(
        "One learned L for all classes beats no partition (B > A)", "section 4.5.2; Table 4", _PARTS,
        larger("B: one L for all classes", "A: no partition"), "04-table-4",
    ),
    Claim(
        "An L for each class beats one L for all (C > B)", "section 4.5.2; Table 4", _PARTS,
        larger("DAViD", "B: one L for all classes"), "04-table-4",
    ),
    Claim(
        "A learned policy beats one drawn at random", "section 3.1; our control", _PARTS,
        larger("DAViD", "dm:any"), "04-table-4",
    ),
    Claim(
        "A policy learned by the paper's rule (Eqs. 2 and 3) beats one drawn at random", "section 3.1; our control",
        _PARTS, larger("david:paper", "dm:any"), "03-table-3",
    ),
    Claim(
        "DAViD beats its own policy on real frames, not distilled", "section 3; our control", _PARTS,
        larger("DAViD", "david:undistilled"), "04-table-4",
    ),
    Claim(
        "DAViD beats stills of different real clips in the same bytes", "section 3; our control", _PARTS,
        larger("DAViD", "random:1"), ipcs=(1, 5),
    ),
    Claim(
        "The early-stage search is two orders of magnitude cheaper than a grid search",
        "section 4.5.1; Table 3", _SEARCH,
        larger("Grid Search", "RL Search w. Early Stage DD", factor=10**1.5, of="search"), "03-table-3", (1, 5),
    ),
    Claim(
        "The early-stage search is cheaper than a grid search at all", "section 4.5.1; Table 3", _SEARCH,
        larger("Grid Search", "RL Search w. Early Stage DD", of="search"), "03-table-3", (1, 5),
    ),
    Claim(
        "A search by full distillations is cheaper than a grid search", "Table 3", _SEARCH,
        larger("Grid Search", "RL Search", of="search"), "03-table-3", (1, 5),
    ),
    Claim(
        "Dynamic classes get a larger L than static ones", "section 1", _CLASSES,
        lambda q: [(q("DAViD", of=f"{DYNAMIC} L"), q("DAViD", of=f"{STATIC} L"))], "02-table-1", (1, 5),
    ),
    Claim(
        "Dynamic classes get a larger L by the paper's rule", "section 1", _CLASSES,
        lambda q: [(q("david:paper", of=f"{DYNAMIC} L"), q("david:paper", of=f"{STATIC} L"))], "03-table-3",
    ),
    Claim(
        "DM and VDSD do worse on dynamic classes", "section 1; Figs. 1 and 3", _CLASSES,
        lambda q: [(q(row, of=STATIC), q(row, of=DYNAMIC)) for row in ("DM", "VDSD")],
    ),
    Claim(
        "DAViD improves on DM in both kinds of classes", "section 4.4.3; Fig. 3", _CLASSES,
        lambda q: [(q("DAViD", of=kind), q("DM", of=kind)) for kind in (STATIC, DYNAMIC)], ipcs=(1, 5),
    ),
    Claim(
        "DAViD's accuracy differs less between the kinds than DM's", "section 4.4.3; Fig. 3", _CLASSES,
        larger("DM", "DAViD", of="gap"), ipcs=(1, 5),
    ),
)  # fmt: skip
