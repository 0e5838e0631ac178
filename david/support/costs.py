"""What a run costs: time, peak memory, and the arithmetic of the network."""

import math
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from david.c3d import C3D
from david.data.clips import BYTES_A_PIXEL
from david.runs.settings import Settings

_shared = 0.0


@contextmanager
def shared() -> Iterator[None]:
    """Count the time of this block as spent on what several runs share, so that no single run is charged for it."""
    global _shared
    started = time.perf_counter()
    try:
        yield
    finally:
        _shared += time.perf_counter() - started


def shared_seconds() -> float:
    """Seconds that this process has spent in ``shared`` blocks so far."""
    return _shared


def reset_peak(device: torch.device) -> None:
    """Let ``peak_bytes`` count from here on. On a CPU this takes Linux; elsewhere the peak is that of the process."""
    if device.type == "cuda":
        torch.cuda.init()  # which the next call does not do for a GPU that is named by its number
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Most memory in use since ``reset_peak``: allocated on the device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU. What torch keeps for later, such as the videos of an earlier episode, is free as well."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def home(device: torch.device, count: int) -> torch.device:
    """Where ``count`` bytes of videos and of their optimiser's state live: on ``device``, or on the host if they would
    fill more than half of a GPU's free memory."""
    return device if device.type != "cuda" or count <= free_bytes(device) // 2 else torch.device("cpu")


def student_bytes(settings: Settings) -> int:
    """What a student's step takes on a GPU, beside the clips and the set that it draws from."""
    s = settings
    return int(s.student_batch * s.frames * s.size**2 * BYTES_A_PIXEL * s.width)


@cache
def clip_flops(frames: int, size: int, width: float) -> tuple[int, int]:
    """FLOPs of one clip through ``C3D.embed``: without a gradient, and with one to its pixels.

    A multiply-add counts as two. Pooling and activations are left out, as usual.
    """
    net = C3D(1, frames, size, width).requires_grad_(False)
    clip = torch.zeros(1, frames, 3, size, size)
    counts = []
    for gradient in (False, True):
        with FlopCounterMode(display=False) as counter:
            features = net.embed(clip.requires_grad_(gradient))
            if gradient:
                features.sum().backward()
        counts.append(counter.get_total_flops())
    return tuple(counts)


def search_costs(episodes: list[dict], settings: Settings) -> dict[str, float]:
    """What the episodes of a search cost in all.

    Args:
        episodes: of a record's ``search``.
        settings: frames, size and width of its clips.

    Returns:
        "episodes", "iterations", "evaluations" (clips through a network, with and without a gradient), "flops" and
        "seconds", NaN where an episode was not timed alone.
    """
    forward, backward = (sum(episode[name] for episode in episodes) for name in ("forward", "backward"))
    without, with_gradient = clip_flops(settings.frames, settings.size, settings.width)
    return {
        "episodes": len(episodes),
        "iterations": sum(episode["iterations"] for episode in episodes),
        "evaluations": forward + backward,
        "flops": forward * without + backward * with_gradient,
        "seconds": sum(math.nan if episode["seconds"] is None else episode["seconds"] for episode in episodes),
    }
