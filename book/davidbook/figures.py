"""Figures of the book: one style, frame strips, animations, policies."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from david.partition import num_segments
from david.runs.methods import method
from david.support.files import write_bytes
from david.support.pixels import denormalise

# Okabe and Ito's colours, told apart by every kind of colour vision; one for each thing, in all figures.
COLOURS = {
    "full": "#000000",
    "random": "#999999",
    "random:1": "#B5A642",
    "mean": "#8C564B",
    "keyframe": "#BBBBBB",
    "herding": "#777777",
    "kcenter": "#555555",
    "dm": "#0072B2",
    "mtt": "#009E73",
    "vdsd": "#CC79A7",
    "vdsd:mtt": "#882255",
    "david": "#D55E00",
    "appearance": "#56B4E9",
    "motion": "#E69F00",
    "train": "#444444",
    "test": "#AAAAAA",
}
TITLE = 16  # pixels of a title above a clip


def colour(method: str) -> str:
    """The colour of a method; a variant without one of its own, such as "dm:4", has that of its method."""
    return COLOURS.get(method) or COLOURS.get(method.partition(":")[0], "#777777")


def style() -> None:
    """Set matplotlib's defaults for the whole notebook."""
    plt.rcParams.update(
        {
            "figure.figsize": (7, 3.2),
            "figure.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 10,
            "legend.frameon": False,
            "savefig.bbox": "tight",
        }
    )


def pixels(videos) -> np.ndarray:
    """Clips as uint8 (..., F, H, W, 3): passed through, or denormalised from float (..., F, 3, H, W)."""
    if torch.is_tensor(videos):
        videos = (denormalise(videos) if videos.is_floating_point() else videos).cpu()
    return np.asarray(videos)


