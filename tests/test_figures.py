"""Figures draw what they are given: exact pixels in motion, one colour a method, dots where the numbers are."""

import io

import numpy as np
import pandas as pd
import pytest
from davidbook import figures
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


def test_by_class_shows_mean_and_deviation_of_the_seeds():
    figure = figures.by_class({"random": [[1, 4], [3, 8]], "dm": [[5, 6]]}, ["a", "b"], "d")
    several, one = figure.axes[0].containers
    np.testing.assert_allclose(several.lines[0].get_ydata(), [2, 6])
    low, high = several.lines[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(8**0.5) and not one.lines[2]


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
