"""Clips: F frames of every video of a split, decoded exactly once into a memory map, served as batches."""

import functools
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from david.data.cache import decoded, sampling_of
from david.data.readers import Dataset, Video, base, digest

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, of RGB in [0, 1], as in VDSD
STD = (0.229, 0.224, 0.225)
# Clips that go through the network at once: bounds memory whatever the number of classes and IPC are.
CHUNK = 128
# Of memory, for every pixel of a clip that goes through C3D at width 1 and back, in float32: the clip, what is kept for
# the way back, and the gradient of the first layer, which is the largest.
BYTES_A_PIXEL = 200


@functools.cache
def scale_and_shift(device: torch.device, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """1 / (255 STD) and -MEAN / STD, repeated for a row of `width` pixels: float32 (width * 3,) each."""
    mean, std = (torch.tensor(c).repeat(width) for c in (MEAN, STD))
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def normalise(videos: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) in 0-255 -> float32 (..., 3, H, W) less ImageNet's mean, over its deviation.

    The result is a permuted view of memory that is contiguous as (..., H, W, 3): channels last.
    """
    scale, shift = scale_and_shift(videos.device, videos.shape[-2])
    # Over whole rows, as an inner loop over 3 channels is ten times slower on a CPU. A GPU reads bytes and writes
    # floats in one kernel; a CPU would make a float copy for itself, so let that be the result.
    rows, out = videos.flatten(-2), None
    if rows.device.type == "cpu":
        rows = out = rows.to(torch.float32, copy=True)
    return torch.addcmul(shift, rows, scale, out=out).view(videos.shape).movedim(-1, -3)


def denormalise(videos: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) as `normalise` makes it -> uint8 (..., H, W, 3), clamped to 0-255."""
    mean, std = (torch.tensor(c, device=videos.device) for c in (MEAN, STD))
    pixels = (videos.detach().movedim(-3, -1).float() * std + mean) * 255
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


@functools.cache
def pixel_range(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """What black and white are once normalised: float32 (3, 1, 1) each."""
    mean, std = (torch.tensor(c, device=device).view(3, 1, 1) for c in (MEAN, STD))
    return (0 - mean) / std, (1 - mean) / std


@torch.no_grad()
def keep_in_range(videos: torch.Tensor) -> torch.Tensor:
    """Clamp float (..., 3, H, W), in place, to what 8 bits can show; NaN stays NaN."""
    low, high = pixel_range(videos.device)
    return torch.clamp(videos, low, high, out=videos)


def rounded(videos: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) -> the nearest pixels that 8 bits can show, normalised again, contiguous."""
    return normalise(denormalise(videos)).contiguous()


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor on `device`, without waiting for what the device is doing."""
    pinned = tensor.pin_memory() if tensor.device.type == "cpu" and device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


@dataclass(frozen=True)
class Clips:
    """The clips of one split, on one device.

    videos: uint8 (S, F, H, W, 3), 0-255, a memory map or a tensor. rows: int64 (N,); clip i is
    `videos[rows[i]]`, so that a subset shares its parent's videos. labels: int64 (N,), indices into
    `classes`. groups, names: str (N,). flip: whether a mirrored clip keeps its label. fingerprint: stands
    for the clips and how they were sampled, the same on every machine. paths: str (N,), the video files, which
    may lie elsewhere on another machine; None for clips made in memory.
    """

    videos: np.ndarray | torch.Tensor
    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]
    groups: np.ndarray
    names: np.ndarray
    flip: bool
    fingerprint: str
    paths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def frames(self) -> int:
        """F, the number of frames of a clip."""
        return self.videos.shape[1]

    @property
    def size(self) -> int:
        """H = W, in pixels."""
        return self.videos.shape[2]

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.videos.device if torch.is_tensor(self.videos) else torch.device("cpu")

    @property
    def at_once(self) -> int:
        """How many clips go through the network at once: CHUNK, or half of it, and so on, on a small GPU.

        In distribution matching they take at most a quarter of its memory. All of its memory decides and not what is
        free at the moment, so that the same machine always does the same.
        """
        count = CHUNK
        if self.device.type == "cuda":
            room = torch.cuda.get_device_properties(self.device).total_memory // 4
            while count > 1 and count * self.frames * self.size**2 * BYTES_A_PIXEL > room:
                count //= 2
        return count

    def subset(self, chosen) -> "Clips":
        """The clips at `chosen` (positions, or a mask (N,)), in that order. No video is copied."""
        chosen = np.asarray(chosen)
        if chosen.dtype != bool:
            chosen = chosen.astype(np.int64)
        rows = self.rows[chosen]
        return replace(
            self,
            rows=rows,
            labels=self.labels[chosen],
            groups=self.groups[chosen],
            names=self.names[chosen],
            fingerprint=digest(self.fingerprint, rows.tolist()),
            paths=None if self.paths is None else self.paths[chosen],
        )

    def by_class(self) -> list[np.ndarray]:
        """The positions of each class's clips: one int64 array a class, in the order of `classes`."""
        return [np.flatnonzero(self.labels == label) for label in range(len(self.classes))]

    def to(self, device: torch.device | str) -> "Clips":
        """The same clips, resident on `device` as uint8. On the CPU the memory map is wrapped, not copied."""
        device = torch.device(device)
        if torch.is_tensor(self.videos):
            return replace(self, videos=self.videos.to(device))
        if device.type == "cpu":
            return replace(self, videos=torch.from_numpy(self.videos))
        # Only the rows in use, and in pieces, so that the host never holds a second copy of the dataset.
        resident = torch.empty((len(self), *self.videos.shape[1:]), dtype=torch.uint8, device=device)
        for i in range(0, len(self), 256):
            resident[i : i + 256] = torch.from_numpy(self.videos[self.rows[i : i + 256]])
        return replace(self, videos=resident, rows=np.arange(len(self)))

    def batch(self, indices, *, generator: torch.Generator | None = None, flip: bool = False) -> torch.Tensor:
        """The clips at `indices` (B,), normalised: float32 (B, F, 3, H, W), in memory channels last.

        flip: mirror each clip with probability 1/2, drawn from `generator`, if the dataset allows it.
        """
        rows = self.rows[np.asarray(indices)]
        if torch.is_tensor(self.videos):
            # Whole rows are copied; indexing with [...] would go byte by byte on a CPU, at a twentieth of the speed.
            videos = self.videos.index_select(0, send(torch.from_numpy(rows), self.device))
        else:
            videos = torch.from_numpy(self.videos[rows])
        if flip and self.flip:
            where = generator.device if generator else "cpu"
            coins = torch.rand(len(videos), generator=generator, device=where)
            mirrored = send((coins < 0.5).nonzero()[:, 0], self.device)
            videos[mirrored] = videos.index_select(0, mirrored).flip(3)
        return normalise(videos)


def file_size(dataset: Dataset, video: Video) -> int | None:
    """Bytes of a video's file; None where they do not matter: of a frame folder, and of a video that david has made,
    as two versions of an encoder make it of different sizes."""
    if base(dataset.name) == "motions" or os.path.isdir(video.path):
        return None
    return os.stat(video.path).st_size


def fingerprint(dataset: Dataset, split: str, sampling: dict, without: Iterable[str] = ()) -> str:
    """What stands for the clips of a split, the same on every machine: how they are sampled, of which files.

    A file counts by its name and its `file_size`. without: the names of videos that are left out.
    """
    without = set(without)
    kept = [video for video in getattr(dataset, split) if video.name not in without]
    sizes = [file_size(dataset, video) for video in kept]
    sized = [sizes] if any(size is not None for size in sizes) else []
    return digest(dataset.fingerprint, split, sampling, [video.name for video in kept], *sized)


def open_clips(
    dataset: Dataset,
    split: str,
    *,
    frames: int,
    stride: int,
    size: int,
    seed: int = 0,
    workers: int | None = None,
    timeout: float = 60.0,
    cache: str | Path | None = None,
) -> Clips:
    """One clip of every video of `dataset`'s split "train" or "test", decoded once, then read from the cache.

    frames, stride: see `decode.frame_indices`. size: the side in pixels. seed: a training clip's window is
    drawn from it and the video's name, once and for all; test clips are centred. workers: decoder processes
    (default: one a core). timeout: seconds that one video may take. cache: a folder instead of
    `files.cache_folder()`.

    May be interrupted and called again: only the clips in flight are lost. Videos that cannot be decoded are
    left out, named in one warning and in the report; a class left empty by that is a ValueError. OSError
    where the cache folder is full, PermissionError where it cannot be written.
    """
    sampling = sampling_of(split, frames=frames, stride=stride, size=size, seed=seed)
    folder, skipped = decoded(dataset, split, sampling, workers=workers, timeout=timeout, cache=cache)
    videos = getattr(dataset, split)
    bad = {video["row"] for video in skipped}
    kept = [row for row in range(len(videos)) if row not in bad]
    if bad:
        first = "; ".join(f"{video['name']}: {video['reason']}" for video in skipped[:3])
        more = "; ..." if len(skipped) > 3 else ""
        what = f"{len(skipped)} of {len(videos)} videos of {dataset.name} {split} left out ({first}{more})"
        warnings.warn(f"{what}; all of them: {folder / 'report.txt'}", stacklevel=2)
    labels = np.array([videos[row].label for row in kept], dtype=np.int64)
    empty = [name for label, name in enumerate(dataset.classes) if label not in labels]
    if empty:
        raise ValueError(
            f"no {split} clip of class {', '.join(empty[:5])} of {dataset.name} could be decoded: see "
            f"{folder / 'report.txt'}, then mend the videos or take the class out of the lists"
        )
    # Mode "c" is read-only for the file but not for the memory, about which torch would warn.
    shape = (len(videos), frames, size, size, 3)
    pixels = np.memmap(folder / "clips.u8", dtype=np.uint8, mode="c", shape=shape)
    return Clips(
        videos=pixels,
        rows=np.array(kept, dtype=np.int64),
        labels=labels,
        classes=list(dataset.classes),
        groups=np.array([videos[row].group for row in kept]),
        names=np.array([videos[row].name for row in kept]),
        flip=dataset.flip,
        fingerprint=fingerprint(dataset, split, sampling, without={videos[row].name for row in bad}),
        paths=np.array([str(videos[row].path) for row in kept]),
    )
