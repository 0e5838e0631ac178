"""Figures with Delta (Eq. 6) on an axis: classes ranked, accuracies and policies against it, groups."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from david.delta import trend
from david.runs.methods import method
from davidbook.figures import COLOURS, colour

MARKERS = "osD^vPX*<>"


def deltas(tables: dict[str, pd.DataFrame], kind: dict[str, str] | None = None) -> plt.Figure:
    """Delta of every class with its standard error, classes ordered by the first table.

    Args:
        tables: label -> what ``dynamics.delta`` returns; the first is filled, the others are hollow.
        kind: class -> "appearance" or "motion", for the colours; or None.
    """
    order = next(iter(tables.values()))["delta"].sort_values(kind="stable").index
    figure, axis = plt.subplots(figsize=(max(7, 0.5 * len(order)), 3.2))
    for k, (label, table) in enumerate(tables.items()):
        table = table.loc[order]
        at = np.arange(len(order)) + 0.18 * k
        for x, name in zip(at, order):
            shade = COLOURS[kind[name]] if kind else COLOURS["david"]
            style = {"color": shade, "markerfacecolor": shade if k == 0 else "white", "markersize": 5, "capsize": 2}
            row = table.loc[name].fillna(0)
            axis.errorbar(x, 100 * row["delta"], 100 * row["error"], fmt=MARKERS[k], **style)
        axis.scatter([], [], c="gray" if k == 0 else "white", edgecolors="gray", marker=MARKERS[k], label=label)
    for label in sorted(set(kind.values())) if kind else []:
        axis.scatter([], [], color=COLOURS[label], marker="s", label=f"{label} classes")
    axis.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(order)), order, rotation=40, ha="right")
    axis.set_ylabel("Δ, points of accuracy")
    axis.legend(loc="upper left")
    return figure


def against_delta(accuracy: pd.DataFrame, delta: pd.DataFrame) -> plt.Figure:
    """Each method's accuracy on a class against the class's Delta, with its least-squares line (Fig. 1).

    Args:
        accuracy: what ``records.by_class`` returns.
        delta: what ``dynamics.delta`` returns.
    """
    lines = trend(accuracy, delta["delta"])
    ends = [100 * delta["delta"].min(), 100 * delta["delta"].max()]
    figure, axis = plt.subplots(figsize=(7, 3.8))
    for k, name in enumerate(lines.index):
        mean = accuracy[accuracy["method"] == name].groupby("class")["accuracy"].mean()
        x = 100 * delta.loc[mean.index, "delta"]
        axis.scatter(x, 100 * mean, color=colour(name), marker=MARKERS[k % len(MARKERS)], s=28, alpha=0.75)
        fitted = [100 * lines.loc[name, end] for end in ("most_static", "most_dynamic")]
        style = {"color": colour(name), "marker": MARKERS[k % len(MARKERS)], "markersize": 4, "linewidth": 1.6}
        axis.plot(ends, fitted, label=method(name).title, **style)
    axis.set_xlabel("Δ of the class, points: static classes left, dynamic ones right")
    axis.set_ylabel("accuracy on the class, %")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def by_group(accuracy: pd.DataFrame, group: pd.Series) -> plt.Figure:
    """Accuracy of every method in every group of classes, mean and deviation over seeds (Fig. 3).

    Args:
        accuracy: what ``records.by_class`` returns.
        group: class -> number, as ``dynamics.delta_groups`` returns.
    """
    names = list(dict.fromkeys(accuracy["method"]))
    numbers = sorted(group.unique())
    sizes = group.value_counts()
    figure, axis = plt.subplots(figsize=(max(7, 0.16 * len(names) * len(numbers)), 3.4))
    width = 0.84 / len(names)
    in_groups = accuracy.assign(group=accuracy["class"].map(group))
    seeds = in_groups.groupby(["method", "group", "seed"])["accuracy"].mean().groupby(["method", "group"])
    mean, std = 100 * seeds.mean(), 100 * seeds.std().fillna(0)
    for k, name in enumerate(names):
        at = np.arange(len(numbers)) + (k - (len(names) - 1) / 2) * width
        axis.bar(
            at, mean[name], width * 0.92, yerr=std[name], color=colour(name), label=method(name).title, capsize=1.5
        )
    single = sizes.max() == 1
    labels = [group.index[group == n][0] if single else f"{n}\n({sizes[n]})" for n in numbers]
    axis.set_xticks(range(len(numbers)), labels, rotation=40 if single else 0, ha="right" if single else "center")
    axis.set_xlabel("" if single else "group of classes, from static to dynamic (how many)")
    axis.set_ylabel("accuracy, %")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=min(4, len(names)))
    return figure


def policy_against_delta(policies: pd.DataFrame, delta: pd.DataFrame, actions) -> plt.Figure:
    """The L of every class against its Delta, a dot for each L that a seed chose, larger where seeds agree.

    Args:
        policies: a row a seed, a column a class, values L.
        delta: what ``dynamics.delta`` returns.
        actions: the action set.
    """
    figure, axis = plt.subplots(figsize=(7, 3))
    for name in policies:
        chosen = policies[name].value_counts()
        x = 100 * delta.loc[name, "delta"]
        axis.scatter([x] * len(chosen), chosen.index, s=160 * chosen / len(policies), color=COLOURS["david"], alpha=0.6)
    axis.set_yscale("log", base=2)
    axis.set_yticks(list(actions), [str(a) for a in actions])
    axis.set_xlabel("Δ of the class, points")
    axis.set_ylabel("frames per segment, L")
    axis.grid(axis="y", alpha=0.3)
    return figure
