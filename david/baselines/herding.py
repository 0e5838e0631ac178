"""Herding: real clips whose running mean follows the class mean (Welling, "Herding dynamical weights", 2009)."""

from pathlib import Path

import torch

from david.baselines.coreset import select
from david.sets import DistilledSet


def distill(train, *, ipc, seed, settings, work: Path | None = None) -> DistilledSet:
    """Herding in the features of a teacher: see ``coreset.select`` for arguments, errors and what the seed means."""
    return select(train, herding, name="herding", ipc=ipc, seed=seed, settings=settings, work=work)


def herding(features: torch.Tensor, count: int) -> torch.Tensor:
    """Greedily, the rows whose mean stays nearest to the mean of all, as in the code of DC and VDSD.

    Pick i + 1 minimises ||(i + 1) mean - sum of the picks so far - row|| over the rows not yet picked.

    Args:
        features: float (N, D).
        count: at most N.

    Returns:
        int64 (count,), in the order of picking; the first ``k`` are the picks for a count of ``k``.
    """
    wanted, mean = torch.zeros_like(features[0]), features.mean(0)
    picks = []
    for _ in range(count):
        wanted = wanted + mean  # what the picks still lack, this one included
        distances = (wanted - features).norm(dim=1)
        distances[picks] = torch.inf
        picks.append(int(distances.argmin()))
        wanted = wanted - features[picks[-1]]
    return torch.tensor(picks)
