"""Run methods with what runs share: teacher, experts and sweeps of a folder, and the classes of several ranks."""

from dataclasses import asdict
from pathlib import Path

from david import algorithm
from david.baselines import mtt as trajectories
from david.baselines import vdsd as memories
from david.baselines.experts import Experts, load_experts
from david.baselines.static_dynamic import StaticDynamicSet
from david.data.clips import Clips
from david.partition import action_set
from david.reward import TeacherReward
from david.runs import sharding
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.support.values import unknown
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
    classes = share(train)
    reward = watcher(train, seed, settings, work, classes) if swept else None
    options = shared(train, seed, settings, work, classes, reward)
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
    """``algorithm.david`` under these settings, with the teacher of ``settings.teacher_of(seed)``.

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
    # One agent for all classes is rewarded by their mean, so each rank that is asked has all of them.
    classes = None if settings.search_agent == "shared" else share(train)
    reward = watcher(train, seed, settings, work, classes)
    options = shared(train, seed, settings, work, classes, reward if swept else None)
    found = algorithm.david(train, reward, ipc=ipc, seed=seed, settings=how, synthesis=synthesis, **options)
    return whole(found, train, {"method": "david", "ipc": ipc, "seed": seed, "settings": asdict(settings)})


def mtt(train: Clips, *, ipc: int, seed: int, settings: Settings, work: Path | None = None) -> DistilledSet:
    """``mtt.distill`` under these settings, with the experts of ``settings.experts_of(seed)``; as ``dm``."""
    trajectories.check_classes(train.classes)  # before the experts
    experts = own_experts(train, seed, settings, work)
    found = trajectories.distill(train, experts, ipc=ipc, seed=seed, settings=settings.mtt, work=work)
    return whole(found, train, {"method": "mtt", "ipc": ipc, "seed": seed, "settings": asdict(settings)})


def vdsd(
    train: Clips, *, ipc: int, seed: int, settings: Settings, work: Path | None = None, backbone: str = "dm"
) -> StaticDynamicSet:
    """``vdsd.distill`` under these settings, on DM or on MTT (``backbone``); as ``dm``."""
    known = {"dm": settings.distill, "mtt": settings.mtt}
    if backbone not in known:
        raise unknown("backbone of VDSD", backbone, known)
    if backbone == "mtt":
        trajectories.check_classes(train.classes)
    needs = backbone == "mtt" or settings.distill_networks == "experts"
    experts = own_experts(train, seed, settings, work) if needs else None
    options = {"settings": settings.vdsd(backbone), "how": known[backbone], "experts": experts, "work": work}
    found = memories.distill(train, ipc=ipc, seed=seed, **options)
    return whole(found, train, {"method": "vdsd", "ipc": ipc, "seed": seed, "settings": asdict(settings)})


def own_experts(train: Clips, seed: int, settings: Settings, work: Path | None) -> Experts:
    """The experts of a distillation's seed, which are kept beside ``work``."""
    recipe = {"seed": settings.experts_of(seed), "settings": settings.expert}
    return load_experts(train, **recipe, folder=work and work.parent)


def share(train: Clips) -> range | None:
    """The classes of this rank, if there are several; None stands for all."""
    return sharding.share(len(train.classes)) if sharding.size() > 1 else None


def watcher(train: Clips, seed: int, settings: Settings, work: Path | None, classes: range | None) -> TeacherReward:
    """The reward by the teacher of a distillation's seed, which is kept beside ``work``."""
    recipe = {"seed": settings.teacher_of(seed), "settings": settings.teacher}
    teacher = load_teacher(train, **recipe, folder=work and work.parent)
    return TeacherReward(teacher, train, settings.search_reward, classes)


def shared(
    train: Clips,
    seed: int,
    settings: Settings,
    work: Path | None,
    classes: range | None,
    reward: TeacherReward | None,
) -> dict:
    """What the functions of ``algorithm`` take beside clips and settings; sweeps if there is a ``reward`` for them."""
    folder, experts, sweeps = work and work.parent, None, None
    if settings.distill_networks == "experts":
        experts = own_experts(train, seed, settings, work)
    if reward:
        if folder is None:
            raise ValueError("a sweep is kept for other policies: it needs a folder of work")
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
