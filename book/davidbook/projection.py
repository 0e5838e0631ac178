"""Read the records of the benchmarks, and project from them the bytes, FLOPs and seconds of other runs."""

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


def clip_values(settings: Settings) -> int:
    """Numbers in a clip, F x H x W x 3: bytes of a decoded clip, and a quarter of those of a stored video (float32)."""
    return settings.frames * settings.size**2 * 3


def spread(points: list[dict]) -> float:
    """How far peak memory beyond the videos and their momentum goes from its least, as a share of that."""
    beyond = [point["peak_bytes"] - point["held_bytes"] for point in points]
    return max(beyond) / min(beyond) - 1


def memory(record: dict, method: str) -> dict[str, float]:
    """How the memory of an iteration grows, by least squares on a record of ``benchmarks/growth.py``.

    Returns:
        "per stored byte" (bytes of peak memory for each byte of stored videos, along classes); "per value" and
        "constant" (bytes beyond videos and momentum, for each value of a clip and for none, along frames and size);
        "spread over classes", see ``spread``.
    """
    axis = {name: along(record["points"], record["base"], name, method=method) for name in record["axes"]}
    # Along classes a chunk is filled alike; along IPC memory also changes with how full it is.
    held = [point for point in axis["classes"] if point["held_bytes"]]  # some may live on the host
    per_byte, _ = np.polyfit([p["stored_bytes"] for p in held], [p["peak_bytes"] for p in held], 1)
    shapes = axis["frames"] + axis["size"]
    values = [point["frames"] * point["size"] ** 2 * 3 for point in shapes]
    per_value, constant = np.polyfit(values, [point["peak_bytes"] - point["held_bytes"] for point in shapes], 1)
    own = {"per stored byte": per_byte, "per value": per_value, "constant": constant}
    return own | {"spread over classes": spread(axis["classes"])}


def peak(grown: dict, settings: Settings, stored: float, wider: float = 1) -> float:
    """Peak bytes of an iteration by ``memory``: for clips of these settings and so many bytes of stored videos.

    All but the videos is taken to grow with the network, ``wider`` times as wide as the measured one.
    """
    return grown["per stored byte"] * stored + wider * (grown["per value"] * clip_values(settings) + grown["constant"])


def sustained(record: dict) -> float:
    """FLOP/s, of those that are needed, that DAViD sustains at the largest IPC of a growth record."""
    point = max((p for p in record["points"] if p["method"] == "david"), key=lambda p: p["ipc"])
    return point["FLOP"] / median(point["seconds"])


@cache
def student_flops(frames: int, size: int, width: float, classes: int) -> int:
    """FLOPs of one clip in a training step of the network: forward, and backward to the weights."""
    net = C3D(classes, frames, size, width)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, frames, 3, size, size)).sum().backward()
    return counter.get_total_flops()


def iteration_flops(settings: Settings, *, classes: int, ipc: int, segments: float) -> tuple[float, float]:
    """FLOPs that an iteration of distribution matching needs: of the real clips' pass, and of the synthetic ones'.

    What is computed twice to save memory counts once; ``segments`` is F / L in the mean of the classes, 1 for DM.
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
        classes, ipc, clips: M, I and the number of training videos.
        segments: F / L in the mean of the classes, in the synthesis; the search takes every L equally often.
        devices, flops_per_second: that compute, and what one of them sustains.
        bytes_per_stored, working: bytes in memory for each byte of stored videos, and beyond that, as measured.
        decoded_per_second: clips, of all processors.

    Returns:
        "data bytes" (uint8 clips, on disk, and on every device that is to hold them), "stored bytes" (the distilled
        set), "device bytes" and "student bytes" (of one device that distils, and of one that trains a student, without
        the data; the set may stay on the host), "checkpoint bytes" (of all devices, videos and momentum, every time),
        "iteration FLOP" (all classes), "... FLOP" and "... seconds" of "search" (episodes, their rewards, and the real
        clips' features once), "synthesis", "teacher" (one device trains it while the others wait) and "students", and
        "decoding seconds".
    """
    s, share = settings, math.ceil(classes / devices)  # classes of the device that has most
    stored = 4 * clip_values(s) * ipc  # bytes a class
    trained = student_flops(s.frames, s.size, s.width, classes)
    iteration = sum(iteration_flops(s, classes=classes, ipc=ipc, segments=segments))
    embedded = clips * clip_flops(s.frames, s.size, s.width)[0]
    waves = math.ceil(s.student_repeats / devices) / s.student_repeats  # whole students go to devices
    stages = {  # FLOPs, and the part of them that the fullest device does
        "search": (classes * expected_costs(s, ipc=ipc)["flops"] + embedded, share / classes),
        "synthesis": (s.distill_iterations * iteration, share / classes),
        "teacher": (s.teacher_steps * s.teacher_batch * trained, 1),
        "students": (s.student_repeats * s.student_steps * s.student_batch * trained, waves),
    }
    return {
        "data bytes": clips * clip_values(s),
        "stored bytes": classes * stored,
        "device bytes": share * stored * bytes_per_stored + working,
        "student bytes": student_bytes(s),
        "checkpoint bytes": 2 * classes * stored,
        "iteration FLOP": iteration,
        **{f"{name} FLOP": flops for name, (flops, _) in stages.items()},
        **{f"{name} seconds": flops * part / flops_per_second for name, (flops, part) in stages.items()},
        "decoding seconds": clips / decoded_per_second,
    }
