"""Clips: F frames of every video of a split, decoded exactly once into a memory map, served as batches."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from david.data.cache import decoded, sampling_of
from david.data.identity import fingerprint
from david.data.readers import Dataset, digest
from david.support.pixels import BYTES_A_PIXEL, CHUNK, normalise, send


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


def some(skipped: list[dict]) -> str:
    """The first three of the videos left out, with their reasons."""
    first = "; ".join(f"{video['name']}: {video['reason']}" for video in skipped[:3])
    return first + ("; ..." if len(skipped) > 3 else "")


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
    damaged_only: bool = False,
) -> Clips:
    """One clip of every video of `dataset`'s split "train" or "test", decoded once, then read from the cache.

    frames, stride: see `decode.frame_indices`. size: the side in pixels. seed: a training clip's window is
    drawn from it and the video's name, once and for all; test clips are centred. workers: decoder processes
    (default: one a core). timeout: seconds that one video may take. cache: a folder instead of
    `files.cache_folder()`. damaged_only: leave out what is damaged and nothing else.

    May be interrupted and called again: only the clips in flight are lost. Videos that cannot be decoded are
    left out, named in one warning and in the report: those that are damaged for good, all others (too slow, may not be
    read, their disk is away) until the next call, which tries them again. A class left empty by that is a ValueError,
    and so is, with `damaged_only`, any video that is not damaged. OSError where the cache folder is full,
    PermissionError where it cannot be written.
    """
    sampling = sampling_of(split, frames=frames, stride=stride, size=size, seed=seed)
    folder, skipped = decoded(dataset, split, sampling, workers=workers, timeout=timeout, cache=cache)
    videos = getattr(dataset, split)
    bad = {video["row"] for video in skipped}
    kept = [row for row in range(len(videos)) if row not in bad]
    labels = np.array([videos[row].label for row in kept], dtype=np.int64)
    empty = {label: name for label, name in enumerate(dataset.classes) if label not in labels}
    classes = f" of class {', '.join(list(empty.values())[:5])}" if empty else ""
    passing = [video for video in skipped if not video["damaged"]]
    if bad:
        what = f"{len(skipped)} of {len(videos)} videos of {dataset.name} {split} left out ({some(skipped)})"
        what += f", {len(passing)} of them only until the next call" if passing else ""
        warnings.warn(f"{what}; all of them: {folder / 'report.txt'}", stacklevel=2)
    if passing and (damaged_only or any(videos[video["row"]].label in empty for video in passing)):
        raise ValueError(
            f"{len(passing)} of {len(videos)} videos of {dataset.name} {split} could not be read this time, which says "
            f"nothing of the files ({some(passing)}){', and no others' + classes + ' are there' if empty else ''}: run "
            f"again to try them once more, with more time for each (python -m david cache --timeout), or take them out"
        )
    if empty:
        raise ValueError(
            f"no {split} clip{classes} of {dataset.name} could be decoded, as all are damaged: see "
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
