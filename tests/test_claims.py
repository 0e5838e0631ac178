"""The rule that judges the paper's claims, on numbers made by hand, and the claims themselves."""

import math

import pytest
from davidbook.claims import CLAIMS, STANDS_FOR, Interval, compare, judge, measure, our_quantity, term
from davidbook.claims import paper_quantity as paper
from davidbook.tables import paper_tables
from test_records import a_record

from david.runs.costs import clip_flops
from david.runs.methods import method

NONE = Interval()


def a_motions_record(static=(0.5, 0.5), dynamic=(1.0, 0.0), lengths=(1, 1, 8, 4), **changes):
    """A record of two static and two dynamic classes, one student."""
    accuracies = [*static, *dynamic]
    student = {"seed": 0, "top1": sum(accuracies) / 4, "top5": 1.0, "per_class": accuracies}
    settings = {"frames": 8, "size": 48, "width": 0.25}
    episodes = [{"forward": 10, "backward": 5, "iterations": 1, "seconds": 1800.0}] * 2
    own = {
        "students": [student],
        "classes": ["Disc", "Square", "MoveLeft", "Grow"],
        "clips_per_class": [1] * 4,
        "frames_per_segment": list(lengths),
        "settings": settings,
        "search": {"episodes": episodes},
    }
    return a_record(**own | changes)


def test_differences_and_multiples():
    difference = Interval(5, 1, "a", ("r",)) - Interval(2, 3, "b", ("s",))
    assert difference == Interval(3, 4, "a - b", ("r", "s"))
    assert 1.5 * Interval(2, 0.5, "b") == Interval(3, 0.75, "1.5 x b")
    assert math.isnan((Interval(5, 1) - NONE).mean) and math.isnan((2 * NONE).mean)
    assert (2 * Interval(label="DM")).label == "DM"  # what is missing has no multiple


def test_intervals_in_words():
    assert str(Interval(72.04, 5.16)) == "72.0 ± 5.2"
    assert str(Interval(96, 0)) == "96.0"  # the paper's hours
    assert str(Interval(100, 0, "", ({},))) == "100.0 ± 0.0"  # our own deviation is always known
    assert str(Interval(50, math.nan, "", ({},))) == "50.0"


@pytest.mark.parametrize(
    ("left", "right", "verdict", "reaching"),
    [
        (Interval(5, 1), Interval(2, 1), "holds", "holds"),
        (Interval(5, 1), Interval(3, 1), "undecided", "holds"),  # they touch
        (Interval(3, 1), Interval(5, 1.5), "undecided", "holds"),  # below in the mean
        (Interval(2, 1), Interval(5, 1), "fails", "fails"),
        (Interval(2, 0), Interval(2, 0), "undecided", "holds"),
        (Interval(5, math.nan), Interval(2, 1), "undecided", "undecided"),  # a single run has no interval
        (Interval(2, math.nan), Interval(5, 1), "undecided", "undecided"),
        (NONE, Interval(2, 1), "not run", "not run"),
        (Interval(2, 1), NONE, "not run", "not run"),
    ],
)
def test_the_rule(left, right, verdict, reaching):
    assert compare(left, right) == verdict
    assert compare(left, right, reach=True) == reaching


def test_measures_by_hand():
    records = [a_motions_record(), a_motions_record((0.0, 0.5), (1.0, 1.0), (2, 4, 8, 8), seed=1)]
    # Means: 0.5 and 0.625. Static 0.5, 0.25; dynamic 0.5, 1; gaps 0, 0.75. Static L 1, 3; dynamic L 6, 8.
    expected = {
        "top1": (56.25, 12.5 / 2**0.5),
        "top5": (100, 0),
        "static": (37.5, 25 / 2**0.5),
        "dynamic": (75, 50 / 2**0.5),
        "gap": (37.5, 75 / 2**0.5),
        "static L": (2, 2**0.5),
        "dynamic L": (7, 2**0.5),
        "hours": (1, 0),
    }
    for of, values in expected.items():
        assert measure(records, of) == pytest.approx(values), of
    tflop, std = measure(records, "search")
    without, with_gradient = clip_flops(frames=8, size=48, width=0.25)
    assert tflop == pytest.approx((20 * without + 10 * with_gradient) / 1e12) and std == 0
    for of in ("static", "dynamic", "gap", "static L"):  # classes "a" and "b" are of no known kind
        assert all(map(math.isnan, measure([a_record()], of)))


def test_what_the_paper_says():
    assert paper("TR-UCF")("DAViD") == Interval(26.6, 0.8, "DAViD")
    assert paper("K400")("VDSD", ipc=5) == Interval(11.5, 0.5, "VDSD")
    assert paper("HMDB51")("Full DS", ipc=5) == Interval(28.59, 0.69, "Full DS")
    assert paper("HMDB51")("Grid Search", ipc=5, of="search") == Interval(155.8, 0, "Grid Search")
    assert paper("TR-UCF")("A: no partition") == Interval(15.4, 0.2, "A: no partition")
    for row, of in [("KeyFrame", "top1"), ("DAViD", "search"), ("DAViD", "static"), ("dm:any", "top1")]:
        assert math.isnan(paper("K400")(row, of=of).mean)
    assert math.isnan(paper("HMDB51")("Grid Search").mean)  # hours are no accuracy


