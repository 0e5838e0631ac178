"""The paper's numbers, and tables by hand."""

import pandas as pd
import pytest
from davidbook.tables import (
    accuracy_table,
    leader,
    paper_tables,
    paper_value,
    show,
    show_pairs,
    side_by_side,
    verdict,
)
from test_records import a_record


def test_the_papers_numbers():
    assert paper_value("DAViD", "TR-UCF", 1) == "26.6 ± 0.8"
    assert paper_value("VDSD", "K400", 5) == "11.5 ± 0.5"
    assert paper_value("Full DS", "HMDB51", 0) == "28.59 ± 0.69"  # has no IPC
    for nothing in [("DAViD", "TR-UCF", 10), ("DAViD", "motions", 1), (None, "K400", 1), ("Grid Search", "HMDB51", 1)]:
        assert paper_value(*nothing) == ""
    table = paper_tables()
    assert not table.duplicated(["table", "row", "dataset", "ipc"]).any()
    assert set(table.loc[table["ipc"].isna(), "row"]) == {"Full DS"}
    assert table[table["table"] == 3]["mean"].tolist() == [96, 155.8, 48.2, 81.3, 0.9, 1.6]


def rows(*values):
    """A summary of methods with (mean, std)."""
    return pd.DataFrame([{"method": name, "mean": mean, "std": std} for name, mean, std in values])


@pytest.mark.parametrize(
    ("table", "first"),
    [
        (rows(("dm", 0.5, 0.1), ("david", 0.7, 0.05)), "david"),
        (rows(("dm", 0.5, 0.1), ("david", 0.7, 0.11)), None),  # 0.59 < 0.60
        (rows(("full", 0.9, 0.0), ("dm", 0.5, 0.1), ("david", 0.7, 0.05)), "david"),  # full data does not compete
        (rows(("random", 0.1, 0.5), ("dm", 0.5, 0.0), ("david", 0.7, 0.0)), "david"),
        (rows(("random", 0.1, 0.65), ("dm", 0.5, 0.0), ("david", 0.7, 0.0)), None),  # not the second best, but wide
        (rows(("david", 0.7, 0.0)), None),  # nobody to compare with
        (rows(("dm", 0.5, float("nan")), ("david", 0.7, float("nan"))), None),  # one seed has no interval
    ],
)
def test_leader(table, first):
    found = leader(table)
    assert (found and found.method) == first


def test_a_leader_may_stand_aside():
    table = rows(("dm", 0.5, 0.01), ("david", 0.7, 0.01), ("dm:1,2", 0.69, 0.01))
    assert leader(table) is None and leader(table, aside=["dm:1,2"]).method == "david"
    assert leader(table, aside=["david", "dm:1,2"]) is None


def test_accuracy_table_by_hand():
    records = [
        a_record(method="full", ipc=0, stored_bytes=2**21, seconds={"evaluate": 9.4}),
        a_record(method="dm:4", ipc=5),
        a_record(method="dm:4"),
        a_record(((0.0, 1.0), (0.25, 0.25)), seed=1),
        a_record(((1.0, 1.0), (1.0, 1.0)), method="david"),
        a_record(((1.0, 1.0), (1.0, 1.0)), method="david", seed=1),
    ]
    table = accuracy_table(records, beside="UCF101")
    assert "paper, UCF101, %" not in accuracy_table(records)
    assert table.columns.name == "method" and table.index.tolist() == ["Full data", "DM (L = 4)", "DAViD", "DM (L = 4)"]
    first, dm, david, five = table.to_dict("records")
    assert first == {
        "IPC": "all",
        "paper, UCF101, %": "25.83 ± 0.0",
        "ours, motions, %": "62.5 ± 17.7",
        "n": "1 × 2",
        "clips / class": "3.0",
        "stored MiB": "2.00",
        "seconds": "9",
        "peak MiB": "1024",
    }
    assert (dm["IPC"], dm["paper, UCF101, %"], dm["ours, motions, %"]) == ("1", "", "43.8 ± 26.5")
    assert (david["paper, UCF101, %"], david["ours, motions, %"]) == ("15.9 ± 0.3", "<b>100.0 ± 0.0</b>")
    assert five["IPC"] == "5" and five["n"] == "1 × 2"
    oracle = accuracy_table(records, aside=["david"])
    assert not oracle["ours, motions, %"].str.contains("<b>").any()
    vdsd = [a_record(method=name) for name in ("vdsd", "vdsd:mtt")]
    assert accuracy_table(vdsd, beside="K400")["paper, K400, %"].tolist() == ["", "6.3 ± 0.1"]  # its section 4.4.2
    assert accuracy_table(vdsd, beside="UCF101")["paper, UCF101, %"].tolist() == ["7.8 ± 0.0"] * 2
    del records[0]["peak_bytes"]  # a record may lack it
    assert accuracy_table(records)["peak MiB"].tolist()[:2] == ["", "1024"]
    assert accuracy_table(records, metric="top5")["ours, motions, %"].iloc[0] == "100.0 ± 0.0"


