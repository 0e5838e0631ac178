"""DM: distribution matching under a policy that is given, not learned (Case A of Table 4 at L = F)."""

from dataclasses import asdict
from pathlib import Path

from david.matching import Distiller
from david.partition import given_policy
from david.runs import sharding
from david.sets import DistilledSet
from david.sweep import sweep


def distill(
    train,
    *,
    ipc,
    seed,
    settings,
    work: Path | None = None,
    policy: tuple[int, ...] | str | None = None,
    swept: bool = False,
):
    """Match mean features of random networks, class by class, for ``settings.distill_iterations`` iterations.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: its common and ``distill_`` fields, and ``expert_`` where these are the networks.
        work: folder for the checkpoint that an interrupted run continues from; experts are kept beside it.
        policy: as ``temporal.given_policy`` takes it; the default, L = F, is plain DM without a partition.
        swept: take the videos out of a sweep, which is kept beside ``work``, for other policies.

    Returns:
        DistilledSet.
    """
    lengths = given_policy(policy, num_classes=len(train.classes), frames=settings.frames, seed=seed)
    info = {"method": "dm"}
    return synthesize(train, lengths, ipc=ipc, seed=seed, settings=settings, work=work, info=info, swept=swept)


def synthesize(train, policy, *, ipc, seed, settings, work, info, swept: bool = False) -> DistilledSet:
    """The second half of Algorithm 1: distil all N iterations under a fixed policy, int64 (M,) of L.

    The set is where its videos were distilled: on the device, or on the host if they would crowd it there. ``swept``
    takes it out of a sweep of the same seed, where each class's losses are those of its own run.
    """
    folder, count = None if work is None else work.parent, settings.distill_iterations
    info = {**info, "ipc": ipc, "seed": seed, "settings": asdict(settings)}
    if swept:
        if folder is None:
            raise ValueError("a sweep is kept for other policies: it needs a folder of work")
        found = sweep(train, ipc=ipc, seed=seed, settings=settings, iterations=count, folder=folder)
        info["curve"] = [[iteration, sum(losses)] for iteration, losses in found.along("held_out", policy)]
        info["sweep"] = [
            {"iteration": note["iteration"], "distance": list(note["distance"].values())} for note in found.notes
        ]
        return DistilledSet(found.videos(policy), policy, list(train.classes), info)
    distiller = Distiller(train, policy, ipc=ipc, seed=seed, settings=settings, folder=folder)
    shard = "" if sharding.size() == 1 else f"-{sharding.rank()}-of-{sharding.size()}"
    checkpoint = None if work is None else work / f"checkpoint{shard}.safetensors"
    distiller.run(count, checkpoint=checkpoint)
    info["curve"] = whole_curve(distiller)
    # Ranks may differ in where their videos live; by way of the host they can be put together.
    videos = distiller.distilled()
    videos = videos if sharding.size() == 1 else sharding.gather(videos.cpu(), len(policy))
    return DistilledSet(videos, policy, list(train.classes), info)


def whole_curve(distiller: Distiller) -> list[list[float]]:
    """The curve of all ranks' classes, on every rank: their parts added up, look by look."""
    if not distiller.curve:
        return []
    parts = sharding.spread(sharding.size(), lambda _: dict(distiller.curve))
    return [[i, sum(part[i] for part in parts)] for i in parts[0] if all(i in part for part in parts)]
