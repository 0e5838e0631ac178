"""Draw the book's figures, all in one style: clips, datasets, classes and their L, accuracies, curves, benchmarks."""

import io
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter
from PIL import Image, ImageDraw

from david.delta import trend
from david.partition import num_segments
from david.runs.methods import method
from david.support.files import write_bytes
from david.support.pixels import denormalise
from davidbook.projection import along

# Okabe and Ito's colours, told apart by every kind of colour vision; one for each thing, in all figures.
COLOURS = {
    "full": "#000000", "random": "#999999", "random:1": "#B5A642", "mean": "#8C564B", "keyframe": "#BBBBBB",
    "herding": "#777777", "kcenter": "#555555", "dm": "#0072B2", "mtt": "#009E73", "vdsd": "#CC79A7",
    "vdsd:mtt": "#882255", "david": "#D55E00", "appearance": "#56B4E9", "motion": "#E69F00", "train": "#444444",
    "test": "#AAAAAA",
}  # fmt: skip
STARTS = {"real": COLOURS["dm"], "noise": COLOURS["motion"], "mean": COLOURS["david"], "half": COLOURS["mtt"]}
MARKERS = "osD^vPX*<>"
TITLE = 16  # pixels of a title above a clip
Kinds = dict[str, str] | None  # class -> "appearance" or "motion", for the colours, where that is known


def printable(name) -> str:
    """A name with a question mark for each byte that is no text."""
    return str(name).encode(errors="replace").decode()


def plain(names):
    """A name, or a list of names, as matplotlib prints it: what stands between two dollars is no formula."""
    if isinstance(names, str):
        return printable(names).replace("$", r"\$")
    return [plain(str(name)) for name in names]


def style() -> None:
    """Set the defaults of matplotlib and of pandas' tables for the whole notebook."""
    pd.set_option("display.html.use_mathjax", False)  # a dollar in a name begins no formula
    plt.style.use(Path(__file__).with_name("book.mplstyle"))


def colour(method: str) -> str:
    """The colour of a method; a variant without one of its own, such as "dm:4", has that of its method."""
    return COLOURS.get(method) or COLOURS.get(method.partition(":")[0], "#777777")


def shades(lengths) -> dict[str, tuple]:
    """A colour for each L, "L = 1" and so on, dark for few frames a segment."""
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(lengths)))
    return {f"L = {length}": colour for length, colour in zip(sorted(lengths), colours)}


