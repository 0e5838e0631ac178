"""K-Center: real clips such that no clip of the class is far from a chosen one (Sener & Savarese, 2018)."""

from pathlib import Path

import torch

from david.baselines.coreset import select
from david.sets import DistilledSet


def distill(train, *, ipc, seed, settings, work: Path | None = None) -> DistilledSet:
    """K-Center in the features of a teacher: see ``coreset.select`` for arguments, errors and what the seed means."""
    return select(train, k_center, name="kcenter", ipc=ipc, seed=seed, settings=settings, work=work)


def k_center(features: torch.Tensor, count: int) -> torch.Tensor:
    """Farthest first (Gonzalez, 1985): the row nearest to the mean, then always the one farthest from all picks.

    The largest distance of a row to its nearest pick is then at most twice the smallest possible. (The code of
    earlier work subtracts arrays of different lengths where it means all pairs.)

    Args:
        features: float (N, D).
        count: at most N.

    Returns:
        int64 (count,), in the order of picking; the first ``k`` are the picks for a count of ``k``.
    """
    picks = [int((features - features.mean(0)).norm(dim=1).argmin())]
    nearest = torch.full_like(features[:, 0], torch.inf)  # distance of each row to its nearest pick
    while len(picks) < count:
        nearest = torch.minimum(nearest, (features - features[picks[-1]]).norm(dim=1))
        nearest[picks] = -1  # never again, even if all other rows are copies of picks
        picks.append(int(nearest.argmax()))
    return torch.tensor(picks)
