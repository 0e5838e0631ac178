"""Figures of the step-by-step chapter: rewards of many draws, Q-tables over time, rewards over iterations."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

SHADES = plt.get_cmap("cividis")


def shades(lengths) -> dict[int, tuple]:
    """A colour for each L, dark for few frames a segment."""
    return {length: SHADES(k / max(1, len(lengths) - 1) * 0.9) for k, length in enumerate(sorted(lengths))}


def reward_histograms(rewards: pd.DataFrame, classes: list[str]) -> plt.Figure:
    """How the reward of each L spreads over draws, one panel a class.

    Args:
        rewards: columns class, L and reward.
        classes: which to show.
    """
    colours = shades(rewards["L"].unique())
    figure, axes = plt.subplots(1, len(classes), figsize=(7, 2.8), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], classes):
        own = rewards[rewards["class"] == name]
        bins = np.histogram_bin_edges(own["reward"], 24)
        for length, group in own.groupby("L"):
            axis.hist(group["reward"], bins, color=colours[length], alpha=0.75, label=f"L = {length}")
        axis.set_title(name, loc="left")
        axis.set_xlabel("reward")
    axes[0, 0].set_ylabel("draws")
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def q_tables(tables: dict, actions) -> plt.Figure:
    """Q-tables at several moments, values written into their cells.

    Args:
        tables: episodes so far -> (A, A), rows states, columns actions.
        actions: the action set.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(2.1 * len(tables), 2.4), sharey=True, squeeze=False)
    top = max(float(table.max()) for table in tables.values()) or 1.0
    for axis, (episodes, table) in zip(axes[0], tables.items()):
        values = np.asarray(table)
        axis.imshow(values, cmap="cividis", vmin=0, vmax=top)
        for (row, column), value in np.ndenumerate(values):
            ink = "black" if value > top / 2 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=7)
        axis.set_title(f"after {episodes}", fontsize=10)
        axis.set_xticks(range(len(actions)), [str(a) for a in actions])
        axis.set_yticks(range(len(actions)), [str(a) for a in actions])
        axis.set_xlabel("action, L")
    axes[0, 0].set_ylabel("state, L")
    return figure


def early_stage(rewards: pd.DataFrame, classes: list[str], early: int) -> plt.Figure:
    """The reward of each L over the iterations of a distillation, one panel a class; a line marks N_early.

    Args:
        rewards: columns class, L, iteration and reward.
        classes: which to show.
        early: N_early.
    """
    colours = shades(rewards["L"].unique())
    figure, axes = plt.subplots(1, len(classes), figsize=(7, 2.8), squeeze=False)
    for axis, name in zip(axes[0], classes):
        for length, group in rewards[rewards["class"] == name].groupby("L"):
            axis.plot(group["iteration"], group["reward"], color=colours[length], label=f"L = {length}")
        if early <= rewards["iteration"].max():
            axis.axvline(early, color="gray", linewidth=0.8, linestyle=":")
        axis.set_title(name, loc="left")
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("reward")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure
