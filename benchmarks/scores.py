"""Score every L of every class as rewards would: Eq. 1, its unbiased form, the teacher's and a student's opinion.

``scored`` writes what each would have said of the segments as they start, after the early stage and at the end;
whether it orders the L as students do is read from these numbers and the records of the same seed.
"""

from pathlib import Path

import torch
from torch.nn.functional import log_softmax

from david.baselines.experts import load_experts
from david.matching import clip_pieces, start_videos
from david.partition import action_set
from david.reward import TeacherReward
from david.runs.records import record_key
from david.sets import DistilledSet
from david.support.files import write_json
from david.support.seeds import derive
from david.sweep import Sweeps
from david.training import Settings, embed_clips, load_teacher, train_on

STEPS, STUDENTS = 60, 2  # of the students in the loop


@torch.no_grad()
def log_likelihood(net, clips, batch: int = 128) -> torch.Tensor:
    """Mean log-likelihood of every class's label on its real clips, (M,), on the CPU."""
    labels = torch.as_tensor(clips.labels).to(clips.device)
    parts = torch.arange(len(clips)).split(batch)
    own = torch.cat([log_softmax(net(clips.batch(part)), 1) for part in parts]).gather(1, labels[:, None])[:, 0]
    sums = torch.zeros(len(clips.classes), device=own.device).index_add_(0, labels, own)
    return (sums / torch.bincount(labels, minlength=len(sums))).cpu()


@torch.no_grad()
def opinions(reward: TeacherReward, variance: torch.Tensor, videos: torch.Tensor, length: int) -> dict[str, list]:
    """What the teacher says of the videos of every class at one L.

    Args:
        variance: trace of the covariance of every class's real features, (M,).

    Returns:
        "distance", d of Eq. 1; "unbiased", d^2 less what n clips drawn from the class itself would have of it in the
        mean, trace / n; "likelihood", the mean log-likelihood of the label.
    """
    policy = torch.full((len(videos),), length)
    distance, likelihood = reward.distance(videos, policy), []
    for label, video in enumerate(videos):
        clips = torch.cat(list(clip_pieces(video[None].to(reward.real.device), [length], reward.at_once)))
        likelihood.append(log_softmax(reward.teacher(clips), 1)[:, label].mean())
    count = videos.shape[1] * videos.shape[2] // length
    return {
        "distance": distance.tolist(),
        "unbiased": (distance**2 - variance / count).tolist(),
        "likelihood": torch.stack(likelihood).tolist(),
    }


def scored(experiment, *, seed: int, folder: Path, ipc: int = 1) -> Path:
    """The scores of a seed, in a file of ``folder``; read back if it is there.

    Args:
        experiment: whose settings say how the sweep, the teacher and the students are made.
    """
    settings, train = experiment.settings, experiment.train
    identity = experiment.identity("david:warmup", ipc=ipc, seed=seed)
    path = folder / f"scores-{experiment.name}-seed{seed}-{record_key(identity)}.json"
    if path.exists():
        return path
    work = experiment.store.folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(train, seed=settings.teacher_of(seed), settings=settings.teacher, folder=work)
    experts = load_experts(train, seed=settings.experts_of(seed), settings=settings.expert, folder=work)
    reward = TeacherReward(teacher, train)
    features = [embed_clips(teacher, train.subset(positions)) for positions in train.by_class()]
    variance = torch.stack([own.var(0, correction=min(1, len(own) - 1)).sum() for own in features]).cpu()
    early, last = settings.early_iterations, settings.distill_iterations
    sweeps = Sweeps(train, settings.distill, reward, work, experts=experts, early=early)
    student, rows = settings.student, []
    short = Settings(STEPS, student.batch, student.lr, student.optimizer, student.width)
    for iterations in (0, early, last):
        found = sweeps.get(ipc=ipc, seed=seed, iterations=iterations) if iterations else None
        for length in action_set(train.frames):
            policy = torch.full((len(train.classes),), length)
            if found:
                videos = found.videos(policy)
            else:
                videos = start_videos(train, policy, ipc=ipc, seed=seed, kind=settings.distill_start)
            row = {"iteration": iterations, "L": length, **opinions(reward, variance, videos, length)}
            whole = DistilledSet(videos, policy, list(train.classes), {}).to(train.device)
            nets = [train_on(whole, seed=derive(seed, "loop", k), settings=short) for k in range(STUDENTS)]
            row["student"] = torch.stack([log_likelihood(net, train) for net in nets]).mean(0).tolist()
            rows.append(row)
    write_json(path, {**identity, "classes": list(train.classes), "variance": variance.tolist(), "rows": rows})
    return path
