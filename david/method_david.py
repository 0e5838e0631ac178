"""DAViD: learn every class's temporal resolution by Q-learning, then distil under it (Algorithm 1)."""

from dataclasses import asdict
from pathlib import Path

from david.algorithm import learn_policy, make_agent
from david.data.clips import rounded
from david.method_dm import synthesize
from david.partition import action_set
from david.reward import TeacherReward
from david.sets import DistilledSet
from david.start import start_videos
from david.training import load_teacher


def distill(
    train, *, ipc, seed, settings, work: Path | None = None, synthesis: bool = True, swept: bool = False
) -> DistilledSet:
    """Algorithm 1: temporal policy learning with early-stage distillations, then synthesis under the policy learned.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random except the teacher, whose seed is ``settings.teacher_seed``.
        settings: its common, ``distill_``, ``search_`` and ``teacher_`` fields.
        work: folder for what an interrupted run continues from; the teacher is kept beside it, for other runs.
        synthesis: False stores, under the policy learned, what the synthesis would start from (where that is noise:
            segments of real frames): the control that tells what the policy brings from what the matching brings.
        swept: take warm-up rounds and videos out of sweeps, which are kept beside ``work``, for other policies.

    Returns:
        DistilledSet; its ``info["search"]`` holds the action set and the episodes.
    """
    # Before the hours of teacher and search, as it checks the search's settings.
    make_agent(len(train.classes), len(action_set(settings.frames)), seed=seed, settings=settings)
    folder = None if work is None else work.parent
    teacher = load_teacher(train, settings=settings, folder=folder)
    reward = TeacherReward(teacher, train, settings.search_reward)
    journal = None if work is None else work / "search.json"
    found = learn_policy(
        train, reward, ipc=ipc, seed=seed, settings=settings, folder=folder, journal=journal, swept=swept
    )
    search = {"actions": list(found.actions), "episodes": found.episodes}
    info = {"method": "david", "search": search}
    if synthesis:
        return synthesize(train, found.policy, ipc=ipc, seed=seed, settings=settings, work=work, info=info, swept=swept)
    kind = "real" if settings.distill_start == "noise" else settings.distill_start
    videos = start_videos(train, found.policy, ipc=ipc, seed=seed, kind=kind)
    videos = rounded(videos) if settings.distill_range == "8-bit" else videos
    info |= {"ipc": ipc, "seed": seed, "settings": asdict(settings)}
    return DistilledSet(videos, found.policy, list(train.classes), info)
