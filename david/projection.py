"""What a benchmark's points say about other sizes: slopes, and the bytes, FLOPs and seconds of a whole run."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from david import records
from david.c3d import C3D
from david.costs import clip_flops
from david.files import read_json
from david.presets import Settings


def benchmark(folder: str | Path, name: str, device: str) -> dict | None:
    """The record of a script of ``benchmarks`` on a device ("cpu", "h100"), or None where there is none.

    A page that asks for it is made again when the record comes or changes.
    """
    path = Path(folder) / f"{name}-{device}.json"
    records.asked.add(path)
    if not path.is_file():
        return None
    records.used[path] = "published"
    return read_json(path)


def along(points: list[dict], base: dict, axis: str, **chosen) -> list[dict]:
    """The ``points`` on one axis through ``base``, in order: all else is as there, but for what is ``chosen``."""
    fixed = {name: value for name, value in base.items() if name != axis} | chosen
    found = [point for point in points if all(point[name] == value for name, value in fixed.items())]
    return sorted(found, key=lambda point: point[axis])


def slope(x: list[float], y: list[float]) -> float:
    """Of the straight line through the points (least squares), in units of y per unit of x."""
    return float(np.polyfit(x, y, 1)[0])


def working_bytes(point: dict) -> int:
    """Peak memory beyond what must be held: the stored videos and what the optimiser keeps of them."""
    return point["peak_bytes"] - point["stored_bytes"] - point["state_bytes"]


def spread(values: list[float]) -> float:
    """How far the largest lies above the smallest, as a share of the smallest."""
    return max(values) / min(values) - 1


@cache
def student_flops(frames: int, size: int, width: float, classes: int) -> int:
    """FLOPs of one clip in a training step of the network: forward, and backward to the weights."""
    net = C3D(classes, frames, size, width)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, frames, 3, size, size)).sum().backward()
    return counter.get_total_flops()


def iteration_flops(settings: Settings, *, classes: int, ipc: int, segments: float) -> tuple[float, float]:
    """FLOPs that one iteration of distribution matching needs: of the real clips' pass, and of the synthetic ones'.

    What is computed twice to save memory, the features of a class of many clips, counts once.

    Args:
        settings: its frames, size, width and ``distill_batch_real``.
        classes: M.
        ipc: I.
        segments: F / L in the mean of the classes; 1 is DM.
    """
    without, with_gradient = clip_flops(settings.frames, settings.size, settings.width)
    return classes * settings.distill_batch_real * without, classes * ipc * segments * with_gradient


def project(
    settings: Settings, *, classes: int, ipc: int, clips: int, segments: float, devices: int,
    flops_per_second: float, bytes_per_stored: float, working: float, decoded_per_second: float,
) -> dict[str, float]:  # fmt: skip
    """The bytes, FLOPs and seconds of one run of DAViD; classes are shared out over devices, which do not communicate.

    Left out: reading clips from a disk that cannot keep up, what devices with fewer classes wait, checkpoints.

    Args:
        settings: preset and track.
        classes, ipc: M and I.
        clips: training videos.
        segments: F / L in the mean of the classes, in the search and in the synthesis.
        devices: that compute.
        flops_per_second: sustained, of one device.
        bytes_per_stored: bytes in memory for each byte of stored videos, as measured.
        working: bytes in memory beyond that, as measured.
        decoded_per_second: clips, of all processors.

    Returns:
        "data bytes" (uint8 clips, on disk, and on every device that is to hold them), "stored bytes" (the distilled
        set), "device bytes" (of one device, without the data), "iteration FLOP" (all classes), the "... FLOP" and
        "... seconds" of "search" (episodes, their rewards, and the real clips' features once), "synthesis", "teacher"
        (which one device trains while the others wait) and "students", and "decoding seconds".
    """
    s, share = settings, math.ceil(classes / devices)  # classes of the device that has most
    pixels = s.frames * s.size**2 * 3
    without, _ = clip_flops(s.frames, s.size, s.width)
    trained = student_flops(s.frames, s.size, s.width, classes)
    iteration = sum(iteration_flops(s, classes=classes, ipc=ipc, segments=segments))
    rewards = 2 * classes * ipc * segments * without
    flops = {
        "search": s.search_episodes * (s.early_iterations * iteration + rewards) + clips * without,
        "synthesis": s.distill_iterations * iteration,
        "teacher": s.teacher_steps * s.teacher_batch * trained,
        "students": s.student_repeats * s.student_steps * s.student_batch * trained,
    }
    # Work is shared by classes, whole students go to devices, and one teacher to one.
    part = {
        "search": share / classes,
        "synthesis": share / classes,
        "teacher": 1,
        "students": math.ceil(s.student_repeats / devices) / s.student_repeats,
    }
    return {
        "data bytes": clips * pixels,
        "stored bytes": classes * ipc * pixels * 4,
        "device bytes": share * ipc * pixels * 4 * bytes_per_stored + working,
        "iteration FLOP": iteration,
        **{f"{name} FLOP": value for name, value in flops.items()},
        **{f"{name} seconds": value * part[name] / flops_per_second for name, value in flops.items()},
        "decoding seconds": clips / decoded_per_second,
    }
