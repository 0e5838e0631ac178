"""Figures draw what they are given: exact pixels in motion, one colour a method, dots where the numbers are."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from davidbook import figures
from davidbook.figures import COLOURS
from PIL import Image

from david.runs.methods import ROWS

pytestmark = pytest.mark.usefixtures("screenless")


def test_every_row_has_a_colour_of_its_own():
    colours = [figures.colour(name) for name in ROWS]
    assert len(set(colours)) == len(ROWS) and set(colours) < set(figures.COLOURS.values())
    assert figures.colour("dm:4") == figures.colour("dm") != figures.colour("vdsd:mtt")


def frames_of(shown):
    with Image.open(io.BytesIO(shown.data)) as image:
        times = []
        for i in range(image.n_frames):
            image.seek(i)
            times.append((np.asarray(image.convert("RGB")), image.info["duration"]))
    return times


def test_an_animation_shows_every_pixel_of_every_frame():
    videos = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6, 3), dtype=np.uint8)
    frames = frames_of(figures.animation(videos, columns=2, zoom=3, milliseconds=70))
    assert len(frames) == 4
    for t, (frame, duration) in enumerate(frames):
        assert frame.shape == (2 * (15 + 6), 2 * (18 + 6), 3) and duration == 70
        for clip, (row, column) in zip(videos, [(0, 0), (0, 1), (1, 0)]):
            cell = frame[21 * row + 3 : 21 * row + 18, 24 * column + 3 : 24 * column + 21]
            assert np.array_equal(cell[1::3, 1::3], clip[t])
        assert (frame[21:, 24:] == 255).all()  # the place that no clip fills


def test_titles_stand_above_the_clips_and_leave_them_alone(tmp_path):
    videos = np.full((2, 2, 8, 40, 3), 9, np.uint8)
    videos[:, 1] = 90
    shown = figures.animation(videos, columns=2, zoom=1, titles=["Disc, L = 1", ""], path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == shown.data
    for frame, level in zip((frame for frame, _ in frames_of(shown)), (9, 90)):
        band = frame[: figures.TITLE]
        assert band[:, :42].min() < 100 and band[:, 70:].min() == 255
        assert (frame[figures.TITLE + 1 : -1, 1:41] == level).all()


def test_strips_keep_frames_apart():
    videos = np.zeros((1, 3, 4, 4, 3), np.uint8)
    (image,) = figures.strips(videos, ["a"]).axes[0].get_images()
    assert np.asarray(image.get_array())[0, :, 0].tolist() == ([0] * 4 + [255]) * 3


def test_a_feature_map_has_a_dot_for_each_class_of_each_set():
    random = np.random.default_rng(0)
    real, means = random.normal(size=(60, 2)), np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])
    sets = {"random": means + 0.1, "david": means - 0.1}
    figure = figures.feature_map(real, means, ["a", "b", "c"], sets)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["Real clips and their class means", "Random", "DAViD"]
    for axis, points in zip(panels, [means, *sets.values()]):
        np.testing.assert_allclose(axis.collections[-1].get_offsets(), points)
    assert [text.get_text() for text in panels[0].texts] == ["a", "b", "c"]


def heights(figure) -> list[list[float]]:
    """Those of the bars, label by label."""
    drawn = [own for own in figure.axes[0].containers if hasattr(own, "patches")]
    return [[bar.get_height() for bar in bars] for bars in drawn]


def labels(axis) -> list[str]:
    """The texts under the x axis."""
    return [tick.get_text() for tick in axis.get_xticklabels()]


def named(figure) -> list[str]:
    """What the legend explains; nothing without one."""
    return [text.get_text() for own in figure.legends for text in own.get_texts()]


def test_counts_names_few_classes_and_sorts_many():
    table = pd.DataFrame({"train": [1, 5, 3], "test": [2, 0, 2], "missing": [9, 9, 9]}, ["A", "B", "C"])
    figure = figures.counts(table)
    assert heights(figure) == [[1, 5, 3], [2, 0, 2]]
    assert labels(figure.axes[0]) == ["A", "B", "C"] and named(figure) == ["training", "test"]
    figure = figures.counts(table, most=2)
    assert heights(figure) == [[5, 3, 1], [0, 2, 2]] and not figure.axes[0].get_xticklabels()
    assert figure.axes[0].get_xlabel() == "3 classes, by size"


def test_lengths_counts_every_video_once_even_if_all_are_of_one_length():
    for frames in ({"train": np.full(6, 40.0), "test": np.full(2, 40.0)}, {"train": np.array([1.0, 29.0, 621.0])}):
        figure = figures.lengths(frames, {"F": 8})
        assert all(bar.get_width() >= 1 for bars in figure.axes[0].containers for bar in bars)
        tops = np.array([[bar.get_y() + bar.get_height() for bar in bars] for bars in figure.axes[0].containers])
        assert tops[-1].sum() == sum(map(len, frames.values()))


CLASSES = ["Disc", "Grow", "MoveUp"]
KIND = {"Disc": "appearance", "Grow": "motion", "MoveUp": "motion"}
DELTA = pd.DataFrame({"delta": [0.0, 0.6, 0.3], "error": [0.1, np.nan, 0.1]}, index=CLASSES)


def test_bars_are_means_and_deviations_of_the_seeds():
    figure = figures.by_class({"random": [[1, 4], [3, 8]], "dm": [[5, 6]]}, ["a", "b"], "d")
    assert heights(figure) == [[2, 6], [5, 6]] and labels(figure.axes[0]) == ["a", "b"]
    several, one = [own.errorbar for own in figure.axes[0].containers if hasattr(own, "patches")]
    low, high = several.lines[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(8**0.5)
    assert not any(len(ends) for ends in one.lines[2][0].get_segments())  # one seed has no deviation


def test_accuracies_name_methods_and_their_ipc_where_there_are_several():
    table = pd.DataFrame({"method": ["full", "dm", "dm"], "ipc": [0, 1, 5], "mean": [0.9, 0.2, 0.4], "std": [0.0] * 3})
    figure = figures.accuracies({"motions": table}, chance=0.1)
    assert heights(figure) == [pytest.approx([90, 20, 40])] and not named(figure)
    assert labels(figure.axes[0]) == ["Full data", "DM, IPC 1", "DM, IPC 5"]
    both = figures.accuracies({"appearance": table[1:2], "motion": table[2:]}, chance=0.1)
    assert heights(both) == [[20], [40]] and named(both) == ["appearance", "motion"]
    assert labels(both.axes[0]) == ["DM"]


def test_rows_of_datasets_lie_in_their_order():
    index = pd.MultiIndex.from_tuples([("motions", "DM"), ("motions", "Mean"), ("ucf12", "DM")])
    table = pd.DataFrame({"mean": [30.0, 20.0, 10.0], "std": [1.0, 2.0, np.nan]}, index)
    first, second = figures.by_dataset(table, ["motions", "ucf12"], ["Mean", "DM"], ["DM"]).axes
    assert [bar.get_width() for bar in first.patches] == [20, 30] and second.patches[1].get_width() == 10
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["Mean", "DM"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first on top


def test_deltas_are_ordered_and_in_points():
    figure = figures.deltas({"test set": DELTA, "held-out groups": DELTA}, KIND)
    assert labels(figure.axes[0]) == ["Disc", "MoveUp", "Grow"]
    points = [dots.get_offsets() for dots in figure.axes[0].collections if len(dots.get_offsets()) == 3]
    assert [list(own[:, 1]) for own in points] == [pytest.approx([0, 30, 60])] * 2
    assert named(figure) == ["test set", "held-out groups", "appearance classes", "motion classes"]


def test_accuracy_against_delta():
    accuracy = pd.DataFrame(
        {"method": m, "ipc": 1, "seed": s, "class": c, "accuracy": 0.2 * k + 0.1 * s + (m == "david") * 0.1}
        for m in ("dm:4", "david")
        for s in (0, 1)
        for k, c in enumerate(CLASSES)
    )
    figure = figures.against_delta(accuracy, DELTA)
    (axis,) = figure.axes
    dots = axis.collections[1].get_offsets()
    assert np.allclose(dots[dots[:, 0].argsort()], [[0, 15], [30, 55], [60, 35]])  # means over two seeds
    assert [line.get_label() for line in axis.lines] == named(figure) == ["DM (L = 4)", "DAViD"]
    assert axis.lines[0].get_color() == COLOURS["dm"] and axis.lines[0].get_xdata().tolist() == [0, 60]


@pytest.mark.parametrize(("delta", "places"), [(None, [0, 1, 2]), (DELTA["delta"], [0, 60, 30])])
def test_policies_beside_each_other_or_along_delta(delta, places):
    axis = figures.policies([[1, 8, 4], [1, 8, 8]], CLASSES, (1, 2, 4, 8), KIND, delta).axes[0]
    dots = sorted(tuple(point) for dot in axis.collections for point in dot.get_offsets().tolist())
    assert dots == sorted([(places[0], 1), (places[1], 8), (places[2], 4), (places[2], 8)])
    assert max(dot.get_sizes()[0] for dot in axis.collections) == 160


def test_histograms_count_every_draw():
    rows = [("Disc", length, 0.1 * length + 0.01 * k) for length in (1, 2) for k in range(5)]
    figure = figures.reward_histograms(pd.DataFrame(rows, columns=["class", "L", "reward"]), ["Disc"])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 10
    assert named(figure) == ["L = 1", "L = 2"]


def test_cells_have_their_numbers():
    figure = figures.q_tables({1: torch.zeros(2, 2), 5: torch.tensor([[0.0, 0.25], [0.5, 1.0]])}, (1, 2))
    assert [axis.get_title(loc) for axis in figure.axes for loc in ("center", "left")] == ["after 1", "", "after 5", ""]
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.00", "0.25", "0.50", "1.00"]
    axis = figures.partition_diagram(4, [4, 2]).axes[1]
    assert [text.get_text() for text in axis.texts] == list("11223344")  # Eq. 4: two segments, each frame twice


@pytest.mark.parametrize(("mark", "lines"), [(2, 1), (9, 0), (None, 0)])
def test_curves_are_means_of_samples_and_marked_where_they_reach(mark, lines):
    samples = pd.DataFrame({"seed 0": [1.0, 2.0, 3.0], "seed 1": [3.0, 4.0, 7.0]}, index=[0, 1, 2])
    one = {"DM": samples, "MTT": samples[["seed 0"]] + 1}
    figure = figures.curves({"a": one, "b": {"DM": samples}}, {"DM": "k", "MTT": "r"}, "loss", mark)
    first, second = figure.axes
    assert first.lines[0].get_ydata().tolist() == [2, 3, 5] and first.lines[1].get_ydata().tolist() == [2, 3, 4]
    band = first.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1, 7)
    assert len(first.lines) == 2 + lines and len(second.lines) == 1 + lines
    assert named(figure) == ["DM", "MTT"] and first.get_ylim()[0] == 0


def test_steps_that_were_tried():
    rows = [("random", "motions", "real", 0.5, 3.0), ("trained", "ucf12", "mean", 2.0, -1.0)]
    moves = pd.DataFrame(rows, columns=["kind", "dataset", "start", "ratio", "gain"])
    figure = figures.tried_steps(moves)
    assert [axis.collections[0].get_offsets().tolist() for axis in figure.axes] == [[[0.5, 3.0]], [[2.0, -1.0]]]
    assert named(figure) == ["from real", "from mean", "motions", "ucf12"]
