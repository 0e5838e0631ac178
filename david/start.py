"""Where the synthetic videos start: noise, segments that are real frames, or means of such segments."""

import math
from collections.abc import Iterator

import torch

from david.data.clips import Clips
from david.partition import num_segments
from david.support.costs import home
from david.support.seeds import derive, generator


def random_clips(positions, count: int, *, seed: int, label: int) -> torch.Tensor:
    """``count`` of a class's ``positions``, in random order; they repeat only once all of them are used.

    Every method that begins from real clips draws them here, so that one seed means the same clips to all.
    """
    order = torch.randperm(len(positions), generator=generator(seed, "start", label))
    return torch.as_tensor(positions)[order.repeat(-(-count // len(order)))[:count]]


def noise(count: int, shape: tuple[int, ...], random: torch.Generator) -> Iterator[torch.Tensor]:
    """The ``count`` rows of ``torch.randn(count, *shape, generator=random)``, without ever holding all of them."""
    # torch makes normal numbers in blocks of 16, so that pieces of whole blocks are the same numbers.
    step = 16 // math.gcd(16, math.prod(shape))
    for first in range(0, count, step):
        yield from torch.randn(min(step, count - first), *shape, generator=random)


def empty_videos(train: Clips, classes: int, ipc: int, device: torch.device | None = None) -> torch.Tensor:
    """Memory for stored videos, float32 (classes, ipc, F, 3, H, W), on ``device`` or else at ``home``."""
    shape = (classes, ipc, train.frames, 3, train.size, train.size)
    device = device or home(train.device, 4 * math.prod(shape))
    visits = train.device.type == "cuda" and device.type == "cpu"  # a GPU fetches fastest from pinned memory
    return torch.empty(shape, device=device, pin_memory=visits)


def start_videos(
    train: Clips, policy: torch.Tensor, *, ipc: int, seed: int, kind: str, classes: range | None = None, device=None
) -> torch.Tensor:
    """The synthetic videos before the first step, float32 (M, I, F, 3, H, W), normalised.

    Args:
        train: real clips.
        policy: int64 (M,), L of each class.
        ipc: I, stored videos a class.
        seed: fixes the noise, or which clips are used; the same for every policy.
        kind: "noise" is N(0, 1); the paper says noise, and not which. "real" starts each segment as L evenly spaced
            frames of a real clip of its own, so a partitioned video begins as a collage of F / L clips. Clips repeat
            only when a class has fewer than IPC * F / L. "mean" cuts every real clip of the class to such a segment
            and stores the IPC * F / L centres that k-means finds among them: at L = F and IPC 1 the class's pixel mean.
        classes: return only the videos of these; they are the same as among those of all.
        device: where to return them; by default that of ``train``, or the host if they would crowd a GPU.
    """
    classes = range(len(policy)) if classes is None else classes
    videos = empty_videos(train, len(classes), ipc, device)
    if kind == "noise":
        for c, video in zip(range(classes.stop), noise(len(policy), videos.shape[1:], generator(seed, "start"))):
            if c in classes:
                videos[c - classes.start] = video
        return videos
    if kind not in ("real", "mean"):
        raise ValueError(f"unknown start {kind!r}; choose 'noise', 'real' or 'mean'")
    members = train.by_class()
    for video, c in zip(videos, classes, strict=True):
        length = int(policy[c])
        count = ipc * num_segments(train.frames, length)
        shown = (torch.arange(length) * 2 + 1) * train.frames // (2 * length)  # the middles of L equal parts
        segments = video.view(count, length, *video.shape[2:])
        if kind == "mean":
            segments.copy_(segment_centres(train, members[c], shown, count, seed=derive(seed, "centres", c)))
            continue
        chosen = random_clips(members[c], count, seed=seed, label=c)
        for some, part in zip(segments.split(train.at_once), chosen.split(train.at_once), strict=True):
            some.copy_(train.batch(part)[:, shown.to(train.device)])
    return videos


def segment_centres(train: Clips, positions, shown: torch.Tensor, count: int, *, seed: int) -> torch.Tensor:
    """``count`` centres of k-means among a class's segments, float (count, L, 3, H, W), normalised, on the CPU.

    Args:
        positions: of the class's clips.
        shown: int64 (L,), the frames of a clip that are its segment.
        count: centres; where there are fewer clips, they repeat.
        seed: of k-means' start; a single centre is the mean, whatever the seed.
    """
    parts = torch.as_tensor(positions).split(train.at_once)
    found = torch.cat([train.batch(part)[:, shown.to(train.device)].cpu() for part in parts])
    if count == 1:
        return found.mean(0, keepdim=True)
    from sklearn.cluster import KMeans  # late, as nothing else of a distillation needs it

    clusters = KMeans(min(count, len(found)), n_init=1, random_state=seed % 2**32).fit(found.flatten(1).numpy())
    centres = torch.from_numpy(clusters.cluster_centers_).view(-1, *found.shape[1:])
    return centres.repeat(-(-count // len(centres)), 1, 1, 1, 1)[:count]
