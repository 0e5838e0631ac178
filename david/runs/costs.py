"""Count what a run will cost: bytes of a student, FLOPs of a clip and of a search."""

import math
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from david.algorithm import make_agent, passes
from david.c3d import C3D
from david.partition import action_set
from david.runs.settings import Settings
from david.support.pixels import BYTES_A_PIXEL


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


def expected_costs(settings: Settings, *, ipc: int) -> dict[str, float]:
    """What a search will cost for one class, every action taken equally often: ``search_costs`` but seconds.

    A class is taken to have ``distill_batch_real`` clips or more.
    """
    actions, real = action_set(settings.frames), settings.distill_batch_real
    _, plan = make_agent(1, len(actions), seed=0, settings=settings.algorithm)
    clips = ipc * sum(settings.frames / length for length in actions) / len(actions)
    episodes = [
        {"iterations": iterations, "seconds": 0, **passes(iterations, real=real, synthetic=clips)}
        for _, iterations in plan
    ]
    costs = search_costs(episodes, settings)
    del costs["seconds"]
    return costs
