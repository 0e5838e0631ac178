"""Which frames make a clip, and how they are resized and cropped."""

import numpy as np
import pytest
from conftest import write_video
from hypothesis import given, settings
from hypothesis import strategies as st

from david.data import decode
from david.data.decode import decode_clip, frame_indices, scaled_size


@pytest.mark.parametrize(
    ("n", "frames", "stride", "start", "expected"),
    [
        (64, 16, 4, 0.0, range(0, 61, 4)),
        (64, 16, 4, 0.99, range(3, 64, 4)),  # the last frame can be chosen
        (64, 16, 4, "centre", range(1, 62, 4)),
        (63, 16, 4, "centre", range(8, 54, 3)),  # too short for stride 4: 63 // 16 = 3
        (40, 8, 4, "centre", range(5, 34, 4)),
        (16, 16, 4, 0.5, range(16)),
        (4, 8, 4, "centre", [0, 0, 1, 1, 2, 2, 3, 3]),  # fewer frames than wanted: repeated in place
        (3, 8, 4, 0.7, [0, 0, 0, 1, 1, 1, 2, 2]),
        (1, 4, 1, 0.0, [0, 0, 0, 0]),
        (9, 1, 4, "centre", [4]),
    ],
)
def test_frame_indices_by_hand(n, frames, stride, start, expected):
    indices = frame_indices(n, frames, stride, start)
    assert indices.dtype == np.int64
    assert indices.tolist() == list(expected)


@settings(deadline=None)
@given(
    st.integers(1, 2000),
    st.integers(1, 64),
    st.integers(1, 16),
    st.floats(0, 1, exclude_max=True) | st.just("centre"),
)
def test_frame_indices_always(n, frames, stride, start):
    indices = frame_indices(n, frames, stride, start)
    steps = np.diff(indices)
    assert len(indices) == frames and 0 <= indices[0] and indices[-1] < n
    if n >= frames:
        assert (steps == (stride if n >= frames * stride else n // frames)).all()
    else:
        assert set(steps) <= {0, 1} and set(indices) == set(range(n))


def test_window_starts_are_uniform_over_all_possible_places():
    firsts = [frame_indices(20, 4, 4, u)[0] for u in (np.arange(800) + 0.5) / 800]
    assert np.bincount(firsts).tolist() == [100] * 8  # 0 to 20 - 1 - 3 * 4


@pytest.mark.parametrize(
    ("n", "frames", "stride", "start"), [(0, 8, 4, "centre"), (9, 0, 4, 0.0), (9, 8, 0, 0.0), (9, 8, 4, 1.0)]
)
def test_frame_indices_refuses(n, frames, stride, start):
    with pytest.raises(ValueError):
        frame_indices(n, frames, stride, start)


def test_scaled_size():
    assert scaled_size(320, 240, 112) == (160, 120)
    assert scaled_size(1920, 1080, 112) == (
        160,
        120,
    )  # the aspect of the source is ignored, as in the earlier work
    assert scaled_size(96, 72, 64) == (91, 69)
    assert scaled_size(112, 112, 64) == (64, 64)


@pytest.mark.parametrize("size", [16, 24, 48, 64, 72, 100, 112, 224])
@pytest.mark.parametrize("shape", [(64, 64), (96, 72), (320, 240)])
def test_resizing_keeps_place_and_channels(size, shape):
    columns, rows = np.meshgrid(np.linspace(20, 220, shape[0]), np.linspace(220, 20, shape[1]))
    picture = np.stack([columns, rows, np.full_like(rows, 99)], -1)
    clip = decode.resize_and_crop(picture[None].round().astype(np.uint8), size)
    assert clip.shape == (1, size, size, 3) and clip.dtype == np.uint8 and clip.flags.c_contiguous
    width, height = scaled_size(*shape, size)
    x, y = (((n - size) // 2 + np.arange(size) + 0.5) / n for n in (width, height))  # where in the source, 0 to 1
    inside = slice(size // 8, -size // 8)  # at the border bicubic has nothing to go by
    expected = [np.interp(x * shape[0] - 0.5, np.arange(shape[0]), columns[0])] * size
    np.testing.assert_allclose(clip[0, inside, inside, 0], np.array(expected)[inside, inside], atol=2)
    expected = [np.interp(y * shape[1] - 0.5, np.arange(shape[1]), rows[:, 0])] * size
    np.testing.assert_allclose(clip[0, inside, inside, 1], np.array(expected).T[inside, inside], atol=2)
    assert (clip[..., 2] == 99).all()


def test_short_and_square_videos(tmp_path):
    clip, n = decode_clip(write_video(tmp_path / "short.avi", 5, width=64, height=64), 16, 4, 48)
    assert clip.shape == (16, 48, 48, 3) and clip.dtype == np.uint8 and n == 5
    assert (clip[0] == clip[3]).all() and (clip[0] != clip[4]).any()  # floor(i * 5 / 16)