def strips(videos, titles: list[str], scale: float = 0.75) -> plt.Figure:
    """Frame strips, one clip a row.

    Args:
        videos: (N, F, ...) clips, uint8 or normalised float.
        titles: N row titles.
        scale: inches a frame.
    """
    videos = pixels(videos)
    count, frames = videos.shape[:2]
    figure, axes = plt.subplots(count, 1, figsize=(scale * frames + 1.2, scale * count), squeeze=False)
    for axis, video, title in zip(axes[:, 0], videos, titles, strict=True):
        framed = np.pad(video, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
        axis.imshow(np.concatenate(framed, 1))
        axis.set_ylabel(title, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.tight_layout(h_pad=0.2)
    return figure


def animation(
    videos, columns: int = 6, zoom: int = 2, milliseconds: int = 120, titles: list[str] | None = None, path=None
):
    """A looping animated PNG of clips side by side, for display in a notebook: every pixel exact, unlike a GIF's.

    Args:
        videos: (N, F, ...) clips, uint8 or normalised float.
        columns: clips a row.
        zoom: integer magnification.
        milliseconds: time a frame is shown.
        titles: N texts, printed above the clips, black on white; one may run over into the next if that is "".
        path: a file to write it to as well.

    Returns:
        IPython.display.Image.
    """
    from IPython.display import Image as Display  # only notebooks need IPython

    videos = pixels(videos).repeat(zoom, 2).repeat(zoom, 3)
    missing, band = -len(videos) % columns, 0 if titles is None else TITLE
    margins = ((0, missing), (0, 0), (band + zoom, zoom), (zoom, zoom), (0, 0))
    videos = np.pad(videos, margins, constant_values=255)
    rows, (_, frames, height, width, _) = len(videos) // columns, videos.shape
    grid = videos.reshape(rows, columns, frames, height, width, 3).transpose(2, 0, 3, 1, 4, 5)
    images = [Image.fromarray(frame) for frame in grid.reshape(frames, rows * height, columns * width, 3)]
    for image in images:
        for position, title in enumerate(titles or ()):
            row, column = divmod(position, columns)
            ImageDraw.Draw(image).text((column * width + zoom, row * height), title, "black", font_size=TITLE - 4)
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    if path is not None:
        write_bytes(path, buffer.getvalue())
    return Display(data=buffer.getvalue(), format="png")


def partition_diagram(frames: int, lengths: list[int]) -> plt.Figure:
    """Eq. 4 drawn: for each L, the segments cut from F numbered frames and the clips they become."""
    figure, axes = plt.subplots(1, len(lengths), figsize=(2.1 * len(lengths), 2.4), sharey=True)
    palette = plt.get_cmap("cividis")
    for axis, length in zip(np.atleast_1d(axes), lengths, strict=True):
        n = num_segments(frames, length)
        for row in range(n):
            for column in range(frames):
                frame = row * length + column // n
                shade = palette(frame / (frames - 1))
                axis.add_patch(Rectangle((column, row), 0.94, 0.86, color=shade))
                ink = "black" if frame > frames / 2 else "white"
                axis.text(column + 0.47, row + 0.43, frame + 1, ha="center", va="center", color=ink, fontsize=7)
        axis.set_title(f"L = {length}: {n} clip{'s' * (n > 1)}", fontsize=10)
        axis.set_xlim(0, frames)
        axis.set_ylim(frames, -0.2)
        axis.axis("off")
    figure.tight_layout()
    return figure


def counts(table: pd.DataFrame, most: int = 60) -> plt.Figure:
    """How many training and test videos each class has, as ``datasets.report.describe`` counts them.

    Args:
        table: columns train and test, one row a class.
        most: classes that are named; more are sorted by their number of videos.
    """
    named = len(table) <= most
    if not named:
        table = table.loc[table[["train", "test"]].sum(axis=1).sort_values(ascending=False).index]
    figure, axis = plt.subplots(figsize=(max(7, 0.28 * len(table)) if named else 7, 3))
    below = np.zeros(len(table))
    for split, label in (("train", "training"), ("test", "test")):
        axis.bar(range(len(table)), table[split], 0.8 if named else 1, below, color=COLOURS[split], label=label)
        below += table[split].to_numpy()
    axis.set_xticks(range(len(table)) if named else [], table.index if named else [], rotation=40, ha="right")
    axis.set_xlabel("" if named else f"{len(table)} classes, by size")
    axis.set_ylabel("videos")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def lengths(frames: dict[str, np.ndarray], marks: dict[str, int]) -> plt.Figure:
    """How long the source videos are.

    Args:
        frames: "train" and "test" -> the number of frames of each video.
        marks: label -> number of frames, drawn as lines.
    """
    figure, axis = plt.subplots(figsize=(7, 2.6))
    colours, names = [COLOURS[split] for split in frames], {"train": "training", "test": "test"}
    longest = int(max(own.max() for own in frames.values()))
    width = 1 + longest // 40  # whole frames
    bins = np.arange(0, longest + 2 * width, width) - 0.5
    axis.hist(list(frames.values()), bins, stacked=True, color=colours, label=[names[split] for split in frames])
    for label, number in marks.items():
        axis.axvline(number, color="black", linewidth=0.8, linestyle=":")
        axis.annotate(f" {label}", (number, 1), xycoords=("data", "axes fraction"), va="top", rotation=90, fontsize=8)
    axis.set_xlim(left=0)
    axis.set_xlabel("frames of the source video")
    axis.set_ylabel("videos")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def policies(policies: np.ndarray, classes: list[str], actions, kind: dict[str, str] | None = None) -> plt.Figure:
    """The L that each seed chose for each class: a dot a seed, larger where seeds agree.

    Args:
        policies: (seeds, M), L.
        classes: M names.
        actions: the action set.
        kind: class -> "appearance" or "motion", for the colours; or None.
    """
    policies = np.atleast_2d(policies)
    figure, axis = plt.subplots(figsize=(max(7, 0.55 * len(classes)), 3))
    for c, name in enumerate(classes):
        lengths, counts = np.unique(policies[:, c], return_counts=True)
        colour = COLOURS[kind[name]] if kind else COLOURS["david"]
        axis.scatter([c] * len(lengths), lengths, s=160 * counts / len(policies), color=colour)
    axis.set_yscale("log", base=2)
    axis.set_yticks(list(actions), [str(a) for a in actions])
    axis.set_ylabel("frames per segment, L")
    axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axis.grid(axis="y", alpha=0.3)
    for label in sorted(set(kind.values())) if kind else []:
        axis.scatter([], [], color=COLOURS[label], label=f"{label} classes")
    if kind:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def accuracies(tables: dict, chance: float, label: str = "top-1 accuracy, %") -> plt.Figure:
    """Bars of mean accuracy with one standard deviation, a group of bars a method.

    Args:
        tables: label of the bars -> what ``records.summary`` returns, the same methods in each.
        chance: accuracy of guessing, drawn as a line.
        label: of the axis.
    """
    count = len(next(iter(tables.values())))
    figure, axis = plt.subplots(figsize=(max(7, 0.62 * count), 3.2))
    width = 0.8 / len(tables)
    for k, (bars, table) in enumerate(tables.items()):
        at = np.arange(len(table)) + (k - (len(tables) - 1) / 2) * width
        colours = [COLOURS.get(bars) or colour(name) for name in table["method"]]
        axis.bar(at, 100 * table["mean"], width * 0.92, yerr=100 * table["std"], color=colours, label=bars, capsize=2)
    ipcs = table["ipc"].loc[table["ipc"] > 0].nunique()
    titles = [method(name).title for name in table["method"]]
    names = [title + (f"\nIPC {i}" if i and ipcs > 1 else "") for title, i in zip(titles, table["ipc"])]
    axis.set_xticks(range(len(table)), names, rotation=30, ha="right")
    axis.axhline(100 * chance, color="black", linewidth=0.8, linestyle=":")
    axis.annotate("chance", (1, 100 * chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axis.set_ylabel(label)
    if len(tables) > 1:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(tables))
    return figure


def rewards(mean_reward: np.ndarray, classes: list[str], actions, policy=None, label="mean reward") -> plt.Figure:
    """The mean reward of every class and L as a map; a dot marks the L that the policy takes.

    Args:
        mean_reward: (M, A), or another quantity of class and L; what is not finite marks actions never tried.
        classes: M names.
        actions: the action set.
        policy: (M,) L, or None.
        label: what the colours mean.
    """
    figure, axis = plt.subplots(figsize=(max(7, 0.55 * len(classes)), 2.4))
    shown = np.ma.masked_invalid(np.asarray(mean_reward, dtype=float))
    image = axis.imshow(shown.T, cmap="cividis", aspect="auto", origin="lower")
    axis.set_yticks(range(len(actions)), [str(a) for a in actions])
    axis.set_ylabel("L")
    axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    if policy is not None:
        axis.scatter(range(len(classes)), [list(actions).index(length) for length in policy], color="white", s=25)
    figure.colorbar(image, label=label, fraction=0.03, pad=0.02)
    return figure


def feature_map(real: np.ndarray, means: np.ndarray, classes: list[str], sets: dict) -> plt.Figure:
    """A map of features, as the paper's Fig. 4: real clips as a grey density, the class means of every set upon it.

    Args:
        real: (N, 2), the real clips on the map.
        means: (M, 2), the real class means, which the first panel names, and from which a thin line leads to a set's.
        classes: M names.
        sets: method -> (M, 2), its class means on the same map.
    """
    from sklearn.neighbors import KernelDensity  # takes a second to import

    count = 1 + len(sets)
    figure, axes = plt.subplots(-(-count // 2), 2, figsize=(8.4, 3.7 * -(-count // 2)), sharex=True, sharey=True)
    low, high = real.min(0), real.max(0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    x, y = (np.linspace(low[i], high[i], 150) for i in (0, 1))
    kernels = KernelDensity(bandwidth=0.025 * np.mean(high - low)).fit(real)
    shades = {"levels": np.linspace(0.02, 1, 9), "cmap": "Greys", "vmax": 1.6}  # the grey never turns black
    density = np.exp(kernels.score_samples(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))).reshape(150, 150)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, {"": means, **sets}.items()):
        axis.contourf(x, y, density / density.max(), **shades)
        axis.set_title(method(name).title if name else "Real clips and their class means", fontsize=10)
        axis.plot(*np.stack([means, points]).transpose(2, 0, 1), color="black", linewidth=0.6)
        axis.scatter(*points.T, s=34, color=colour(name), edgecolor="black", linewidth=0.6, zorder=3)
    for name, (x, y) in zip(classes, means):
        axes.flat[0].annotate(name, (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=7)
    figure.tight_layout()
    return figure


def by_class(values: dict, classes: list[str], label: str) -> plt.Figure:
    """A number of every class and method: a dot at the mean over seeds, with a bar of one standard deviation.

    Args:
        values: method -> (seeds, M).
        classes: M names.
        label: of the axis.
    """
    figure, axis = plt.subplots(figsize=(max(7, 0.6 * len(classes)), 3.2))
    for k, (name, table) in enumerate(values.items()):
        at = np.arange(len(classes)) + 0.6 * ((k + 0.5) / len(values) - 0.5)
        spread = np.std(table, 0, ddof=1) if len(table) > 1 else None
        axis.errorbar(at, np.mean(table, 0), spread, fmt="o", ms=4, color=colour(name), label=method(name).title)
    axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axis.set_ylabel(label)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(values))
    return figure
