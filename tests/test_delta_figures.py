"""Figures against Delta show every class, method and group, at the values of their tables."""

import numpy as np
import pandas as pd
import pytest
from davidbook import delta_figures
from davidbook.figures import COLOURS

pytestmark = pytest.mark.usefixtures("screenless")
CLASSES = ["Disc", "Grow", "MoveUp"]
DELTA = pd.DataFrame({"delta": [0.0, 0.6, 0.3], "error": [0.1, np.nan, 0.1]}, index=CLASSES)
ACCURACY = pd.DataFrame(
    {"method": m, "ipc": 1, "seed": s, "class": c, "accuracy": 0.2 * k + 0.1 * s + (m == "david") * 0.1}
    for m in ("dm:4", "david")
    for s in (0, 1)
    for k, c in enumerate(CLASSES)
)


def labels(axis):
    return [tick.get_text() for tick in axis.get_xticklabels()]


def test_deltas_are_ordered_and_in_points():
    kind = {"Disc": "appearance", "Grow": "motion", "MoveUp": "motion"}
    axis = delta_figures.deltas({"test set": DELTA, "held-out groups": DELTA}, kind).axes[0]
    assert labels(axis) == ["Disc", "MoveUp", "Grow"]
    heights = [line.get_ydata()[0] for line in axis.lines if len(line.get_ydata()) == 1 and line.get_marker() in "os"]
    assert heights == pytest.approx([0, 30, 60, 0, 30, 60])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "test set", "held-out groups", "appearance classes", "motion classes"
    ]  # fmt: skip


def test_accuracy_against_delta():
    axis = delta_figures.against_delta(ACCURACY, DELTA).axes[0]
    dots = axis.collections[1].get_offsets()
    assert np.allclose(dots[dots[:, 0].argsort()], [[0, 15], [30, 55], [60, 35]])  # means over two seeds
    assert [line.get_label() for line in axis.lines] == ["DM (L = 4)", "DAViD"]
    assert axis.lines[0].get_color() == COLOURS["dm"] and axis.lines[0].get_xdata().tolist() == [0, 60]


@pytest.mark.parametrize(
    ("group", "shown"), [([0, 2, 1], ["Disc", "MoveUp", "Grow"]), ([0, 1, 1], ["0\n(1)", "1\n(2)"])]
)
def test_groups_of_classes(group, shown):
    axis = delta_figures.by_group(ACCURACY, pd.Series(group, index=CLASSES)).axes[0]
    assert labels(axis) == shown
    heights = [bar.get_height() for bar in axis.patches]
    expected = {3: [5, 45, 25, 15, 55, 35], 2: [5, 35, 15, 45]}[len(shown)]
    assert heights == pytest.approx(expected)


def test_policies_against_delta():
    policies = pd.DataFrame([[1, 8, 4], [1, 8, 8]], columns=CLASSES)
    axis = delta_figures.policy_against_delta(policies, DELTA, (1, 2, 4, 8)).axes[0]
    dots = sorted(tuple(point) for dot in axis.collections for point in dot.get_offsets().tolist())
    assert dots == [(0, 1), (30, 4), (30, 8), (60, 8)]
    assert max(dot.get_sizes()[0] for dot in axis.collections) == 160
