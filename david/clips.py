"""Clips: F frames of every video of a split, decoded exactly once into a memory map, served as batches.

The cache is one folder a split, `<cache>/clips/<dataset>-<split>-<key>/`; the key covers everything that
changes a pixel. It holds `clips.u8` (raw uint8, one row a video), `journal.jsonl` (one line a finished row,
so that an interrupted build goes on where it was), and at the end `report.json` and `report.txt` (what was
left out and why) and `meta.json`, whose presence says that the cache is complete. It can all be made again:
delete it at will.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from david import decode, files
from david.datasets import Dataset, digest
from david.progress import track

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, of RGB in [0, 1]: protocol 2.4
STD = (0.229, 0.224, 0.225)
FORMAT = 2  # of the cache; raise it when the meaning of its files changes


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
    # One kernel, without a float copy of the bytes; over whole rows, as an inner loop over 3 channels is ten
    # times slower on a CPU.
    return torch.addcmul(shift, videos.flatten(-2), scale).view(videos.shape).movedim(-1, -3)


def denormalise(videos: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) as `normalise` makes it -> uint8 (..., H, W, 3), clamped to 0-255."""
    mean, std = (torch.tensor(c, device=videos.device) for c in (MEAN, STD))
    pixels = (videos.detach().movedim(-3, -1).float() * std + mean) * 255
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


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
            videos = self.videos[send(torch.from_numpy(rows), self.device)]
        else:
            videos = torch.from_numpy(self.videos[rows])
        if flip and self.flip:
            where = generator.device if generator else "cpu"
            coins = send(torch.rand(len(videos), generator=generator, device=where), self.device)
            videos = torch.where(coins.view(-1, 1, 1, 1, 1) < 0.5, videos.flip(3), videos)
        return normalise(videos)


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

    frames, stride: the sampling of protocol 2.3. size: the side in pixels. seed: a training clip's window is
    drawn from it and the video's name, once and for all; test clips are centred. workers: decoder processes
    (default: one a core). timeout: seconds that one video may take. cache: a folder instead of
    `files.cache_folder()`.

    May be interrupted and called again: only the clips in flight are lost. Videos that cannot be decoded are
    left out, named in one warning and in the report; a class left empty by that is a ValueError. OSError
    where the cache folder is full, PermissionError where it cannot be written.
    """
    folder, sampling = decoded(dataset, split, frames, stride, size, seed, workers, timeout, cache)
    videos = getattr(dataset, split)
    skipped = files.read_json(folder / "report.json")
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
    names = [videos[row].name for row in kept]
    # Mode "c" is read-only for the file but not for the memory, about which torch would warn.
    shape = (len(videos), frames, size, size, 3)
    pixels = np.memmap(folder / "clips.u8", dtype=np.uint8, mode="c", shape=shape)
    return Clips(
        videos=pixels,
        rows=np.array(kept, dtype=np.int64),
        labels=labels,
        classes=list(dataset.classes),
        groups=np.array([videos[row].group for row in kept]),
        names=np.array(names),
        flip=dataset.flip,
        fingerprint=digest(dataset.fingerprint, split, sampling, names),
        paths=np.array([str(videos[row].path) for row in kept]),
    )


def decoded(
    dataset: Dataset, split: str, frames, stride, size, seed=0, workers=None, timeout=60.0, cache=None
) -> tuple[Path, dict]:
    """(folder of the cached split, built first if it is not whole; what its clips' frames depend on)."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: 'train' or 'test'")
    videos = getattr(dataset, split)
    seed = seed if split == "train" else None  # centred clips do not depend on it
    sampling = {"frames": frames, "stride": stride, "size": size, "seed": seed}
    stats = [os.stat(video.path) for video in videos]
    sources = [(v.name, stat.st_size, stat.st_mtime_ns) for v, stat in zip(videos, stats)]
    key = digest(FORMAT, decoder_version(), sampling, sources)
    folder = Path(cache or files.cache_folder()).expanduser() / "clips" / f"{dataset.name}-{split}-{key}"
    if not (folder / "meta.json").exists():
        files.make_folder(folder)
        with files.locked(folder / "building.lock"):
            if not (folder / "meta.json").exists():  # another process may just have finished it
                build(folder, dataset, split, sampling, workers or os.cpu_count() or 1, timeout)
    return folder, sampling


def decode_report(dataset: Dataset, split: str, **options) -> list[dict]:
    """What decoding found, for each video of the split: {"frames": n of the whole video}, or {"error": why it is out}.

    options: those of `open_clips`. What is not in the cache yet is decoded.
    """
    folder, _ = decoded(dataset, split, **options)
    entries = {}
    for line in (folder / "journal.jsonl").read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # half a line, of a process that was killed
            entries[json.loads(line)["row"]] = json.loads(line)
    return [entries[row] for row in range(len(getattr(dataset, split)))]


def decoder_version() -> str:
    """Names and versions of what decodes (decord; or decord2, where it has no wheel) and resizes (av)."""
    found = []
    for name in ("decord", "decord2", "av"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def window_start(seed: int | None, name: str) -> float | str:
    """Where a video's window starts: u in [0, 1), a hash of seed and name; "centre" without a seed."""
    return "centre" if seed is None else int(digest(seed, name)[:12], 16) / 16**12


def build(folder: Path, dataset: Dataset, split: str, sampling: dict, workers: int, timeout: float) -> None:
    """Decode what the journal of `folder` does not have yet; then write the report, and `meta.json` last."""
    videos = getattr(dataset, split)
    clip_bytes = sampling["frames"] * sampling["size"] ** 2 * 3
    target = folder / "clips.u8"
    with open(target, "ab") as data, open(folder / "journal.jsonl", "ab+") as journal:
        files.reserve(data, len(videos) * clip_bytes)
        done = read_journal(journal, target, clip_bytes, len(videos))
        common = {name: sampling[name] for name in ("frames", "stride", "size")} | {"out": str(target)}
        jobs = [
            {
                "row": row,
                "path": str(video.path),
                "start": window_start(sampling["seed"], video.name),
                "offset": row * clip_bytes,
                **common,
            }
            for row, video in enumerate(videos)
            if row not in done
        ]
        answers = decode.decode_all(jobs, workers=min(workers, len(jobs)), timeout=timeout)
        # closing: after Ctrl-C a notebook keeps this frame for its traceback, and would keep the workers too.
        with track(total=len(videos), desc="decoding", unit="clip") as bar, contextlib.closing(answers):
            bar.update(len(done))
            for job, answer in answers:
                done[job["row"]] = {"row": job["row"]} | answer
                journal.write(json.dumps(done[job["row"]]).encode() + b"\n")
                journal.flush()
                bar.update()
        os.fsync(data.fileno())

    skipped = [
        {"row": row, "name": video.name, "path": str(video.path), "reason": done[row]["error"]}
        for row, video in enumerate(videos)
        if "error" in done[row]
    ]
    lines = [f"{dataset.name} {split}: {len(skipped)} of {len(videos)} videos left out"]
    lines[0] += ": delete this folder to try them again" if skipped else ""
    lines += [f"{video['path']}: {video['reason']}" for video in skipped]
    files.write_bytes(folder / "report.txt", ("\n".join(lines) + "\n").encode())
    files.write_json(folder / "report.json", skipped)
    names = [video.name for video in videos]
    files.write_json(folder / "meta.json", {"decoder": decoder_version(), **sampling, "names": names})


def read_journal(journal, target: Path, clip_bytes: int, rows: int) -> dict[int, dict]:
    """{row: entry} of an open journal, for the rows whose clips are in `target` as they were written.

    The others are done again: a process that is killed may leave half a line, and a machine that loses power
    may leave lines without their pixels.
    """
    journal.seek(0)
    text = journal.read()
    if text and not text.endswith(b"\n"):
        journal.write(b"\n")
    done = {}
    with open(target, "rb") as data:
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                row = entry["row"]
                data.seek(row * clip_bytes)
                whole = "error" in entry or zlib.crc32(data.read(clip_bytes)) == entry["crc"]
            except (ValueError, TypeError, KeyError):
                continue
            if whole and row < rows:
                done[row] = entry
    return done
