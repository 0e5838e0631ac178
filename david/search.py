"""Temporal policy learning: the first half of Algorithm 1, with the early stage of Eq. 5."""

from dataclasses import dataclass
from pathlib import Path

import torch

from david.clips import Clips
from david.files import read_json, write_json
from david.matching import Distiller
from david.presets import Settings
from david.progress import track
from david.qlearning import QLearner
from david.reward import TeacherReward
from david.seeds import derive, generator
from david.temporal import action_set


@dataclass
class SearchResult:
    """What a search learned.

    Attributes:
        policy: int64 (M,), the chosen L of each class.
        actions: the action set, L ascending.
        episodes: for each episode the lists over classes "frames_per_segment", "distance", "start" and "reward".
        mean_reward: float (M, A), -inf where an action was never tried.
    """

    policy: torch.Tensor
    actions: tuple[int, ...]
    episodes: list[dict[str, list]]
    mean_reward: torch.Tensor


def learn_policy(
    train: Clips, reward: TeacherReward, *, ipc: int, seed: int, settings: Settings, journal: Path | None = None
) -> SearchResult:
    """Q-learning over T episodes; each distils all classes at once for N_early iterations, then the teacher rewards.

    The videos are initialised anew in every episode. All actions of one warm-up round share their noise, networks
    and real clips (common random numbers), so that only L differs between their rewards.

    Args:
        train: real training clips.
        reward: Eq. 1, or a variant.
        ipc: I.
        seed: fixes everything random.
        settings: its ``search_`` and ``distill_`` fields.
        journal: JSON file that receives every finished episode; a search that was interrupted continues from it,
            replaying the recorded rewards.

    Raises:
        ValueError: the journal is that of another search.
        FloatingPointError: the videos of an episode diverged.
    """
    actions = action_set(settings.frames)
    lengths = torch.tensor(actions)
    learner = QLearner(
        len(train.classes), len(actions), alpha=settings.search_alpha, gamma=settings.search_gamma,
        p=settings.search_p, warmup=settings.search_warmup, readout=settings.search_readout,
        generator=generator(seed, "q-learning"),
    )  # fmt: skip
    identity = derive(seed, train.fingerprint, str(settings.subset("distill", "search", "teacher")), ipc)
    episodes = []
    if journal is not None and journal.exists():
        kept = read_json(journal)
        if kept["identity"] != identity:
            raise ValueError(f"{journal} is the journal of another search; delete it to start over")
        episodes = kept["episodes"]
    for t in track(range(settings.search_episodes), desc="search", unit="episode"):
        chosen = learner.act()
        if t == len(episodes):
            warming = t < settings.search_warmup * len(actions)
            stream = derive(seed, "episode", t // len(actions) if warming else t)
            episodes.append(_episode(train, reward, lengths[chosen], ipc=ipc, seed=stream, settings=settings))
            if journal is not None:
                write_json(journal, {"identity": identity, "episodes": episodes})
        learner.update(chosen, torch.tensor(episodes[t]["reward"]))
    return SearchResult(lengths[learner.policy()], actions, episodes, learner.mean_reward())


def _episode(train, reward: TeacherReward, policy: torch.Tensor, *, ipc, seed, settings) -> dict[str, list]:
    """Distil for N_early iterations under ``policy`` (Algorithm 1, lines 8-13) and measure."""
    distiller = Distiller(train, policy, ipc=ipc, seed=seed, settings=settings)
    start = reward.distance(distiller.videos, policy)
    for _ in range(settings.early_iterations):
        distiller.step()
    distance = reward.distance(distiller.videos, policy)
    if not torch.isfinite(distance).all():
        raise FloatingPointError("the synthetic videos diverged within an episode; lower distill_lr")
    return {
        "frames_per_segment": policy.tolist(),
        "start": start.tolist(),
        "distance": distance.tolist(),
        "reward": reward(distance, start).tolist(),
    }
