"""What the figures of the data show is what was counted."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from david import figures


@pytest.fixture(autouse=True)
def without_a_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def heights(figure) -> list[list[float]]:
    """Those of the bars: training, then test."""
    return [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]


def test_counts_names_few_classes_and_sorts_many():
    table = pd.DataFrame({"train": [1, 5, 3], "test": [2, 0, 2], "missing": [9, 9, 9]}, ["A", "B", "C"])
    figure = figures.counts(table)
    assert heights(figure) == [[1, 5, 3], [2, 0, 2]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["A", "B", "C"]
    figure = figures.counts(table, most=2)
    assert heights(figure) == [[5, 3, 1], [0, 2, 2]] and not figure.axes[0].get_xticklabels()
    assert figure.axes[0].get_xlabel() == "3 classes, by size"


def test_lengths_counts_every_video_once_even_if_all_are_of_one_length():
    for frames in ({"train": np.full(6, 40.0), "test": np.full(2, 40.0)}, {"train": np.array([1.0, 29.0, 621.0])}):
        figure = figures.lengths(frames, {"F": 8})
        assert all(bar.get_width() >= 1 for bars in figure.axes[0].containers for bar in bars)
        tops = np.array([[bar.get_y() + bar.get_height() for bar in bars] for bars in figure.axes[0].containers])
        assert tops[-1].sum() == sum(map(len, frames.values()))
