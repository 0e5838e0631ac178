"""From a video to a clip: which frames, as VDSD takes them, exactly those, resized and cropped."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from david.data.images import image_names, read_images
from david.data.video import DecodeError as DecodeError
from david.data.video import Survey, packets, read


def frame_indices(n: int, frames: int, stride: int, start: float | str = "centre") -> np.ndarray:
    """Which of a video's `n` frames make its clip, as in VDSD: int64 (frames,), not decreasing, in [0, n).

    Every `stride`-th frame; every (n // frames)-th where the video is too short for that; and where it has
    fewer than `frames`, each is repeated about equally often. `start` places the window: "centre", or u in
    [0, 1), which is uniform over the possible places for a uniform u.
    """
    if n < 1 or frames < 1 or stride < 1:
        raise ValueError(f"n={n}, frames={frames}, stride={stride}: each must be at least 1")
    if start != "centre" and not 0 <= float(start) < 1:
        raise ValueError(f"start={start!r}: 'centre' or a number in [0, 1)")
    if n < frames:
        return np.arange(frames, dtype=np.int64) * n // frames
    step = stride if n >= frames * stride else n // frames
    slack = n - 1 - (frames - 1) * step  # the last possible first frame
    first = slack // 2 if start == "centre" else int(float(start) * (slack + 1))
    return first + step * np.arange(frames, dtype=np.int64)


def scaled_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) before the centre crop to `size`: 160x120 for 112, as in VDSD, whatever the source.

    A square source becomes size x size directly: its borders were cut, or its sides squeezed, before it came
    here.
    """
    return (size, size) if width == height else (round(160 * size / 112), round(120 * size / 112))


def decode_clip(
    path: str | Path, frames: int, stride: int, size: int, start: float | str = "centre"
) -> tuple[np.ndarray, int]:
    """One clip of the video `path`: (uint8 (frames, size, size, 3) RGB, number of frames of the whole video).

    `path` may be a frame folder. DecodeError where it is absent, empty, not a video, or damaged in any way that shows.
    """
    return read_chosen(path, size, lambda n: frame_indices(n, frames, stride, start))


def decode_frames(path: str | Path, size: int, most: int = 256) -> np.ndarray:
    """The whole video `path`: uint8 (min(n, most), size, size, 3) RGB, in order.

    Of a video of more than `most` frames, the middle frame of each of `most` equal parts: that bounds memory.
    DecodeError as `decode_clip`.
    """

    def middles(n: int) -> np.ndarray:
        count = min(n, most)
        return (2 * np.arange(count, dtype=np.int64) + 1) * n // (2 * count)  # every frame if count = n

    return read_chosen(path, size, middles)[0]


def read_chosen(path: str | Path, size: int, choose: Callable[[int], np.ndarray]) -> tuple[np.ndarray, int]:
    """(the frames `choose(n)` of a video or frame folder, uint8 (k, size, size, 3) RGB; n, the number of its frames).

    What is chosen ascends, and may repeat.
    """
    if os.path.isdir(path):
        names = image_names(path)
        wanted, repeats = np.unique(choose(len(names)), return_inverse=True)
        return resize_and_crop(read_images(path, [names[i] for i in wanted]), size)[repeats], len(names)
    n = packets(path)
    while True:  # as a rule once: how many frames there are is known when all are decoded, but most packets are one
        found, (wanted, repeats) = Survey(), np.unique(choose(n), return_inverse=True)
        clip = resize_and_crop(read(path, found, wanted.tolist()), size)
        if len(found.times) == n:
            return clip[repeats], n
        n = len(found.times)


def resize_and_crop(pictures: Iterable[np.ndarray], size: int) -> np.ndarray:
    """uint8 (h, w, 3) each -> (F, size, size, 3): bicubic to `scaled_size`, then the centre, as in VDSD."""
    scaler, clip = VideoReformatter(), []
    for picture in pictures:
        width, height = scaled_size(picture.shape[1], picture.shape[0], size)
        if picture.shape[:2] != (height, width):
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="rgb24")  # no copy
            picture = scaler.reformat(frame, width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
        top, left = (height - size) // 2, (width - size) // 2
        clip.append(picture[top : top + size, left : left + size])
    return np.array(clip, np.uint8).reshape(-1, size, size, 3)
