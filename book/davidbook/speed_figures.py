"""Figures and tables of the benchmarks: how an iteration grows, each stage beside its bound, what a teacher saw."""

from statistics import median

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import ScalarFormatter

from david.runs.methods import method
from davidbook.figures import COLOURS
from davidbook.projection import along

AXES = {"classes": "classes", "ipc": "IPC", "frames": "frames a clip", "size": "pixels a side"}
STARTS = {"noise": COLOURS["motion"], "real": COLOURS["dm"]}
PLACE = {"classes": "{} classes", "ipc": "IPC {}", "size": "{} pixels"}


def growth(record: dict) -> plt.Figure:
    """Time of an iteration, in units of that at the first point of each axis, and its memory, along each axis.

    Args:
        record: of ``benchmarks/growth.py``.
    """
    figure, axes = plt.subplots(2, len(AXES), figsize=(9, 4.4), sharex="col", sharey="row")
    for (axis, label), (time, memory) in zip(AXES.items(), axes.T):
        for name in ("dm", "david"):
            points = along(record["points"], record["base"], axis, method=name)
            x, style = [point[axis] for point in points], {"color": COLOURS[name], "label": method(name).title}
            seconds = [median(point["seconds"]) for point in points]
            time.plot(x, [value / seconds[0] for value in seconds], "o-", ms=4, **style)
            memory.plot(x, [point["peak_bytes"] / 2**20 for point in points], "o-", ms=4, **style)
        memory.plot(x, [p["held_bytes"] / 2**20 for p in points], "k:", label="videos and momentum, of either")
        memory.set_xlabel(label)
        ends = x if len(x) < 4 else [x[0], x[-1]]  # more would run into each other
        memory.set_xticks(ends, [f"{value:,}" for value in ends])
        time.grid(axis="y", alpha=0.3)
        memory.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("time, first point = 1")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylim(bottom=0)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.align_ylabels()
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure


def shares(record: dict) -> plt.Figure:
    """The share of its bound that each stage reaches at the base point, a bar a stage.

    Args:
        record: of ``benchmarks/stages.py``.
    """
    stages = record["points"][0]["stages"]
    reached = [100 * stage["share of the bound"] for stage in stages.values()]
    copied = ["copy" in stage["work"] for stage in stages.values()]
    colours = [COLOURS["appearance"] if copy else COLOURS["motion"] for copy in copied]
    figure, axis = plt.subplots(figsize=(7, 0.36 * len(stages) + 0.8))
    bars = axis.barh(range(len(stages)), reached, 0.7, color=colours)
    axis.bar_label(bars, [f"{value:.0f} %" for value in reached], padding=3)
    axis.set_yticks(range(len(stages)), list(stages))
    axis.invert_yaxis()
    axis.set_xlim(0, max(100, 1.1 * max(reached)))
    axis.set_xlabel("share of the bound, %: copying (blue), matrix products (orange)")
    return figure


def sizes(record: dict) -> pd.DataFrame:
    """A row a stage, a column a point: "time over that at the base, share of the bound, peak memory" as text.

    Args:
        record: of ``benchmarks/stages.py``. The last column is earlier code's time over ours at the base.
    """
    base, columns = record["points"][0]["stages"], {}
    for point in record["points"]:
        apart = [name for name, value in record["base"].items() if point[name] != value] or record["base"]
        columns[", ".join(PLACE[name].format(point[name]) for name in apart)] = {
            name: f"{median(own['seconds']) / median(base[name]['seconds']):.1f}, {own['share of the bound']:.0%}, "
            f"{own['peak_bytes'] / 2**20:,.0f} MiB"
            for name, own in point["stages"].items()
        }
    ratios = {name: own["plain / ours"] for name, own in base.items() if "plain / ours" in own}
    columns["earlier code / ours"] = {name: f"{ratio:.2f}" for name, ratio in ratios.items()}
    return pd.DataFrame(columns).fillna("")


def followed(looks: list[dict], length: int) -> pd.DataFrame:
    """What a sweep of ``benchmarks/evidence.py`` went through at one L, a row a look.

    Returns:
        indexed by iteration, columns distance (the teacher's, mean of classes), squared_gradient_norm (of a class's
            videos, mean since the last look; NaN at the start) and change (of a pixel from its start, in deviations).
    """
    found = {}
    for look in looks:
        own = look["frames_per_segment"][str(length)]
        slope = own["squared_gradient_norm"] if look["iteration"] else float("nan")
        distance = sum(own["distance"]) / len(own["distance"])
        found[look["iteration"]] = {"distance": distance, "squared_gradient_norm": slope, "change": own["change"]}
    return pd.DataFrame(found).T.rename_axis("iteration")


def distances(sweeps: dict[str, list[dict]], length: int) -> plt.Figure:
    """The teacher's distance over iterations from every start: thin lines are classes, the thick one is their mean.

    Args:
        sweeps: start -> its looks, of ``benchmarks/evidence.py``.
        length: L.
    """
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for start, looks in sweeps.items():
        mean = followed(looks, length)["distance"]
        each = [look["frames_per_segment"][str(length)]["distance"] for look in looks]
        axis.plot(mean.index, each, color=STARTS.get(start), lw=0.5, alpha=0.4)
        axis.plot(mean, "o-", ms=4, color=STARTS.get(start), lw=2, label=f"from {start}")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel("iteration")
    axis.set_ylabel("the teacher's distance")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