def test_shown_tables_keep_their_emphasis_and_do_not_break_numbers():
    html = show(pd.DataFrame({"a b": ["<b>1 ± 2</b>"]}, index=["x"])).data
    assert "<b>1\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}2</b>" in html and "dataframe" in html
    assert (
        '<a href="x">0</a>\N{NO-BREAK SPACE}1' in show(pd.DataFrame({"a": ['<a href="x">0</a> 1']}, index=["x"])).data
    )


def test_verdict():
    three = rows(("random", 0.4, 0.05), ("david", 0.7, 0.05), ("vdsd", 0.3, 0.05))
    assert verdict(three) == (
        "DAViD leads with 70.0 ± 5.0 % and no other interval reaches its own; Random has 40.0 ± 5.0 %; "
        "not above it in the mean: VDSD on DM"
    )
    two = rows(("random", 0.4, 0.05), ("dm", 0.45, 0.05))
    assert verdict(two) == (
        "DM leads with 45.0 ± 5.0 % (intervals that overlap its own: Random); Random has 40.0 ± 5.0 %"
    )
    assert verdict(rows(("random", 0.4, 0.05))) == "Random has 40.0 ± 5.0 %"
    single = rows(("david", 0.7, float("nan")), ("dm", 0.1, float("nan")))  # one student: no interval
    assert "overlap its own: DM" in verdict(single)


PRECISION = {"distill_precision": ("float32", "bfloat16")}


def test_side_by_side_by_hand():
    rounded = {"width": 0.25, "distill_precision": "bfloat16"}
    exact = {"width": 0.25, "distill_precision": "float32"}
    high, low = ((1.0, 1.0), (1.0, 1.0)), ((0.0, 0.0), (0.0, 0.0))
    half = ((0.5, 0.5), (0.5, 0.5))
    records = [
        {"frames_per_segment": [8, 4], **record}
        for record in (
            a_record(high, settings=exact, seed=0),
            a_record(half, settings=exact, seed=1),
            a_record(half, settings=rounded, seed=0),
            a_record(half, settings=rounded, seed=1, frames_per_segment=[8, 1]),
            a_record(low, settings=rounded, seed=2),  # has no partner
            a_record(low, settings=exact, method="david"),  # neither has this
            a_record(low, settings={**rounded, "width": 1.0}, method="david"),
        )
    ]
    (row,) = side_by_side(records, PRECISION, ("float32", "bfloat16")).to_dict("records")
    assert (row["method"], row["ipc"], row["n"]) == (records[0]["method"], 1, 2)
    assert (row["float32"], row["bfloat16"]) == ("75.0 ± 35.4", "50.0 ± 0.0")
    assert row["difference"] == "-25.0 ± 35.4" and row["within"]  # of -50 and 0
    assert row["error"] == pytest.approx(25) and not row["sure"]
    assert row["policy"] == 0.75  # of 2 seeds x 2 classes: L = 4 became 1
    (row,) = side_by_side(records[:2] + records[3:4], PRECISION, ("float32", "bfloat16")).to_dict("records")
    assert row["n"] == 1 and row["difference"] == "+0.0" and row["within"] and not row["sure"]
    less = [a_record(((0.5, 0.4 + seed / 10),) * 2, settings=rounded, seed=seed) for seed in (0, 1)]
    full = [a_record(high, settings=exact, seed=seed) for seed in (0, 1)]
    pairs = [{"frames_per_segment": [8, 4], **record} for record in less + full]
    (row,) = side_by_side(pairs, PRECISION, ("float32", "bfloat16")).to_dict("records")
    assert row["sure"] and row["error"] == pytest.approx(1.25)  # a quarter of the clips, by 0.1, of two pairs
    assert side_by_side(records[:2], PRECISION, ("float32", "bfloat16")).empty


def test_side_by_side_in_several_settings():
    few, many = {"distill_iterations": 4, "width": 1.0}, {"distill_iterations": 9, "width": 1.0}
    other = [{"mtt_iterations": count, "distill_iterations": 4 if count == 2 else 9} for count in (2, 5)]
    high, low = ((1.0, 1.0), (1.0, 1.0)), ((0.0, 0.0), (0.0, 0.0))
    records = [
        {"frames_per_segment": [8, 8], **record}
        for record in (
            a_record(low, settings=few, seed=0),
            a_record(high, settings=many, seed=0),
            a_record(high, settings=other[0], method="mtt", seed=0),  # reads both: both have to change
            a_record(low, settings=other[1], method="mtt", seed=0),
            a_record(low, settings={"mtt_iterations": 5, "distill_iterations": 4}, method="mtt", seed=1),
            a_record(low, settings={"width": 1.0}, method="random", seed=0),  # reads neither
        )
    ]
    changes = {"distill_iterations": (4, 9), "mtt_iterations": (2, 5)}
    table = side_by_side(records, changes, ("few", "many"))
    assert [tuple(row) for row in table[["method", "n", "difference", "changed"]].to_numpy()] == [
        (records[0]["method"], 1, "+100.0", "distill_iterations 4 to 9"),
        ("mtt", 1, "-100.0", "distill_iterations 4 to 9, mtt_iterations 2 to 5"),
    ]
    html = show_pairs(table, "method", ["dataset"]).data
    assert "L kept" in html and "MTT" in html and "100%" in html and "within" not in html and "dataset" not in html
