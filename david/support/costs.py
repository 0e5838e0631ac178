"""Measure what a run costs: time that is its own, and peak memory."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

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
    import resource  # which Windows has not

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