def panels(columns: int = 1, rows: int = 1, width: float = 7, height: float = 3.2, **options):
    """A figure of so many inches, and its axes, as ``plt.subplots`` returns them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def classes_along(names, height: float = 3.5, rotation: float = 40):
    """A figure that is wide enough for the names of classes, or others, under its x axis, and its axis."""
    figure, axis = panels(width=max(7, 0.58 * len(names)), height=height)
    axis.set_xticks(range(len(names)), plain(names), rotation=rotation, ha="right" if rotation else "center")
    return figure, axis


def legend(figure: plt.Figure, kind: Kinds = None) -> plt.Figure:
    """Say above a figure what its labels mean, each once, and the colours of kinds; nothing where there is only one."""
    known = {label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels())}
    kinds = sorted(set(kind.values())) if kind else []
    known |= {f"{name} classes": Line2D([], [], marker="o", ls="", color=COLOURS[name]) for name in kinds}
    if len(known) > 1:
        figure.legend(known.values(), known, loc="outside upper right", ncols=min(4, len(known)))
    return figure


def bars(axis, groups: dict[str, tuple]) -> None:
    """Bars of mean and one standard deviation, side by side at every tick: label -> (means, deviations, colours)."""
    width = 0.84 / len(groups)
    for k, (label, (mean, std, colours)) in enumerate(groups.items()):
        at = np.arange(len(mean)) + (k - (len(groups) - 1) / 2) * width
        axis.bar(at, mean, 0.92 * width, yerr=std, color=colours, label=label)


def lying_bars(axis, values: pd.Series, colours: list[str], **options):
    """Bars from left to right, the first on top, named by the index."""
    drawn = axis.barh(range(len(values)), values, 0.75, color=colours, **options)
    axis.set_yticks(range(len(values)), plain(values.index))
    axis.set_ylim(len(values) - 0.5, -0.5)
    return drawn


def cells(axis, values: np.ndarray, texts, most: float) -> None:
    """A matrix as coloured cells, from 0 to ``most``, each with its text; the first row is on top."""
    axis.pcolormesh(values, vmin=0, vmax=most, edgecolors="white", linewidth=1)
    axis.invert_yaxis()
    for (row, column), value in np.ndenumerate(values):
        look = {"color": "black" if value > most / 2 else "white", "fontsize": 7, "ha": "center", "va": "center"}
        axis.text(column + 0.5, row + 0.5, texts(value), **look)


# Clips


def pixels(videos) -> np.ndarray:
    """Clips as uint8 (..., F, H, W, 3): passed through, or denormalised from float (..., F, 3, H, W)."""
    if torch.is_tensor(videos):
        videos = (denormalise(videos) if videos.is_floating_point() else videos).cpu()
    return np.asarray(videos)


def strips(videos, titles: list[str], scale: float = 0.75) -> plt.Figure:
    """Frame strips of clips (N, F, ...), uint8 or normalised float, one a row with its title; scale: inches a frame."""
    videos = pixels(videos)
    count, frames = videos.shape[:2]
    figure, axes = panels(1, count, scale * frames + 1.2, scale * count)
    for axis, video, title in zip(np.ravel(axes), videos, titles, strict=True):
        framed = np.pad(video, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
        axis.imshow(np.concatenate(framed, 1))
        axis.set_ylabel(plain(title), rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
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
            place = (column * width + zoom, row * height)
            ImageDraw.Draw(image).text(place, printable(title), "black", font_size=TITLE - 4)
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    if path is not None:
        write_bytes(path, buffer.getvalue())
    return Display(data=buffer.getvalue(), format="png")


def partition_diagram(frames: int, lengths: list[int]) -> plt.Figure:
    """Eq. 4 drawn: for each L, the segments cut from F numbered frames and the clips they become."""
    figure, axes = panels(len(lengths), width=2.1 * len(lengths), height=2.4, sharey=True)
    for axis, length in zip(np.ravel(axes), lengths, strict=True):
        n = num_segments(frames, length)
        cells(axis, np.arange(frames).reshape(n, length).repeat(n, axis=1), lambda frame: frame + 1, frames - 1)
        axis.set(title=f"L = {length}: {n} clip{'s' * (n > 1)}", ylim=(frames, 0))
        axis.axis("off")
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

    rows = -(-(1 + len(sets)) // 2)
    figure, axes = panels(2, rows, 8.4, 3.7 * rows, sharex=True, sharey=True, squeeze=False)
    low, high = real.min(0), real.max(0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    x, y = np.linspace(low, high, 150).T
    kernels = KernelDensity(bandwidth=0.025 * np.mean(high - low)).fit(real)
    density = np.exp(kernels.score_samples(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))).reshape(150, 150)
    grey = {"levels": np.linspace(0.02, 1, 9), "cmap": "Greys", "vmax": 1.6}  # which never turns black
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, {"": means, **sets}.items()):
        axis.contourf(x, y, density / density.max(), **grey)
        axis.set_title(method(name).title if name else "Real clips and their class means")
        axis.plot(*np.stack([means, points]).transpose(2, 0, 1), color="black", linewidth=0.6)
        axis.scatter(*points.T, s=34, color=colour(name), edgecolor="black", linewidth=0.6, zorder=3)
    for name, (x, y) in zip(classes, means):
        axes.flat[0].annotate(plain(name), (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=7)
    return figure


# Datasets


def counts(table: pd.DataFrame, most: int = 60) -> plt.Figure:
    """How many training and test videos each class has: columns train and test; above ``most`` classes, by size."""
    named = len(table) <= most
    if not named:
        table = table.loc[table[["train", "test"]].sum(axis=1).sort_values(ascending=False).index]
    figure, axis = classes_along(table.index if named else [])
    for split, label, below in (("train", "training", 0), ("test", "test", table["train"])):
        axis.bar(range(len(table)), table[split], 0.8 if named else 1, below, color=COLOURS[split], label=label)
    axis.set(xlabel="" if named else f"{len(table)} classes, by size", ylabel="videos")
    return legend(figure)


def lengths(frames: dict[str, np.ndarray], marks: dict[str, int]) -> plt.Figure:
    """How long the source videos are: "train" and "test" -> frames of each video; label -> frames to mark by a line."""
    figure, axis = panels(height=2.6)
    longest = int(max(own.max() for own in frames.values()))
    width = 1 + longest // 40  # whole frames
    bins = np.arange(0, longest + 2 * width, width) - 0.5
    labels = [{"train": "training"}.get(split, split) for split in frames]
    axis.hist(list(frames.values()), bins, stacked=True, color=[COLOURS[split] for split in frames], label=labels)
    for label, number in marks.items():
        axis.axvline(number, color="black", linewidth=0.8, linestyle=":")
        place = {"xy": (number, 1), "xycoords": ("data", "axes fraction")}
        axis.annotate(plain(f" {label}"), **place, va="top", rotation=90, fontsize=8)
    axis.set(xlabel="frames of the source video", ylabel="videos", xlim=(0, None))
    return legend(figure)


# Classes: their L, their rewards, their Delta, their accuracies


def policies(policies, classes: list[str], actions, kind: Kinds = None, delta: pd.Series | None = None) -> plt.Figure:
    """The L that each seed chose for each class, (seeds, M): a dot a seed, larger where seeds agree.

    Classes stand side by side or, given their Delta, along it; ``actions`` is the action set.
    """
    figure, axis = classes_along(classes) if delta is None else panels()
    places = range(len(classes)) if delta is None else 100 * delta[classes]
    for name, place, chosen in zip(classes, places, np.transpose(np.atleast_2d(policies))):
        lengths, times = np.unique(chosen, return_counts=True)
        look = {"color": COLOURS[kind[name] if kind else "david"], "alpha": 0.8, "clip_on": False}
        axis.scatter([place] * len(lengths), lengths, s=160 * times / len(chosen), **look)
    axis.set_yscale("log", base=2)
    axis.set_yticks(list(actions), [str(a) for a in actions])
    axis.set(ylabel="frames per segment, L", xlabel="" if delta is None else "Δ of the class, points")
    axis.grid(axis="y", alpha=0.3)
    return legend(figure, kind)


def rewards(mean_reward: np.ndarray, classes: list[str], actions, policy=None, label="mean reward") -> plt.Figure:
    """The mean reward of every class and L, (M, A), or another quantity, as a map; a dot marks the policy's L, (M,).

    What is not finite marks actions never tried; ``label`` says what the colours mean.
    """
    figure, axis = classes_along(classes, height=2.6)
    image = axis.imshow(np.ma.masked_invalid(np.asarray(mean_reward, float)).T, aspect="auto", origin="lower")
    axis.set_yticks(range(len(actions)), [str(a) for a in actions])
    axis.set_ylabel("L")
    if policy is not None:
        axis.scatter(range(len(classes)), [list(actions).index(length) for length in policy], color="white", s=25)
    figure.colorbar(image, label=label, fraction=0.03, pad=0.02)
    return figure


def deltas(tables: dict[str, pd.DataFrame], kind: Kinds = None) -> plt.Figure:
    """Delta of every class with its standard error, classes ordered by the first of tables, whose dots are filled.

    Args:
        tables: label -> what ``david.delta.delta`` returns.
        kind: of the classes.
    """
    order = next(iter(tables.values()))["delta"].sort_values(kind="stable").index
    figure, axis = classes_along(order)
    inks = [COLOURS[kind[name] if kind else "david"] for name in order]
    for k, (label, table) in enumerate(tables.items()):
        at, table, hollow = np.arange(len(order)) + 0.18 * k, 100 * table.loc[order], "white" if k else None
        axis.vlines(at, table["delta"] - table["error"], table["delta"] + table["error"], colors=inks, zorder=1)
        axis.scatter(at, table["delta"], s=25, c=hollow or inks, edgecolors=inks, marker=MARKERS[k])
        axis.scatter([], [], c=hollow or "gray", edgecolors="gray", marker=MARKERS[k], label=label)
    axis.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylabel("Δ, points of accuracy")
    return legend(figure, kind)


def against_delta(accuracy: pd.DataFrame, delta: pd.DataFrame) -> plt.Figure:
    """Each method's accuracy on a class against the class's Delta, with its least-squares line (Fig. 1).

    Args:
        accuracy: what ``david.runs.records.by_class`` returns.
        delta: what ``david.delta.delta`` returns.
    """
    lines, place = 100 * trend(accuracy, delta["delta"]), 100 * delta["delta"]
    figure, axis = panels(height=4)
    for k, (name, line) in enumerate(lines.iterrows()):
        mean = 100 * accuracy[accuracy["method"] == name].groupby("class")["accuracy"].mean()
        look = {"color": colour(name), "marker": MARKERS[k % len(MARKERS)]}
        axis.scatter(place[mean.index], mean, s=28, alpha=0.75, **look)
        ends = [place.min(), place.max()], line[["most_static", "most_dynamic"]]
        axis.plot(*ends, markersize=4, linewidth=1.6, label=method(name).title, **look)
    axis.set(xlabel="Δ of the class, points: static classes left, dynamic ones right", ylabel="accuracy, %")
    return legend(figure)


def accuracies(tables: dict, chance: float, label: str = "top-1 accuracy, %") -> plt.Figure:
    """Bars of mean accuracy with one standard deviation, a group of bars a method; a line at chance, a fraction of 1.

    Args:
        tables: label of the bars -> what ``david.runs.records.summary`` returns, the same methods in each.
        chance, label: accuracy of guessing, and what the axis says.
    """
    table = next(iter(tables.values()))
    several = table.loc[table["ipc"] > 0, "ipc"].nunique() > 1
    titles = [method(name).title for name in table["method"]]
    names = [title + f", IPC {ipc}" * (several and ipc > 0) for title, ipc in zip(titles, table["ipc"])]
    figure, axis = classes_along(names, rotation=30)
    own = [colour(name) for name in table["method"]]
    bars(axis, {k: (100 * t["mean"], 100 * t["std"], COLOURS.get(k, own)) for k, t in tables.items()})
    axis.axhline(100 * chance, color="black", linewidth=0.8, linestyle=":")
    axis.text(1, 100 * chance, "chance", transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    axis.set_ylabel(label)
    return legend(figure)


def by_class(values: dict, classes: list[str], label: str, rotation: float = 40) -> plt.Figure:
    """A number of every class and method, method -> (seeds, M): the mean over seeds, with one standard deviation."""
    figure, axis = classes_along(classes, rotation=rotation)
    tables = {name: pd.DataFrame(table) for name, table in values.items()}
    bars(axis, {method(name).title: (own.mean(), own.std(), colour(name)) for name, own in tables.items()})
    axis.set_ylabel(label)
    return legend(figure)


def by_dataset(table: pd.DataFrame, datasets, rows: list[str], distilled: list[str]) -> plt.Figure:
    """Accuracies, columns mean and std in percent by (dataset, row): one panel a dataset, ``distilled`` in colour."""
    height = max(2.9, 0.8 + 0.2 * len(rows))
    figure, axes = panels(len(datasets), width=2.3 * len(datasets) + 2.4, height=height, sharey=True)
    colours = [COLOURS["david"] if row in distilled else "0.6" for row in rows]
    for axis, dataset in zip(np.ravel(axes), datasets):
        own = table.reindex([(dataset, row) for row in rows]).droplevel(0)
        lying_bars(axis, own["mean"], colours, xerr=own["std"])
        axis.set(title=plain(dataset), xlabel="top-1 accuracy, %")
    return figure


def reward_gains(table: pd.DataFrame, ceilings: pd.Series) -> plt.Figure:
    """What policies of rewards bring, columns mean, low and high by (dataset, reward, iteration): a panel a dataset.

    Args:
        ceilings: by dataset, what the best L of each class brings; a dashed line.
    """
    datasets = list(dict.fromkeys(table.index.get_level_values(0)))
    figure, axes = panels(len(datasets), width=3.4 * len(datasets) + 1.2, height=2.8)
    for axis, dataset in zip(np.ravel(axes), datasets):
        own = table.loc[dataset]
        for k, reward in enumerate(dict.fromkeys(own.index.get_level_values(0))):
            line, ink = own.loc[reward], list(COLOURS.values())[k]
            ends = [line["mean"] - line["low"], line["high"] - line["mean"]]
            axis.errorbar(np.arange(len(line)) + 0.06 * k, line["mean"], ends, color=ink, marker="o", label=reward)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axhline(ceilings[dataset], color="black", linewidth=0.8, linestyle="--", label="best L of each class")
        axis.set(title=plain(dataset), xlabel="iterations before the reward")
        axis.set_xticks(range(len(line)), [f"{iteration:.0f}" for iteration in line.index])
    np.ravel(axes)[0].set_ylabel("points over the best single L")
    return legend(figure)


# Learning and distilling


def reward_histograms(rewards: pd.DataFrame, classes: list[str]) -> plt.Figure:
    """How the reward of each L spreads over draws, columns class, L and reward; one panel for each of ``classes``."""
    colours = shades(rewards["L"].unique())
    figure, axes = panels(len(classes), height=2.8, sharey=True)
    for axis, name in zip(np.ravel(axes), classes):
        own = rewards[rewards["class"] == name]
        bins = np.histogram_bin_edges(own["reward"], 24)
        for length, group in own.groupby("L"):
            axis.hist(group["reward"], bins, color=colours[f"L = {length}"], alpha=0.75, label=f"L = {length}")
        axis.set(title=plain(name), xlabel="reward")
    figure.axes[0].set_ylabel("draws")
    figure.axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    return legend(figure)


def q_tables(tables: dict, actions) -> plt.Figure:
    """Q-tables at several moments: episodes so far -> (A, A), rows states, columns actions of the action set."""
    figure, axes = panels(len(tables), width=2.1 * len(tables), height=2.4, sharey=True)
    top = max(float(table.max()) for table in tables.values()) or 1.0
    for axis, (episodes, table) in zip(np.ravel(axes), tables.items()):
        cells(axis, np.asarray(table), "{:.2f}".format, top)
        axis.set(title=f"after {episodes}", xlabel="action, L", ylim=(len(actions), 0))
        axis.set_xticks(np.arange(len(actions)) + 0.5, [str(a) for a in actions])
        axis.set_yticks(np.arange(len(actions)) + 0.5, [str(a) for a in actions])
    figure.axes[0].set_ylabel("state, L")
    return figure


def curves(shown: dict[str, dict], colours: dict, label: str, mark: int | None = None, scale="from 0") -> plt.Figure:
    """Something over iterations, one panel for each title: the mean of samples, and between the least and the most.

    Args:
        shown: title -> name of the curve -> rows iterations, columns samples, such as seeds.
        colours: of the curves, by name.
        label: of the upright axis.
        mark: an iteration to mark by a line, where the curves go that far.
        scale: of the upright axis, "from 0", "free" or "log".
    """
    figure, axes = panels(len(shown), width=min(9, 2.6 * len(shown) + 2), height=3)
    for axis, (title, own) in zip(np.ravel(axes), shown.items()):
        for name, samples in own.items():
            low, high = samples.min(axis=1), samples.max(axis=1)
            axis.plot(samples.index, samples.mean(axis=1), color=colours[name], label=name)
            axis.fill_between(samples.index, low, high, color=colours[name], alpha=0.2, lw=0)
        if mark is not None and any(mark <= samples.index.max() for samples in own.values()):
            axis.axvline(mark, color="gray", linewidth=0.8, linestyle=":")
        axis.set(title=plain(title), xlabel="iteration", yscale="log" if scale == "log" else "linear")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_formatter(ScalarFormatter())
        if scale == "from 0":
            axis.set_ylim(bottom=0)
    figure.axes[0].set_ylabel(label)
    return legend(figure)


def tried_steps(moves: pd.DataFrame) -> plt.Figure:
    """What settings did to the held-out loss and to students, one panel a kind of networks.

    Columns of ``moves``: kind, dataset, start, ratio (loss over that at the start) and gain (points over the start).
    """
    markers = dict(zip(moves["dataset"].unique(), MARKERS))
    figure, axes = panels(moves["kind"].nunique(), width=7.4, height=3.4, sharey=True)
    for axis, (kind, group) in zip(np.ravel(axes), moves.groupby("kind")):
        for (dataset, start), own in group.groupby(["dataset", "start"]):
            axis.scatter(own["ratio"], own["gain"], s=16, marker=markers[dataset], color=STARTS[start])
        axis.axhline(0, color="0.8", lw=0.8, zorder=0)
        axis.axvline(1, color="0.8", lw=0.8, zorder=0)
        axis.set_xscale("log")
        axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=f"{kind} networks", xlabel="held-out loss over that at the start")
    figure.axes[0].set_ylabel("top-1 over the start, points")
    looks = {f"from {start}": {"color": STARTS[start]} for start in moves["start"].unique()}
    looks |= {dataset: {"color": "0.2", "marker": marker} for dataset, marker in markers.items()}
    for label, look in looks.items():
        figure.axes[0].scatter([], [], s=16, label=label, **look)
    return legend(figure)


# Benchmarks


def growth(record: dict) -> plt.Figure:
    """Of a record of ``benchmarks/growth.py``: the time of an iteration, first point = 1, and its memory, by axis."""
    axes_of = {"classes": "classes", "ipc": "IPC", "frames": "frames a clip", "size": "pixels a side"}
    figure, axes = panels(len(axes_of), 2, 9, 4.4, sharex="col", sharey="row")
    for (axis, label), (time, memory) in zip(axes_of.items(), axes.T):
        for name in ("dm", "david"):
            points = along(record["points"], record["base"], axis, method=name)
            x, look = [point[axis] for point in points], {"color": colour(name), "label": method(name).title}
            seconds = np.array([median(point["seconds"]) for point in points])
            time.plot(x, seconds / seconds[0], "o-", ms=4, **look)
            memory.plot(x, [point["peak_bytes"] / 2**20 for point in points], "o-", ms=4, **look)
        memory.plot(x, [p["held_bytes"] / 2**20 for p in points], "k:", label="videos and momentum, of either")
        memory.set_xlabel(label)
        ends = x if len(x) < 4 else [x[0], x[-1]]  # more would run into each other
        memory.set_xticks(ends, [f"{value:,}" for value in ends])
    for row, label in zip(axes, ("time, first point = 1", "peak memory, MiB")):
        row[0].set(ylabel=label, ylim=(0, None))
        for axis in row:
            axis.grid(axis="y", alpha=0.3)
    return legend(figure)


def shares(record: dict) -> plt.Figure:
    """Of a record of ``benchmarks/stages.py``: the share of its bound that each stage reaches at the base point."""
    stages = record["points"][0]["stages"]
    reached = pd.Series({name: 100 * stage["share of the bound"] for name, stage in stages.items()})
    colours = [COLOURS["appearance" if "copy" in stage["work"] else "motion"] for stage in stages.values()]
    figure, axis = panels(height=0.36 * len(stages) + 0.8)
    axis.bar_label(lying_bars(axis, reached, colours), [f"{value:.0f} %" for value in reached], padding=3)
    axis.set_xlim(0, max(100, 1.1 * reached.max()))
    axis.set_xlabel("share of the bound, %: copying (blue), matrix products (orange)")
    return figure
