"""Temporal policy learning: the first half of Algorithm 1, with the early stage of Eq. 5, and its rivals."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from david.baselines.halving import SuccessiveHalving
from david.data.clips import Clips
from david.matching import Distiller, matching_stages
from david.partition import action_set
from david.qlearning import QLearner, SharedQLearner
from david.reward import TeacherReward
from david.runs import sharding
from david.runs.settings import Settings
from david.support.costs import search_costs
from david.support.files import read_json, write_json
from david.support.loop import WORSE
from david.support.progress import track
from david.support.seeds import derive, generator
from david.sweep import sweep


@dataclass
class SearchResult:
    """What a search learned.

    Attributes:
        policy: int64 (M,), the chosen L of each class.
        actions: the action set, L ascending.
        episodes: for each episode the lists over classes "frames_per_segment", "distance", "start" and "reward", and
            what it cost: "iterations", "seconds", and "forward" and "backward", the clips that went through a network
            with and without a gradient to their pixels. "seconds" is None where a sweep served several episodes.
        mean_reward: float (M, A), -inf where an action was never tried.
    """

    policy: torch.Tensor
    actions: tuple[int, ...]
    episodes: list[dict[str, list]]
    mean_reward: torch.Tensor


def make_agent(num_classes: int, num_actions: int, *, seed: int, settings: Settings):
    """The agent that ``settings.search_agent`` names, and its plan: (random stream, iterations) of every episode.

    All actions of one warm-up round, and of one round of halving, share a stream, so that only L differs between
    their rewards (common random numbers).

    Raises:
        ValueError: no episode, or rewards of noise.
    """
    s = settings
    if s.search_beta == 0 and s.distill_start == "noise":
        raise ValueError("search_beta=0 rewards videos as they start, so it needs distill_start='real' or 'mean'")
    warmup = s.search_warmup * num_actions
    episodes, early = s.search_episodes or warmup, s.early_iterations
    if episodes < 1:
        raise ValueError("search_episodes=0 stands for the warm-up alone, but search_warmup is 0 as well; raise either")
    if s.search_agent == "halving":
        agent = SuccessiveHalving(num_classes, num_actions, budget=episodes * early)
        return agent, [(derive(seed, "round", k), iterations) for k, iterations in agent.schedule]
    agent = {"q": QLearner, "shared": SharedQLearner}[s.search_agent](
        num_classes, num_actions, alpha=s.search_alpha, gamma=s.search_gamma, p=s.search_p, warmup=s.search_warmup,
        readout=s.search_readout, generator=generator(seed, "q-learning"),
    )  # fmt: skip
    streams = [t // num_actions if t < warmup else t for t in range(episodes)]
    return agent, [(derive(seed, "episode", stream), early) for stream in streams]


def learn_policy(
    train: Clips,
    reward: TeacherReward,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    folder: Path | None = None,
    journal: Path | None = None,
    swept: bool = False,
) -> SearchResult:
    """Episodes of an agent; each distils all classes at once for N_early iterations, then the teacher rewards.

    The videos are initialised anew in every episode. Those of a warm-up round have one random stream, and differ in L
    alone: a sweep makes them together, and other searches of the same clips, seed and settings read it.

    Args:
        train: real training clips.
        reward: Eq. 1, or a variant.
        ipc: I.
        seed: fixes everything random.
        settings: its ``search_`` and ``distill_`` fields.
        folder: where experts are kept, if their snapshots are the networks of matching.
        journal: JSON file that receives every finished episode; a search that was interrupted continues from it,
            replaying the recorded rewards.
        swept: whether rounds are made by sweeps, kept in ``folder``. Rewards are the same but for rounding.

    Raises:
        ValueError: the journal is that of another search.
        FloatingPointError: the videos of an episode diverged.
    """
    actions = action_set(settings.frames)
    lengths = torch.tensor(actions)
    agent, plan = make_agent(len(train.classes), len(actions), seed=seed, settings=settings)
    identity = derive(
        seed, train.fingerprint, str(settings.subset(*matching_stages(settings), "search", "teacher")), ipc
    )
    episodes, shared = sharding.first(lambda: _kept(journal, identity)), Counter(plan)
    for t, (stream, iterations) in enumerate(track(plan, desc="search", unit="episode")):
        chosen = agent.act()
        if t == len(episodes):
            along = _swept if swept and iterations and shared[stream, iterations] == len(actions) else _distilled
            episodes.append(_episode(along, train, reward, lengths[chosen], iterations, ipc, stream, settings, folder))
            if journal is not None and sharding.rank() == 0:
                write_json(journal, {"identity": identity, "episodes": episodes})
        agent.update(chosen, torch.tensor(episodes[t]["reward"]))
    return SearchResult(lengths[agent.policy()], actions, episodes, agent.mean_reward())


def _kept(journal: Path | None, identity: int) -> list[dict]:
    """The episodes that an interrupted search left in its journal."""
    if journal is None or not journal.exists():
        return []
    kept = read_json(journal)
    if kept["identity"] != identity:
        raise ValueError(f"{journal} is the journal of another search; delete it to start over")
    return kept["episodes"]


def _distilled(train, reward, policy, iterations: int, ipc: int, seed: int, settings, folder) -> tuple:
    """The teacher's distances of every class before and after an early stage of its own, (M,) each, and its seconds."""
    started = time.perf_counter()
    distiller = Distiller(train, policy, ipc=ipc, seed=seed, settings=settings, folder=folder)
    start = distance = reward.distance(distiller.videos, policy)
    for _ in range(iterations):
        distiller.step()
    if iterations:
        distance = reward.distance(distiller.distilled(), policy)
    return start, distance, round(time.perf_counter() - started, 3)


