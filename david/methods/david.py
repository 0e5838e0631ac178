"""DAViD: learn every class's temporal resolution by Q-learning, then distil under it (Algorithm 1)."""

from pathlib import Path

from david.distilled import DistilledSet
from david.methods.dm import synthesize
from david.reward import TeacherReward
from david.search import learn_policy
from david.training import load_teacher


def distill(train, *, ipc, seed, settings, work: Path | None = None, rule: str | None = None) -> DistilledSet:
    """Algorithm 1: temporal policy learning with early-stage distillations, then synthesis under the policy learned.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random except the teacher, whose seed is ``settings.teacher_seed``.
        settings: its common, ``distill_``, ``search_`` and ``teacher_`` fields.
        work: folder for what an interrupted run continues from; the teacher is kept beside it, for other runs.
        rule: "paper" or "recommended" replaces the search rule of the settings.

    Returns:
        DistilledSet; its ``info["search"]`` holds the policy's episodes and mean rewards.
    """
    settings = settings.with_rule(rule) if rule else settings
    teacher = load_teacher(train, settings=settings, folder=None if work is None else work.parent)
    reward = TeacherReward(teacher, train, settings.search_reward)
    journal = None if work is None else work / "search.json"
    found = learn_policy(train, reward, ipc=ipc, seed=seed, settings=settings, journal=journal)
    search = {"actions": list(found.actions), "episodes": found.episodes}
    info = {"method": "david", "search": search}
    return synthesize(train, found.policy, ipc=ipc, seed=seed, settings=settings, work=work, info=info)
