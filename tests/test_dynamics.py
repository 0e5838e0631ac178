"""Delta of Eq. 6 by hand, the classes of a TR subset, and groups."""

import math

import pandas as pd
import pytest

from david.delta import delta, delta_groups, most_dynamic, trend


def record(accuracies, **changes):
    """Of two classes; one list of per-class accuracies a student."""
    students = [{"seed": 10 + k, "per_class": list(values)} for k, values in enumerate(accuracies)]
    common = {"dataset": "motions", "fingerprint": "f", "classes": ["Disc", "Grow"], "settings": {"size": 48}}
    return common | {"students": students} | changes


def test_delta_and_its_standard_error_by_hand():
    full = record([(1.0, 0.9), (0.8, 0.9), (0.9, 0.9)])
    still = record([(1.0, 0.1), (0.7, 0.3), (0.7, 0.2)])
    table = delta(full, still)
    assert list(table.index) == ["Disc", "Grow"] and list(table.columns) == ["full", "still", "delta", "error", "n"]
    # Disc: differences 0, 0.1, 0.2; Grow: 0.8, 0.6, 0.7: deviation 0.1 in both.
    assert table["delta"].tolist() == pytest.approx([0.1, 0.7])
    assert table["error"].tolist() == pytest.approx([0.1 / math.sqrt(3)] * 2)
    assert table["full"].tolist() == pytest.approx([0.9, 0.9]) and table["still"].tolist() == pytest.approx([0.8, 0.2])
    assert table["n"].tolist() == [3, 3]
    assert delta(record([(1, 1)]), record([(0, 1)]))["error"].isna().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "ucf12"}, "records of the same dataset, not motions and ucf12"),
        ({"fingerprint": "g"}, "same fingerprint"),
        ({"classes": ["Grow", "Disc"]}, "same classes"),
        ({"settings": {"size": 64}}, "same settings"),
        ({"students": [{"seed": 11, "per_class": [1, 1]}]}, "networks of the same seeds"),
        ({"students": []}, "shorter"),
    ],
)
def test_what_is_no_pair(changes, message):
    with pytest.raises(ValueError, match=message):
        delta(record([(1, 1)]), record([(1, 1)], **changes))


def test_the_most_dynamic_classes():
    values = pd.Series({"a": 0.2, "b": 0.5, "c": -0.1, "d": 0.5, "e": 0.9})
    assert most_dynamic(values, 1) == ["e"] and most_dynamic(values, 2) == ["b", "e"]  # b before its equal d
    assert most_dynamic(values, 5) == list("abcde")
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k={k}: choose 1 to 5"):
            most_dynamic(values, k)


def test_groups_are_of_equal_size_by_rank():
    values = pd.Series(range(101), index=[f"class {i}" for i in range(101)]).sample(frac=1, random_state=0)
    groups = delta_groups(values)
    assert sorted(groups.value_counts()) == [9] * 9 + [10] * 2 and set(groups) == set(range(11))
    assert groups.loc[values.sort_values().index].is_monotonic_increasing
    assert delta_groups(pd.Series([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]
    assert delta_groups(pd.Series([0.3, 0.1, 0.2, 0.4]), groups=2).tolist() == [1, 0, 0, 1]


def test_trend_is_least_squares():
    """On x = 0, 1, 2: y = 1, 0, 0.5 has slope -1/4, mean 1/2 and residuals 1/4, -1/2, 1/4."""
    values = pd.Series({"a": 0.0, "b": 1.0, "c": 2.0})
    flat = [{"method": "dm", "seed": s, "class": c, "accuracy": 0.3} for s in (0, 1) for c in "abc"]
    bent = [
        {"method": "david", "seed": s, "class": c, "accuracy": y + (0.1 if s else -0.1)}
        for s in (0, 1)
        for c, y in zip("abc", (1.0, 0.0, 0.5))
    ]
    lines = trend(pd.DataFrame(flat + bent), values)
    assert list(lines.index) == ["dm", "david"]
    assert lines.loc["dm"].tolist() == pytest.approx([0.3, 0.3, 0, 0], abs=1e-9)
    error = 2 * math.sqrt((1 / 16 + 1 / 4 + 1 / 16) / 1 / 2)
    assert lines.loc["david"].tolist() == pytest.approx([0.75, 0.25, -0.5, error])
    assert math.isnan(trend(pd.DataFrame(flat[:2]), values[:2]).loc["dm", "error"])
