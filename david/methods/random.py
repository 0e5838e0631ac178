"""Random: stored videos are random real clips, or, partitioned, collages of frames of real clips."""

import torch

from david.distilled import DistilledSet
from david.matching import start_videos


def distill(train, *, ipc, seed, settings, work=None, frames_per_segment: int | None = None) -> DistilledSet:
    """Real frames without any distillation: iteration 0 of DM and DAViD from the "real" start.

    Args:
        train: real clips.
        ipc: I, stored videos a class.
        seed: which clips.
        settings: its common fields.
        work: unused; every method takes it.
        frames_per_segment: L for all classes. L = F (the default) is the usual Random baseline; a smaller L stores
            F / L clips of L frames in place of each video: "Random, partitioned".

    Raises:
        ValueError: a class has fewer than ``ipc`` clips, or L does not divide F.
    """
    smallest = min(range(len(train.classes)), key=lambda c: len(train.by_class()[c]))
    available = len(train.by_class()[smallest])
    if ipc > available:
        raise ValueError(
            f"ipc={ipc} asks for more stored videos than class {train.classes[smallest]} has training clips "
            f"({available}); use at most ipc={available}"
        )
    policy = torch.full((len(train.classes),), frames_per_segment or settings.frames)
    videos = start_videos(train, policy, ipc=ipc, seed=seed, kind="real")
    return DistilledSet(videos, policy, list(train.classes), {"method": "random", "seed": seed})
