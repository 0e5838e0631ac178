"""Full data: the reference row, all real clips."""

from david.sets import RealSet


def distill(train, *, ipc=None, seed=0, settings=None, work=None) -> RealSet:
    """No distillation: the whole training set behind the interface of a distilled set. Only ``train`` matters."""
    return RealSet(train, {"method": "full"})
