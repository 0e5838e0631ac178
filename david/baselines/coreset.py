"""What Herding and K-Center share: real clips, chosen class by class among the features of a teacher."""

from collections.abc import Callable
from pathlib import Path

import torch

from david.baselines.random import check_ipc
from david.sets import DistilledSet
from david.start import empty_videos
from david.training import embed_clips, load_teacher


def select(train, choose: Callable, *, name: str, ipc, seed, settings, work: Path | None) -> DistilledSet:
    """Whole real clips, in the order in which ``choose`` takes them.

    The features are those of a network trained on ``train``, of one clip a video. The choice has no other
    randomness, so the seed is a different teacher: that of ``settings.teacher_seed + seed``. Seed 0 has the teacher
    of all other methods.

    Args:
        train: real clips.
        choose: (features of a class float64 (N, D) on the CPU, count) -> int64 (count,), rows without repetition.
        name: the method's.
        ipc: I, stored videos a class.
        seed: see above.
        settings: its common and ``teacher_`` fields.
        work: folder of this run; the teacher is kept beside it, for other runs.

    Raises:
        ValueError: a class has fewer than ``ipc`` clips.
    """
    check_ipc([len(own) for own in train.by_class()], train.classes, ipc)
    settings = settings.replace(teacher_seed=settings.teacher_seed + seed)
    teacher = load_teacher(train, settings=settings, folder=None if work is None else work.parent)
    # float64 and one device for the choice: on it, equal distances are always decided in the same way.
    features = embed_clips(teacher, train).cpu().double()
    videos = empty_videos(train, len(train.classes), ipc)
    for c, positions in enumerate(train.by_class()):
        videos[c] = train.batch(positions[choose(features[positions], ipc).numpy()])
    policy = torch.full((len(videos),), train.frames)
    return DistilledSet(videos, policy, list(train.classes), {"method": name, "seed": seed})
