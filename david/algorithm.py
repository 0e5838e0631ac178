"""Run Algorithm 1: learn for every class how many frames a segment keeps, then distil under what was learned.

``david`` is the method of the paper. Its halves are ``learn_policy``, in which Q-learning (Eq. 2, 3) is rewarded by a
teacher (Eq. 1) after an early stage of distillation (Eq. 5), and ``synthesize``, all of the distillation under the
policy learned. ``dm`` is the second half alone, under a policy that is given.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from david import matching
from david.baselines.halving import SuccessiveHalving
from david.matching import Distiller, start_videos
from david.partition import action_set, given_policy
from david.qlearning import QLearner, SharedQLearner
from david.reward import TeacherReward
from david.sets import DistilledSet
from david.support.files import read_json, write_json
from david.support.loop import WORSE
from david.support.pixels import rounded
from david.support.progress import track
from david.support.seeds import derive, generator
from david.sweep import Sweeps

if TYPE_CHECKING:
    from david.data.clips import Clips


@dataclass(frozen=True)
class Settings:
    """How a policy is searched, and how videos are distilled; the defaults are the paper's where it states them.

    Attributes:
        distill: the settings of distillation.
        agent: "q", a Q-table for each class; "shared", one for all; "halving", successive halving.
        episodes: T; 0 for those of the warm-up alone.
        beta: Eq. 5, an episode distils beta N iterations; 0 for none, so that the start is rewarded.
        alpha, gamma: Eq. 2, learning rate and discount.
        p: Eq. 3, the probability of exploiting.
        reward: see ``david.reward``.
        warmup: rounds over all actions before Eq. 3 acts; the paper has none.
        readout: "q", the best action in the last state, or "mean", that of the largest mean reward.
    """

    distill: matching.Settings = field(default_factory=matching.Settings)
    agent: str = "q"
    episodes: int = 20
    beta: float = 0.02
    alpha: float = 0.1
    gamma: float = 0.5
    p: float = 0.7
    reward: str = "paper"
    warmup: int = 0
    readout: str = "q"

    @property
    def early_iterations(self) -> int:
        """N_early of Eq. 5, at least 1 unless beta is 0."""
        return max(1, round(self.beta * self.distill.iterations)) if self.beta else 0


@dataclass
class SearchResult:
    """What a search learned.

    Attributes:
        policy: int64 (len(classes),), the chosen L of each class.
        actions: the action set, L ascending.
        episodes: for each episode the lists over classes "frames_per_segment", "distance", "start" and "reward", and
            what it cost: "iterations", "seconds", and "forward" and "backward", the clips that went through a network
            without and with a gradient to their pixels. "seconds" is None where a sweep served several episodes.
        mean_reward: float (len(classes), A), -inf where an action was never tried.
    """

    policy: torch.Tensor
    actions: tuple[int, ...]
    episodes: list[dict[str, list]]
    mean_reward: torch.Tensor


def david(
    train: "Clips",
    reward: TeacherReward,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    synthesis: bool = True,
    **options,
) -> DistilledSet:
    """Algorithm 1: a policy learned from early-stage distillations, then all of the distillation under it.

    Args:
        train: real clips, on the device to compute on.
        reward: Eq. 1, or a variant, by a teacher that was trained on them.
        ipc: I, stored videos of a class.
        seed: fixes everything random.
        settings: how.
        synthesis: False stores, under the policy learned, what the synthesis would start from (where that is noise:
            segments of real frames): the control that tells what the policy brings from what the matching brings.
        options: "experts", "classes", "work" and "sweeps" as ``synthesize`` takes them; ``work`` also holds the
            search's journal.

    Returns:
        the distilled set; its ``info["search"]`` holds the action set and the episodes.
    """
    found = learn_policy(train, reward, ipc=ipc, seed=seed, settings=settings, **options)
    info = {"search": {"actions": list(found.actions), "episodes": found.episodes}}
    if synthesis:
        return synthesize(train, found.policy, ipc=ipc, seed=seed, settings=settings.distill, info=info, **options)
    distill, classes = settings.distill, options.get("classes")
    kind = "real" if distill.start == "noise" else distill.start
    videos = start_videos(train, found.policy, ipc=ipc, seed=seed, kind=kind, classes=classes)
    return DistilledSet(rounded(videos) if distill.bounded else videos, found.policy, names_of(train, classes), info)


def names_of(train: "Clips", classes: range | None) -> list[str]:
    """The names of these classes; None stands for all."""
    return list(train.classes if classes is None else train.classes[classes.start : classes.stop])


def dm(
    train: "Clips",
    *,
    ipc: int,
    seed: int,
    settings: matching.Settings,
    policy: tuple[int, ...] | str | None = None,
    classes: range | None = None,
    **options,
) -> DistilledSet:
    """Distribution matching under a policy that is given, not learned; at L = F Case A of the paper's Table 4.

    Args:
        policy: as ``partition.given_policy`` takes it; the default, L = F, is plain DM without a partition.
        others: as ``synthesize`` takes them.
    """
    lengths = given_policy(policy, num_classes=len(train.classes), frames=train.frames, seed=seed)
    lengths = lengths if classes is None else lengths[classes.start : classes.stop]
    return synthesize(train, lengths, ipc=ipc, seed=seed, settings=settings, classes=classes, **options)


def synthesize(
    train: "Clips",
    policy: torch.Tensor,
    *,
    ipc: int,
    seed: int,
    settings: matching.Settings,
    experts=None,
    classes: range | None = None,
    work: Path | None = None,
    sweeps: Sweeps | None = None,
    info: dict | None = None,
) -> DistilledSet:
    """The second half of Algorithm 1: distil all N iterations under a fixed policy.

    Args:
        train: real clips, on the device to compute on.
        policy: int64 (len(classes),), L of each class.
        ipc, seed, settings: I, what fixes everything random, how.
        experts: MTT's, if their snapshots are the networks.
        classes: only these of the M; their videos become what they become among all.
        work: folder for the checkpoint that an interrupted run continues from.
        sweeps: take the videos out of the sweep of this seed, in which each class's losses are those of its own run.
        info: what the set is to remember.

    Returns:
        the distilled set, where its videos were distilled: on the device, or on the host if they would crowd it there.
        Its ``info`` has the "curve" of the held-out loss and, after a search and out of a sweep, the teacher's
        distances of every L.
    """
    names, info = names_of(train, classes), info or {}
    if sweeps:
        found = sweeps.get(ipc=ipc, seed=seed, iterations=settings.iterations)
        info["curve"] = [[iteration, sum(losses)] for iteration, losses in found.along("held_out", policy)]
        if "search" in info:  # what it would have been told later
            looks = [(note["iteration"], list(note["distance"].values())) for note in found.notes]
            info["sweep"] = [{"iteration": iteration, "distance": distance} for iteration, distance in looks]
        return DistilledSet(found.videos(policy), policy, names, info)
    distiller = Distiller(train, policy, ipc=ipc, seed=seed, settings=settings, classes=classes, experts=experts)
    distiller.run(settings.iterations, checkpoint=work and work / "checkpoint.safetensors")
    return DistilledSet(distiller.distilled(), policy, names, info | {"curve": distiller.curve})


def learn_policy(
    train: "Clips",
    reward: TeacherReward,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    experts=None,
    classes: range | None = None,
    work: Path | None = None,
    sweeps: Sweeps | None = None,
) -> SearchResult:
    """The first half of Algorithm 1: episodes of an agent, each of which distils all classes at once for N_early steps.

    The videos are initialised anew in every episode. Those of a warm-up round have one random stream, and differ in L
    alone: a sweep makes them together, and other searches of the same clips, seed and settings read it.

    Args:
        train: real training clips.
        reward: Eq. 1, or a variant, of the same classes.
        ipc, seed, settings: I, what fixes everything random, how.
        experts, classes: as ``synthesize`` takes them.
        work: folder of the journal, a JSON file that receives every finished episode; a search that was interrupted
            continues from it, replaying the recorded rewards.
        sweeps: where rounds are read. Rewards are the same but for rounding.

    Raises:
        ValueError: the journal is that of another search; or settings that fit no search, see ``make_agent``.
        FloatingPointError: the videos of an episode diverged.
    """
    actions, count, distill = action_set(train.frames), len(train.classes), settings.distill
    lengths, own = torch.tensor(actions), slice(None) if classes is None else slice(classes.start, classes.stop)
    # The agent has the tables of all classes, which never meet; so its draws for one do not depend on what others do.
    agent, plan = make_agent(count, len(actions), seed=seed, settings=settings)
    journal, together = work and work / "search.json", Counter(plan)
    networks = experts and experts.identity
    identity = derive(seed, train.fingerprint, *map(str, (settings, networks, reward.identity, ipc, classes)))
    episodes = _kept(journal, identity)
    for t, (stream, iterations) in enumerate(track(plan, desc="search", unit="episode")):
        chosen = agent.act()
        if t == len(episodes):
            policy, started = lengths[chosen][own], time.perf_counter()
            if sweeps and iterations and together[stream, iterations] == len(actions):
                found = sweeps.get(ipc=ipc, seed=stream, iterations=iterations, keep=False).along("distance", policy)
                start, distance, seconds = torch.tensor(found[0][1]), torch.tensor(found[-1][1]), None
            else:
                same = {"ipc": ipc, "seed": stream, "settings": distill, "classes": classes, "experts": experts}
                start, distance = early_stage(train, policy, reward, iterations, **same)
                seconds = round(time.perf_counter() - started, 3)
            check_divergence(start, distance, reward, distill)
            positions = train.by_class()[own]
            episode = {
                "frames_per_segment": policy.tolist(),
                "start": start.tolist(),
                "distance": distance.tolist(),
                "reward": reward(distance, start).tolist(),
                "iterations": iterations,
                **passes(
                    iterations,
                    real=sum(min(distill.batch_real, len(some)) for some in positions),
                    synthetic=int((ipc * (train.frames // policy)).sum()),
                ),
                "seconds": seconds,
            }
            episodes.append(episode)
            if journal:
                write_json(journal, {"identity": identity, "episodes": episodes})
        rewards = torch.zeros(count)
        rewards[own] = torch.tensor(episodes[t]["reward"])
        agent.update(chosen, rewards)
    return SearchResult(lengths[agent.policy()][own], actions, episodes, agent.mean_reward()[own])


def make_agent(num_classes: int, num_actions: int, *, seed: int, settings: Settings):
    """The agent that ``settings.agent`` names, and its plan: (random stream, iterations) of every episode.

    All actions of one warm-up round, and of one round of halving, share a stream, so that only L differs between
    their rewards (common random numbers).

    Raises:
        ValueError: no episode, or rewards of noise.
    """
    if settings.beta == 0 and settings.distill.start == "noise":
        raise ValueError("search_beta=0 rewards videos as they start, so it needs distill_start='real' or 'mean'")
    warmup, early = settings.warmup * num_actions, settings.early_iterations
    episodes = settings.episodes or warmup
    if episodes < 1:
        raise ValueError("search_episodes=0 stands for the warm-up alone, but search_warmup is 0 as well; raise either")
    if settings.agent == "halving":
        agent = SuccessiveHalving(num_classes, num_actions, budget=episodes * early)
        return agent, [(derive(seed, "round", k), iterations) for k, iterations in agent.schedule]
    agent = {"q": QLearner, "shared": SharedQLearner}[settings.agent](
        num_classes, num_actions, alpha=settings.alpha, gamma=settings.gamma, p=settings.p, warmup=settings.warmup,
        readout=settings.readout, generator=generator(seed, "q-learning"),
    )  # fmt: skip
    streams = [t // num_actions if t < warmup else t for t in range(episodes)]
    return agent, [(derive(seed, "episode", stream), early) for stream in streams]


def early_stage(train, policy, reward: TeacherReward, iterations: int, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's distances of every class before and after some iterations (Algorithm 1, lines 9-13).

    Args:
        options: of ``Distiller``.

    Returns:
        float (len(classes),) each.
    """
    distiller = Distiller(train, policy, **options)
    start = reward.distance(distiller.videos, policy)
    for _ in range(iterations):
        distiller.step()
    return start, reward.distance(distiller.distilled(), policy) if iterations else start


