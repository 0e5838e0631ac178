"""Rows are compared by one rule: paired by seed, a 95 % interval of the mean, Holm's correction over a table."""

import numpy as np
import pandas as pd
import pytest
from davidbook.differences import beyond_chance, comparisons, holm, interval, intervals, paired, top1


@pytest.mark.parametrize(
    ("left", "right", "found"),
    [
        ((5, 1), (2, 1), "above"),
        ((2, 1), (5, 1), "below"),
        ((5, 1), (3, 1), "overlap"),  # they touch
        ((3, 1), (5, 1.5), "overlap"),
        ((2, 0), (2, 0), "overlap"),
        ((5, np.nan), (2, 1), "unknown"),  # one seed
        ((5, 1), (np.nan, 1), "unknown"),
    ],
)
def test_intervals(left, right, found):
    opposite = {"above": "below", "below": "above"}
    assert intervals(left, right) == found and intervals(right, left) == opposite.get(found, found)


def test_two_standard_errors():
    assert beyond_chance(-2.1, 1) and not beyond_chance(2, 1) and not beyond_chance(9, np.nan)
    assert beyond_chance(pd.Series([3.0, -1.0]), pd.Series([1.0, 1.0])).tolist() == [True, False]


def record(seed, *accuracies):
    return {"seed": seed, "students": [{"top1": value} for value in accuracies]}


def test_a_seed_has_the_mean_of_its_students():
    assert top1([record(1, 0.5, 0.7), record(0, 0.25, 0.25)]).to_dict() == {0: 25.0, 1: pytest.approx(60.0)}


def test_a_difference_by_hand():
    """Gains 1, 2 and 3: mean 2, standard error 1 / sqrt 3, and t's 97.5 % point of 2 degrees of freedom, 4.3027."""
    left, right = pd.Series({0: 11.0, 1: 22.0, 2: 33.0, 3: 99.0}), pd.Series({0: 10.0, 1: 20.0, 2: 30.0})
    found = paired(left, right)
    assert (found["n"], found["mean"]) == (3, 2)
    assert found["high"] - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6) and found["low"] + found["high"] == 4
    assert found["p"] == pytest.approx(0.0742, abs=1e-4)


def test_one_seed_tells_nothing_apart():
    found = paired(pd.Series({0: 50.0}), pd.Series({0: 10.0}))
    assert (found["n"], found["mean"], found["low"], found["p"]) == (1, 40, -np.inf, 1)
    assert interval(found) == "one seed" and interval({"n": 2, "low": -1, "high": 2.54}) == "-1.0 to +2.5"


def test_equal_gains_of_all_seeds_are_told_apart_unless_they_are_none():
    ones, twos = pd.Series({0: 1.0, 1: 1.0}), pd.Series({0: 2.0, 1: 2.0})
    assert paired(twos, ones)["p"] == 0 and paired(ones, ones)["p"] == 1


def test_holm_by_hand():
    """0.01 x 3; 0.02 x 2, made no smaller than that; 0.5 x 1."""
    found = holm(pd.Series({"a": 0.02, "b": 0.01, "c": 0.5}))
    assert found.to_dict() == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.5})
    assert holm(pd.Series([0.02, 0.015])).tolist() == pytest.approx([0.03, 0.03])


def test_what_is_told_apart_depends_on_how_much_is_compared():
    gains = pd.Series(np.arange(5.0))  # p 0.047
    nothing, alike = pd.Series(np.zeros(5)), pd.Series([1.0, -1, 1, -1, 0])
    alone = comparisons({("set", "row"): (gains, nothing)}, ["dataset", "row"])
    several = comparisons({("set", "row"): (gains, nothing), ("set", "other"): (alike, nothing)}, ["dataset", "row"])
    assert alone["told apart"].tolist() == [True] and several["told apart"].tolist() == [False, False]
    assert several.index.names == ["dataset", "row"]
