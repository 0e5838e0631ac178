"""The static version of the training set: what a network can learn without motion (Eq. 6)."""

from david.sets import StillSet


def distill(train, *, ipc=None, seed=0, settings=None, work=None) -> StillSet:
    """No distillation: one random frame of every training video, repeated. Only ``train`` matters."""
    return StillSet(train, {"method": "still"})
