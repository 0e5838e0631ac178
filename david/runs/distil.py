"""Run DM and DAViD with what runs share: teacher, experts and sweeps of a folder, and the classes of several ranks."""

from dataclasses import asdict
from pathlib import Path

from david import algorithm
from david.baselines.mtt import load_experts
from david.data.clips import Clips
from david.partition import action_set
from david.reward import TeacherReward
from david.runs import sharding
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.sweep import Sweeps
from david.training import load_teacher


def dm(
    train: Clips,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    work: Path | None = None,
    policy: tuple[int, ...] | str | None = None,
    swept: bool = False,
) -> DistilledSet:
    """``algorithm.dm`` under these settings.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos of a class.
        seed: fixes everything random.
        settings: its common and ``distill_`` fields, and ``expert_`` where these are the networks.
        work: folder for the checkpoint that an interrupted run continues from; experts are kept beside it.
        policy: as ``partition.given_policy`` takes it.
        swept: take the videos out of a sweep, which is kept beside ``work``, for other policies.
    """
    teacher = (
        load_teacher(train, seed=settings.teacher_seed, settings=settings.teacher, folder=work and work.parent)
        if swept
        else None
    )
    options = shared(train, teacher, settings, work, swept)
    found = algorithm.dm(train, ipc=ipc, seed=seed, settings=settings.distill, policy=policy, **options)
    return whole(found, train, {"method": "dm", "ipc": ipc, "seed": seed, "settings": asdict(settings)})


def david(
    train: Clips,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    work: Path | None = None,
    synthesis: bool = True,
    swept: bool = False,
) -> DistilledSet:
    """``algorithm.david`` under these settings, with the teacher of ``settings.teacher_seed``.

    Args:
        settings: its common, ``distill_``, ``search_`` and ``teacher_`` fields, and ``expert_`` where these are the
            networks.
        work: folder for what an interrupted run continues from; the teacher is kept beside it, for other runs.
        synthesis: see ``algorithm.david``.
        swept: take warm-up rounds and videos out of sweeps.
        others: as ``dm`` has them.
    """
    how = settings.algorithm
    # Before the hours of the teacher and the search, as it checks their settings.
    algorithm.make_agent(len(train.classes), len(action_set(train.frames)), seed=seed, settings=how)
    teacher = load_teacher(train, seed=settings.teacher_seed, settings=settings.teacher, folder=work and work.parent)
    spread = settings.search_agent != "shared"  # whose reward is the mean of all classes
    options = shared(train, teacher, settings, work, swept, spread)
    found = algorithm.david(train, teacher, ipc=ipc, seed=seed, settings=how, synthesis=synthesis, **options)
    return whole(found, train, {"method": "david", "ipc": ipc, "seed": seed, "settings": asdict(settings)})


def shared(train: Clips, teacher, settings: Settings, work: Path | None, swept: bool, spread: bool = True) -> dict:
    """What the functions of ``algorithm`` take beside clips and settings: experts, this rank's classes, folders.

    ``spread``: whether several ranks share the classes; else each that is asked has all of them.
    """
    folder, experts, sweeps = work and work.parent, None, None
    classes = sharding.share(len(train.classes)) if spread and sharding.size() > 1 else None
    if settings.distill_networks == "experts":
        experts = load_experts(train, settings=settings, folder=folder)
    if swept:
        if folder is None:
            raise ValueError("a sweep is kept for other policies: it needs a folder of work")
        reward = TeacherReward(teacher, train, classes=classes)
        early = settings.early_iterations
        sweeps = Sweeps(train, settings.distill, reward, folder, experts=experts, classes=classes, early=early)
    if classes and work:
        work = work / f"rank-{sharding.rank()}-of-{sharding.size()}"
    return {"experts": experts, "classes": classes, "work": work, "sweeps": sweeps}


def whole(part: DistilledSet, train: Clips, info: dict) -> DistilledSet:
    """The set of all classes, on every rank, put together from the ranks' parts, if it is in parts."""
    if len(part.classes) < len(train.classes):
        part = sharding.joined(part, list(train.classes))
    part.info.update(info)
    return part
