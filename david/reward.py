"""Teacher-in-the-loop reward, Eq. 1: how close the features of the synthetic clips come to the real ones."""

import numpy as np
import torch

from david import sharding
from david.c3d import C3D
from david.clips import Clips
from david.matching import CHUNK, class_means
from david.temporal import partition
from david.training import embed_clips

REWARDS = ("paper", "relative", "gain")


class TeacherReward:
    """Eq. 1 for every class, on the partitioned clips, with the teacher's class means computed once.

    Args:
        teacher: Phi_T, trained on the real training set.
        train: the real training clips, on the teacher's device.
        kind: "paper" is Eq. 1, 1 / (1 + d) with d = ||mean Phi(syn) - mean Phi(real)||_2.
            "relative" measures d in units of ||mean Phi(real)||_2, so that the scale of the features drops out.
            "gain" subtracts from Eq. 1 its value for the same L before the first iteration: what distillation achieved,
            without the head start of averaging many segments.

    Raises:
        ValueError: unknown kind.
    """

    def __init__(self, teacher: C3D, train: Clips, kind: str = "paper"):
        if kind not in REWARDS:
            raise ValueError(f"unknown reward {kind!r}; choose one of {', '.join(REWARDS)}")
        self.teacher, self.kind = teacher, kind
        self.count = len(train.classes)
        classes = sharding.share(self.count)
        train = train.subset(np.isin(train.labels, classes))
        features, members = embed_clips(teacher, train), train.by_class()
        self.real = torch.stack([features[torch.as_tensor(members[c])].mean(0) for c in classes])
        self.length = sharding.gather(self.real.norm(dim=1).cpu(), self.count)

    @torch.no_grad()
    def distance(self, videos: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
        """d of every class, float (M,), on the CPU; on several ranks, each brings those of its share of the classes.

        Args:
            videos: float (M, I, F, 3, H, W), normalised, or those of this rank's share.
            policy: int64 (M,), L of each class.
        """
        classes = sharding.share(self.count)
        policy = policy[classes.start : classes.stop]
        clips = [partition(v, length) for v, length in zip(videos, policy.tolist(), strict=True)]
        features = torch.cat([self.teacher.embed(part) for part in torch.cat(clips).split(CHUNK)])
        distance = (class_means(features, [len(c) for c in clips]) - self.real).norm(dim=1)
        return sharding.gather(distance.cpu(), self.count)

    def __call__(self, distance: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The reward of every class, float (M,).

        Args:
            distance: d after the early stage, (M,).
            start: d of the same videos before the first iteration, (M,); only "gain" uses it.
        """
        if self.kind == "relative":
            return 1 / (1 + distance / self.length)
        reward = 1 / (1 + distance)
        return reward - 1 / (1 + start) if self.kind == "gain" else reward
