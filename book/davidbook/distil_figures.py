"""Figures of the page "Does it distil?": accuracies row by row, losses over iterations, what was tried before."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from davidbook.figures import COLOURS

MARKS = {"motions": "o", "ucf12": "s", "msraction3d": "^"}
STARTS = {"real": "0.45", "mean": COLOURS["david"], "half": COLOURS["mtt"]}


def bars(table: pd.DataFrame, datasets, rows: list[str], distilled: list[str]) -> plt.Figure:
    """Accuracy of every row, one panel a dataset; rows of ``distilled`` in colour.

    Args:
        table: by (dataset, row), columns mean and std, in percent.
        datasets, rows: what to show, in this order.
    """
    count = len(datasets)
    figure, axes = plt.subplots(1, count, figsize=(2.3 * count + 2.4, 2.9), sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], datasets):
        own = table.reindex([(dataset, row) for row in reversed(rows)]).droplevel(0)
        colours = [COLOURS["david"] if row in distilled else "0.6" for row in own.index]
        axis.barh(own.index, own["mean"], xerr=own["std"].fillna(0), color=colours)
        axis.set_title(dataset, loc="left")
        axis.set_xlabel("top-1 accuracy, %")
    return figure


def held_out(curves: dict[tuple, pd.DataFrame], datasets, rows: dict[str, str]) -> plt.Figure:
    """The loss under networks that no step has used: mean over seeds, and between the least and the most.

    Args:
        curves: (dataset, row) -> rows iterations, columns seeds; one that has not been run is missing.
        datasets: one panel each.
        rows: name -> colour.
    """
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(2.3 * len(datasets) + 2.4, 2.7), squeeze=False, layout="constrained"
    )
    for axis, dataset in zip(axes[0], datasets):
        for row, colour in rows.items():
            own = curves.get((dataset, row))
            if own is not None:
                axis.plot(own.index, own.mean(axis=1), color=colour, label=row)
                axis.fill_between(own.index, own.min(axis=1), own.max(axis=1), color=colour, alpha=0.2, lw=0)
        axis.set_title(dataset, loc="left")
        axis.set_xlabel("iteration")
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("held-out matching loss")
    axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
    return figure


def tried_steps(moves: pd.DataFrame) -> plt.Figure:
    """What settings did to the held-out loss and to students, one panel a kind of networks.

    Args:
        moves: columns kind, dataset, start, ratio (loss over that at the start) and gain (points over the start).
    """
    kinds = moves.groupby("kind")
    figure, axes = plt.subplots(1, kinds.ngroups, figsize=(7.4, 3), sharey=True, squeeze=False)
    for axis, (kind, group) in zip(axes[0], kinds):
        for (dataset, start), own in group.groupby(["dataset", "start"]):
            axis.scatter(own["ratio"], own["gain"], s=16, marker=MARKS[dataset], color=STARTS[start])
        axis.axhline(0, color="0.8", lw=0.8, zorder=0)
        axis.axvline(1, color="0.8", lw=0.8, zorder=0)
        axis.set_xscale("log")
        axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{kind} networks", loc="left")
        axis.set_xlabel("held-out loss over that at the start")
    axes[0, 0].set_ylabel("top-1 over the start, points")
    for dataset, mark in MARKS.items():
        axes[0, -1].scatter([], [], s=16, marker=mark, color="0.2", label=dataset)
    for start, ink in STARTS.items():
        axes[0, -1].scatter([], [], s=16, color=ink, label=f"from {start}")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def sweeps(looks: list[list[dict]], actions: tuple[int, ...], early: int) -> plt.Figure:
    """The teacher's distance of every L along sweeps, in the mean of classes: mean over seeds, and least to most.

    Args:
        looks: of each seed, in turn, "iteration" and "distance", by L and class.
        actions: the L, ascending.
        early: the iteration after which a search decides.
    """
    figure, axis = plt.subplots(figsize=(4.6, 2.8))
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(actions)))
    iterations = [look["iteration"] for look in looks[0]]
    found = np.array([[np.mean(look["distance"], axis=1) for look in own] for own in looks])  # seed, look, L
    for k, (length, shade) in enumerate(zip(actions, shades)):
        own = found[:, :, k]
        axis.plot(iterations, own.mean(0), color=shade, label=f"L = {length}")
        axis.fill_between(iterations, own.min(0), own.max(0), color=shade, alpha=0.2, lw=0)
    axis.axvline(early, color="0.6", ls=":", lw=1)
    axis.set_xlabel("iteration")
    axis.set_ylabel("teacher's distance")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
