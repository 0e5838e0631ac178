"""Temporal partitioning, Eq. 4: one stored video becomes n = F / L training clips of L distinct frames each."""

import torch

from david.support.seeds import generator


def action_set(frames: int) -> tuple[int, ...]:
    """The temporal resolutions L to choose from, ascending: the divisors of F.

    {1, 2, 4, 8, 16} for 16 frames and {1, 2, 4, 8} for 8. The paper does not list its actions; this set is the
    one that explains the cost ratios of its Table 3 (see the book's deviations page).
    """
    return tuple(length for length in range(1, frames + 1) if frames % length == 0)


def num_segments(frames: int, frames_per_segment: int) -> int:
    """n = F / L.

    Raises:
        ValueError: L does not divide F.
    """
    if frames_per_segment not in action_set(frames):
        raise ValueError(
            f"frames_per_segment={frames_per_segment} does not divide the {frames} frames of a clip; "
            f"choose one of {action_set(frames)}"
        )
    return frames // frames_per_segment


def given_policy(policy: tuple[int, ...] | str | None, *, num_classes: int, frames: int, seed: int) -> torch.Tensor:
    """The L of every class, int64 (M,), as a method's option states it.

    Args:
        policy: None for L = F; one L for all classes; M of them; or "any", drawn uniformly from the action set.
        num_classes: M.
        frames: F.
        seed: fixes what "any" draws.

    Raises:
        ValueError: neither 1 nor M lengths, or one that does not divide F.
    """
    if policy == "any":
        actions = torch.tensor(action_set(frames))
        return actions[torch.randint(len(actions), (num_classes,), generator=generator(seed, "policy"))]
    lengths = policy or (frames,)
    for length in lengths:
        num_segments(frames, length)
    if len(lengths) not in (1, num_classes):
        raise ValueError(
            f"a policy of {len(lengths)} lengths does not fit {num_classes} classes; give 1 or all of them"
        )
    return torch.tensor(lengths).expand(num_classes).clone()


def partition(videos: torch.Tensor, frames_per_segment: int) -> torch.Tensor:
    """P(V, A) of Eq. 4: crop into contiguous segments, then repeat each frame in place back to full length.

    With L = F this is the identity; with L = 1 each frame becomes a still clip. The map is linear, and its
    adjoint (what autograd computes) sums the gradients of a frame's n copies.

    Args:
        videos: (I, F, ...), any dtype.
        frames_per_segment: L, a divisor of F.

    Returns:
        (I * n, F, ...), the n segments of one video next to each other.
    """
    count, frames, *rest = videos.shape
    n = num_segments(frames, frames_per_segment)
    if n == 1:
        return videos
    segments = videos.reshape(count * n, frames_per_segment, 1, *rest)
    return segments.expand(-1, -1, n, *(-1 for _ in rest)).reshape(count * n, frames, *rest)