def check_divergence(start: torch.Tensor, distance: torch.Tensor, reward: TeacherReward, distill) -> None:
    """FloatingPointError where the teacher's distances, (len(classes),), say that videos became noise.

    Pixels that are kept in range stay finite whatever a step does, but not near their class.
    """
    lost = distill.bounded and distance.mean() > max(WORSE * start.mean(), reward.length.mean())
    if lost or not torch.isfinite(distance).all():
        raise FloatingPointError(
            f"the synthetic videos diverged within an episode, the teacher's distance from {start.mean():.3g} to "
            f"{distance.mean():.3g}; lower distill_lr"
        )


def passes(iterations: int, *, real: int, synthetic: float) -> dict[str, float]:
    """Clips that go through a network in an episode; the teacher sees the synthetic ones before and after.

    Args:
        real, synthetic: clips of an iteration.
    """
    return {"forward": iterations * real + (2 if iterations else 1) * synthetic, "backward": iterations * synthetic}


def _kept(journal: Path | None, identity: int) -> list[dict]:
    """The episodes that an interrupted search left in its journal."""
    if journal is None or not journal.exists():
        return []
    kept = read_json(journal)
    if kept["identity"] != identity:
        raise ValueError(f"{journal} is the journal of another search; delete it to start over")
    return kept["episodes"]
