"""Random: stored videos are random real clips, or, partitioned, collages of frames of real clips."""

from collections.abc import Sequence

from david.partition import given_policy
from david.sets import DistilledSet
from david.start import start_videos


def distill(train, *, ipc, seed, settings, work=None, policy: tuple[int, ...] | str | None = None) -> DistilledSet:
    """Real frames without any distillation: iteration 0 of DM and DAViD from the "real" start.

    Args:
        train: real clips.
        ipc: I, stored videos a class.
        seed: which clips.
        settings: its common fields.
        work: unused; every method takes it.
        policy: as ``temporal.given_policy`` takes it. L = F (the default) is the usual Random baseline; a smaller L
            stores F / L clips of L frames in place of each video: "Random, partitioned".

    Raises:
        ValueError: a class has fewer than ``ipc`` clips, or L does not divide F.
    """
    check_ipc([len(positions) for positions in train.by_class()], train.classes, ipc)
    lengths = given_policy(policy, num_classes=len(train.classes), frames=settings.frames, seed=seed)
    videos = start_videos(train, lengths, ipc=ipc, seed=seed, kind="real")
    return DistilledSet(videos, lengths, list(train.classes), {"method": "random", "seed": seed})


def check_ipc(counts: list[int], classes: Sequence[str], ipc: int) -> None:
    """ValueError where the smallest class, of ``counts`` training clips each, has fewer than ``ipc`` to store."""
    available = min(counts)
    if ipc > available:
        raise ValueError(
            f"ipc={ipc} asks for more stored videos than class {classes[counts.index(available)]} has training "
            f"clips ({available}); use at most ipc={available}"
        )