def _swept(train, reward, policy, iterations: int, ipc: int, seed: int, settings, folder) -> tuple:
    """The same distances out of the sweep of a round, whose seconds are not this episode's alone: None."""
    found = sweep(train, ipc=ipc, seed=seed, settings=settings, iterations=iterations, folder=folder, keep=False).along(
        "distance", policy
    )
    return torch.tensor(found[0][1]), torch.tensor(found[-1][1]), None


def _episode(
    along, train, reward: TeacherReward, policy, iterations: int, ipc: int, seed: int, settings: Settings, folder
) -> dict:
    """Distil for some iterations under ``policy`` (Algorithm 1, lines 9-13) and measure."""
    start, distance, seconds = along(train, reward, policy, iterations, ipc, seed, settings, folder)
    # Pixels that are kept in range stay finite whatever a step does, but not near their class.
    bounded = settings.distill_range == "8-bit"
    lost = bounded and distance.mean() > max(WORSE * start.mean(), reward.length.mean())
    if lost or not torch.isfinite(distance).all():
        raise FloatingPointError(
            f"the synthetic videos diverged within an episode, the teacher's distance from {start.mean():.3g} to "
            f"{distance.mean():.3g}; lower distill_lr"
        )
    clips = int((ipc * (settings.frames // policy)).sum())
    real = sum(min(settings.distill_batch_real, len(positions)) for positions in train.by_class())
    return {
        "frames_per_segment": policy.tolist(),
        "start": start.tolist(),
        "distance": distance.tolist(),
        "reward": reward(distance, start).tolist(),
        "iterations": iterations,
        **_passes(iterations, real, clips),
        "seconds": seconds,
    }


def _passes(iterations: int, real: int, clips: float) -> dict[str, float]:
    """Clips that go through a network in an episode; the teacher sees the synthetic ones before and after."""
    return {
        "forward": iterations * real + (2 if iterations else 1) * clips,
        "backward": iterations * clips,
    }


def expected_costs(settings: Settings, *, ipc: int) -> dict[str, float]:
    """What a search will cost for one class, every action taken equally often: ``costs.search_costs`` but seconds.

    A class is taken to have ``distill_batch_real`` clips or more.
    """
    actions = action_set(settings.frames)
    _, plan = make_agent(1, len(actions), seed=0, settings=settings)
    clips = ipc * sum(settings.frames / length for length in actions) / len(actions)
    episodes = [
        {"iterations": iterations, "seconds": 0, **_passes(iterations, settings.distill_batch_real, clips)}
        for _, iterations in plan
    ]
    costs = search_costs(episodes, settings)
    del costs["seconds"]
    return costs
