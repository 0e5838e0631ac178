"""Write distilled sets for other programs: an archive of 8-bit pixels, or a file for each training clip."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

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


def training_clips(data: StoredSet) -> Iterator[tuple[int, int, np.ndarray]]:
    """Label, number and pixels, uint8 (F, H, W, 3), of every training clip, in the order of ``data.numbers()``."""
    for labels, picks in zip(*(numbers.split(CHUNK) for numbers in data.numbers())):
        clips = denormalise(data.clips(labels, picks)).cpu().numpy()
        yield from zip(labels.tolist(), picks.tolist(), clips)


def class_folders(data: StoredSet, folder: str | Path) -> list[Path]:
    """The folders of the classes; ValueError: a class whose name is no name of a folder, or two of one name."""
    for name in data.classes:
        if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"} or data.classes.count(name) > 1:
            raise ValueError(f"class {name!r} cannot be a folder of its own in {folder}; give data.classes other names")
    return [Path(folder) / name for name in data.classes]


def to_videos(data: StoredSet, folder: str | Path, rate: int = 8, crf: int = 23) -> list[Path]:
    """One file ``folder/<class>/clip000.mp4`` for each training clip of a set of any kind, as a student gets it.

    PyAV reads them at every size; decord 0.6 cannot read videos of 48 pixels' width.

    Args:
        rate, crf: see ``write_video``.

    Returns:
        the files, in the order of ``data.numbers()``.

    Raises:
        ValueError: as of ``class_folders``.
    """
    paths, places = [], class_folders(data, folder)
    for label, pick, clip in training_clips(data):
        paths.append(write_video(make_folder(places[label]) / f"clip{pick:03d}.mp4", clip, rate, crf))
    return paths


def to_images(data: StoredSet, folder: str | Path) -> list[Path]:
    """A folder ``folder/<class>/clip000`` of PNG files ``img_00001.png`` for each training clip, without loss."""
    paths, places = [], class_folders(data, folder)
    for label, pick, clip in training_clips(data):
        paths.append(make_folder(places[label] / f"clip{pick:03d}"))
        for number, frame in enumerate(clip, 1):
            with atomic(paths[-1] / f"img_{number:05d}.png") as temporary:
                Image.fromarray(frame).save(temporary, format="PNG")
    return paths


def to_webdataset(data: StoredSet, path: str | Path) -> Path:
    """One tar file of ``000000.npy``, uint8 (F, H, W, 3), and ``000000.cls`` for each training clip, without loss."""
    with atomic(path) as temporary, tarfile.open(temporary, "w") as tar:
        for number, (label, _, clip) in enumerate(training_clips(data)):
            pixels = io.BytesIO()
            np.save(pixels, clip)
            for ending, content in (("npy", pixels.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return Path(path)


def export(data: StoredSet, folder: str | Path, format: str = "mp4") -> dict[str, float]:
    """Write a set for other programs' readers, into ``folder``.

    Args:
        format: "mp4", a video for each training clip, which loses a little; or without loss "png", a folder of images
            for each; "webdataset", ``clips.tar`` of all; or "npz", ``set.npz`` of the stored videos.

    Returns:
        "files", how many; and "error", the mean absolute difference of the pixels that were written, of 255.

    Raises:
        ValueError: unknown format; or as of its function.
    """
    if format == "mp4":
        paths = to_videos(data, folder)
        written = (np.abs(read_video(p).astype(int) - c).mean() for p, (*_, c) in zip(paths, training_clips(data)))
        return {"files": len(paths), "error": float(np.mean(list(written)))}
    if format == "png":
        return {"files": len(to_images(data, folder)) * data.frames, "error": 0.0}
    if format not in ("npz", "webdataset"):
        raise ValueError(f"format={format!r}: choose 'mp4', 'png', 'npz' or 'webdataset'")
    make_folder(folder)
    to_npz(data, Path(folder) / "set.npz") if format == "npz" else to_webdataset(data, Path(folder) / "clips.tar")
    return {"files": 1, "error": 0.0}


def animation(data: StoredSet, columns: int = 6, rate: int = 4) -> bytes:
    """A GIF of the first stored video of every class, side by side.

    Args:
        columns: classes in a row.
        rate: frames a second.
    """
    videos = denormalise(data.videos[:, 0]).cpu().numpy()
    videos = np.concatenate([videos, np.zeros((-len(videos) % columns, *videos.shape[1:]), np.uint8)])
    rows = videos.reshape(-1, columns, *videos.shape[1:])
    frames = [
        Image.fromarray(np.concatenate([np.concatenate(row[:, t], 1) for row in rows])) for t in range(data.frames)
    ]
    content, rest = io.BytesIO(), {"save_all": True, "duration": 1000 // rate, "loop": 0}
    frames[0].save(content, format="GIF", append_images=frames[1:], **rest)
    return content.getvalue()
