"""Figures of the step-by-step chapter show the numbers that they are given."""

import pandas as pd
import pytest
import torch
from davidbook import step_figures

pytestmark = pytest.mark.usefixtures("screenless")


def test_histograms_count_every_draw():
    rows = [("Disc", length, 0.1 * length + 0.01 * k) for length in (1, 2) for k in range(5)]
    figure = step_figures.reward_histograms(pd.DataFrame(rows, columns=["class", "L", "reward"]), ["Disc"])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 10
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["L = 1", "L = 2"]


def test_q_tables_write_their_values():
    figure = step_figures.q_tables({1: torch.zeros(2, 2), 5: torch.tensor([[0.0, 0.25], [0.5, 1.0]])}, (1, 2))
    assert [axis.get_title() for axis in figure.axes] == ["after 1", "after 5"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.00", "0.25", "0.50", "1.00"]


def test_the_early_stage_is_marked_where_it_is_reached():
    rows = [("Disc", 1, i, 0.1 * i) for i in range(4)]
    rewards = pd.DataFrame(rows, columns=["class", "L", "iteration", "reward"])
    axis = step_figures.early_stage(rewards, ["Disc"], early=2).axes[0]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert axis.lines[1].get_xdata() == [2, 2]
    assert len(step_figures.early_stage(rewards, ["Disc"], early=9).axes[0].lines) == 1