def test_what_our_records_say():
    records = [a_motions_record(method="david:shared")]
    students = records[0]["students"] * 2
    full = [a_motions_record(method="full", ipc=0) | {"students": students}]
    ours = our_quantity({("david:shared", 1): records, ("full", 0): full, ("dm", 1): records * 2})
    case = ours("B: one L for all classes")
    assert (case.mean, case.label, case.records) == (50, "One learned L for all", tuple(records))
    assert ours("Full DS", ipc=5).mean == 50 and ours("david:shared", of="gap").label == "One learned L for all, gap"
    assert math.isnan(case.std) and ours("DM").std == 0 == ours("Full DS").std  # one seed, two seeds, two networks
    assert math.isnan(ours("david:shared", ipc=5).mean) and ours("dm:any").label == "DM (any L per class)"


def claim(says):
    return {"text": "what is claimed", "says": says}


def told(**values):
    """A quantity that knows these rows at every IPC, with deviation 1."""
    return lambda row, ipc=1, of="top1": Interval(values[row], 1, row) if row in values else Interval(label=row)


@pytest.mark.parametrize(
    ("values", "verdict", "rival", "missing"),
    [
        ({"a": 9, "b": 5, "c": 2}, "holds", "b", ()),
        ({"a": 9, "b": 5, "c": 8}, "undecided", "c", ()),
        ({"a": 5, "b": 9, "c": 6}, "fails", "b", ()),  # one that is better is enough
        ({"a": 9, "b": 5}, "not run", "c", ("c",)),
        ({"a": 9, "b": 8}, "undecided", "b", ("c",)),  # it cannot hold any more
        ({"a": 5, "c": 9}, "fails", "c", ("b",)),
        ({}, "not run", "b", ("a", "b", "c")),
    ],
)
def test_several_rivals(values, verdict, rival, missing):
    for says in ("a > b, c", "a > b; a > c"):
        found = judge(claim(says), 1, told(**values))
        assert (found.verdict, found.right.label, found.missing) == (verdict, rival, missing)
        if missing == ("c",):  # the paper's tables differ in their rows
            alone = judge(claim(says), 1, told(**values), own=False)
            assert alone.verdict == {"b": "undecided", "c": "holds"}[rival] and alone.right.label == "b"


def test_a_claim_is_judged_at_its_ipc():
    known = {1: told(a=9, b=3), 5: told(a=9, b=7)}

    def quantity(row, ipc, of):
        return known[ipc](row)

    assert [judge(claim("a > 2 b"), ipc, quantity).verdict for ipc in (1, 5)] == ["undecided", "fails"]
    assert judge(claim("a > b@1"), 5, quantity).verdict == "holds"  # a term may have an IPC of its own


@pytest.mark.parametrize(
    ("text", "asked", "mean"),
    [
        ("DM", [("DM", 5, "top1")], 1),
        ("0.835 Full DS", [("Full DS", 5, "top1")], 0.835),
        ("david:warmup[dynamic L]", [("david:warmup", 5, "dynamic L")], 1),
        ("2 B: one L for all classes[search]@1", [("B: one L for all classes", 1, "search")], 2),
        (
            "DAViD@1 - 3 RL Search w. Early Stage DD",
            [("DAViD", 1, "top1"), ("RL Search w. Early Stage DD", 5, "top1")],
            -2,
        ),
    ],
)
def test_terms_of_claims(text, asked, mean):
    found = []

    def quantity(row, ipc, of):
        found.append((row, ipc, of))
        return Interval(1, 0, row)

    assert term(text, quantity, 5).mean == mean and found == asked


def test_the_rule_on_the_papers_own_tables():
    found = {(c["text"], ipc): c for c in CLAIMS for ipc in c["ipcs"]}
    beats = found["DAViD beats every other method", 1]
    verdicts = {name: judge(beats, 1, paper(name), own=False).verdict for name in ("UCF101", "SSv2", "K400")}
    assert verdicts == {"UCF101": "holds", "SSv2": "fails", "K400": "holds"}
    twice = found["DAViD has more than twice the accuracy of VDSD", 5]
    assert judge(twice, 5, paper("TR-UCF")).verdict == "fails"  # 38.4 to 23.6
    grid = found["The early-stage search is two orders of magnitude cheaper than a grid search", 1]
    assert judge(grid, 1, paper("HMDB51")).verdict == "holds"  # 96 h to 0.9 h


def test_claims_name_what_exists():
    papers, asked = paper_tables(), set()

    def spy(row, ipc=1, of="top1"):
        asked.add(row)
        assert ipc in (1, 5)
        return Interval(label=row)

    for one in CLAIMS:
        assert {judge(one, ipc, spy).verdict for ipc in one["ipcs"]} == {"not run"}
        assert set(one["datasets"]) <= set(papers["dataset"]) and one["part"] in (
            "accuracy",
            "parts",
            "search",
            "classes",
        )
    assert set(STANDS_FOR) == set(papers["row"])
    for row in asked - set(STANDS_FOR):
        method(row)
    for row in papers.loc[papers["table"] <= 2, "row"].unique():
        assert {method(name).paper for name in STANDS_FOR[row]} == {row}
    assert len({(c["text"], c["where"]) for c in CLAIMS}) == len(CLAIMS)
