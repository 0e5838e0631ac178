"""What a benchmark's points say about other sizes: slopes, and the bytes, FLOPs and seconds of a whole run."""

import math
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from david.c3d import C3D
from david.runs import records
from david.runs.costs import clip_flops, expected_costs, student_bytes
from david.runs.settings import Settings
from david.support.files import read_json


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


def line(x: list[float], y: list[float]) -> tuple[float, float]:
    """Slope, in units of y per unit of x, and value at 0 of the straight line through the points (least squares)."""
    slope, start = np.polyfit(x, y, 1)
    return float(slope), float(start)


def clip_values(settings: Settings) -> int:
    """Numbers in a clip: F x H x W x 3."""
    return settings.frames * settings.size**2 * 3


def stored_bytes(settings: Settings) -> int:
    """Bytes of one stored video, float32."""
    return 4 * clip_values(settings)


def working_bytes(point: dict) -> int:
    """Peak memory beyond what has to be held there: the stored videos and what the optimiser keeps of them."""
    return point["peak_bytes"] - point["held_bytes"]


def spread(values: list[float]) -> float:
    """How far the largest lies above the smallest, as a share of the smallest."""
    return max(values) / min(values) - 1


def memory(record: dict, method: str) -> dict[str, float]:
    """How the memory of an iteration grows, from the points of a record of ``benchmarks/growth.py``.

    Returns:
        "per stored byte": bytes of peak memory for each byte of stored videos, along classes.
        "per value", "constant": bytes beyond what must be held, for each value of a clip (F x H x W x 3) and for none,
        along frames and size.
        "spread over classes": of the bytes beyond what must be held.
    """
    axis = {name: along(record["points"], record["base"], name, method=method) for name in record["axes"]}
    # Along classes a chunk is filled alike; along IPC memory also changes with how full it is.
    held = [point for point in axis["classes"] if point["held_bytes"]]  # some may live on the host
    per_byte, _ = line([p["stored_bytes"] for p in held], [p["peak_bytes"] for p in held])
    shapes = axis["frames"] + axis["size"]
    values = [point["frames"] * point["size"] ** 2 * 3 for point in shapes]
    per_value, constant = line(values, [working_bytes(point) for point in shapes])
    return {
        "per stored byte": per_byte,
        "per value": per_value,
        "constant": constant,
        "spread over classes": spread([working_bytes(point) for point in axis["classes"]]),
    }


def peak(grown: dict, settings: Settings, stored: float, wider: float = 1) -> float:
    """Peak bytes of an iteration by ``memory``: for clips of these settings and so many bytes of stored videos.

    Args:
        wider: how many times as wide as the measured network; what is not stored videos is taken to grow with it.
    """
    working = grown["per value"] * clip_values(settings) + grown["constant"]
    return grown["per stored byte"] * stored + wider * working


def sustained(record: dict) -> float:
    """FLOP/s, of those that are needed, that DAViD sustains at the largest IPC of a growth record."""
    point = max((p for p in record["points"] if p["method"] == "david"), key=lambda p: p["ipc"])
    return point["FLOP"] / median(point["seconds"])


def reached(record: dict) -> float:
    """The share of the best rate of matrix products, in the record's precision, that ``sustained`` is."""
    return sustained(record) / record["rates"][record["setting"]["precision"]]


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

    Left out: reading clips from a disk that cannot keep up, what devices with fewer classes wait, writing checkpoints,
    random numbers that the host draws, test clips.

    Args:
        settings: preset and track.
        classes, ipc: M and I.
        clips: training videos.
        segments: F / L in the mean of the classes, in the synthesis; the search takes every L equally often.
        devices: that compute.
        flops_per_second: sustained, of one device.
        bytes_per_stored: bytes in memory for each byte of stored videos, as measured.
        working: bytes in memory beyond that, as measured.
        decoded_per_second: clips, of all processors.

    Returns:
        "data bytes" (uint8 clips, on disk, and on every device that is to hold them), "stored bytes" (the distilled
        set), "device bytes" and "student bytes" (of one device that distils, and of one that trains a student, without
        the data; the set may stay on the host), "checkpoint bytes" (of all devices, videos and momentum, every time),
        "iteration FLOP" (all classes), the "... FLOP" and
        "... seconds" of "search" (episodes, their rewards, and the real clips' features once), "synthesis", "teacher"
        (which one device trains while the others wait) and "students", and "decoding seconds".
    """
    s, share = settings, math.ceil(classes / devices)  # classes of the device that has most
    without, _ = clip_flops(s.frames, s.size, s.width)
    trained = student_flops(s.frames, s.size, s.width, classes)
    iteration = sum(iteration_flops(s, classes=classes, ipc=ipc, segments=segments))
    flops = {
        "search": classes * expected_costs(s, ipc=ipc)["flops"] + clips * without,
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
        "data bytes": clips * clip_values(s),
        "stored bytes": classes * ipc * stored_bytes(s),
        "device bytes": share * ipc * stored_bytes(s) * bytes_per_stored + working,
        "student bytes": student_bytes(s),
        "checkpoint bytes": 2 * classes * ipc * stored_bytes(s),
        "iteration FLOP": iteration,
        **{f"{name} FLOP": value for name, value in flops.items()},
        **{f"{name} seconds": value * part[name] / flops_per_second for name, value in flops.items()},
        "decoding seconds": clips / decoded_per_second,
    }
