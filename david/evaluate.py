"""Evaluation: train students on a distilled set, test the last iterate on deterministic real clips."""

import torch

from david.c3d import C3D
from david.data.clips import Clips
from david.runs.settings import Settings
from david.sets import DistilledSet, RealSet
from david.training import train_on


@torch.no_grad()
def accuracy(net: C3D, test: Clips, batch: int = 128) -> dict:
    """Top-1, top-5 and per-class accuracy on every test clip: unflipped centre clips, normalised by constants.

    Returns:
        {"top1": float, "top5": float, "per_class": list of M floats}, fractions of 1. Each clip is judged alone:
        no statistics of a test batch enter.
    """
    labels = torch.as_tensor(test.labels).to(test.device)
    positions = torch.arange(len(test)).split(batch)
    logits = torch.cat([net(test.batch(part)) for part in positions])
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    first = ranked[:, 0].double()
    per_class = torch.zeros(logits.shape[1], dtype=torch.float64, device=first.device).index_add_(0, labels, first)
    per_class /= torch.bincount(labels, minlength=logits.shape[1])
    return {
        "top1": first.mean().item(),
        "top5": ranked.any(1).double().mean().item(),
        "per_class": per_class.tolist(),
    }


def evaluate(distilled: DistilledSet | RealSet, test: Clips, *, seed: int, settings: Settings) -> dict:
    """Train one student on the set by the ``student_`` recipe (the real set: by the ``teacher_`` recipe) and test it.

    It trains on the device of the test clips, wherever the set is.

    Returns:
        what ``accuracy`` returns, and the student's "seed".
    """
    stage = "teacher" if isinstance(distilled, RealSet) else "student"
    student = train_on(distilled, stage=stage, seed=seed, settings=settings, device=test.device)
    return {"seed": seed, **accuracy(student, test)}
