"""Distilled sets for other programs: an archive of 8-bit pixels, or a video file for each training clip."""

from pathlib import Path

import av
import numpy as np

from david.data.clips import CHUNK
from david.sets import DistilledSet, StoredSet
from david.support.files import atomic, make_folder
from david.support.pixels import denormalise


def write_video(path: str | Path, video: np.ndarray, rate: int = 8, crf: int = 23) -> Path:
    """Write uint8 (F, H, W, 3) as H.264 into the MP4 file ``path``.

    Args:
        rate: frames a second.
        crf: x264's quality, from 0, lossless, to 51; 23 is its default. Lossless video is RGB, exact, and known to
            few players; all others take 4:2:0, which needs even sides.

    Raises:
        ValueError: odd sides, where crf is not 0.
    """
    height, width = video.shape[1:3]
    if crf and (height % 2 or width % 2):
        raise ValueError(f"{path}: H.264 takes even sides, not {width} x {height}; with crf=0 it takes any")
    with atomic(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264" if crf else "libx264rgb", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if crf else "rgb24"
        stream.options = {"crf": str(crf), "threads": "1"}
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


def read_video(path: str | Path) -> np.ndarray:
    """Every frame of a video, at its own size: uint8 (F, H, W, 3). For short videos: all of it is held in memory."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def to_npz(data: DistilledSet, path: str | Path) -> Path:
    """The stored videos as 8-bit pixels, compressed without loss, for any program that reads NumPy's archives.

    The archive holds videos, uint8 (M, I, F, H, W, 3); frames_per_segment, int64 (M,), by which Eq. 4 makes training
    clips of them; and classes, M names.

    Raises:
        ValueError: a set that does not store videos.
    """
    if not isinstance(data, DistilledSet):
        raise ValueError(f"a {type(data).__name__} does not store videos; write its clips with to_videos")
    videos, lengths = denormalise(data.videos).cpu().numpy(), data.policy.numpy()
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, videos=videos, frames_per_segment=lengths, classes=np.array(data.classes))
    return Path(path)


def to_videos(data: StoredSet, folder: str | Path, rate: int = 8, crf: int = 23) -> list[Path]:
    """One file ``folder/<class>/clip000.mp4`` for each training clip of a set of any kind, as a student gets it.

    PyAV reads them at every size; decord 0.6 cannot read videos of 48 pixels' width.

    Args:
        rate, crf: see ``write_video``.

    Returns:
        the files, in the order of ``data.numbers()``.

    Raises:
        ValueError: a class whose name is no name of a folder, or two of one name.
    """
    paths = []
    for name in data.classes:
        if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"} or data.classes.count(name) > 1:
            raise ValueError(f"class {name!r} cannot be a folder of its own in {folder}; give data.classes other names")
    for labels, picks in zip(*(numbers.split(CHUNK) for numbers in data.numbers())):
        clips = denormalise(data.clips(labels, picks)).cpu().numpy()
        for label, pick, clip in zip(labels.tolist(), picks.tolist(), clips):
            place = make_folder(Path(folder) / data.classes[label])
            paths.append(write_video(place / f"clip{pick:03d}.mp4", clip, rate, crf))
    return paths
