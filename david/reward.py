"""Reward what a teacher sees, Eq. 1: how close the features of synthetic clips come to those of real ones."""

from typing import TYPE_CHECKING

import torch

from david.c3d import C3D
from david.matching import class_chunks, class_means, clip_pieces
from david.training import embed_clips

if TYPE_CHECKING:
    from david.data.clips import Clips

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
        classes: only of these of the M.

    Attributes:
        length: ||mean Phi(real)||_2 of each class, float (len(classes),), on the CPU.

    Raises:
        ValueError: unknown kind.
    """

    def __init__(self, teacher: C3D, train: "Clips", kind: str = "paper", classes: range | None = None):
        if kind not in REWARDS:
            raise ValueError(f"unknown reward {kind!r}; choose one of {', '.join(REWARDS)}")
        self.teacher, self.kind, self.at_once = teacher, kind, train.at_once
        self.classes = range(len(train.classes)) if classes is None else classes
        own = train.by_class()[self.classes.start : self.classes.stop]
        self.real = torch.stack([embed_clips(teacher, train.subset(positions)).mean(0) for positions in own])
        self.length = self.real.norm(dim=1).cpu()

    @property
    def identity(self) -> str:
        """Stands for the teacher and the real clips."""
        return str(self.real.double().norm().item())

    @torch.no_grad()
    def distance(self, videos: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
        """d of every class, float (len(classes),), on the CPU.

        Args:
            videos: float (len(classes), I, F, 3, H, W), normalised.
            policy: int64 (len(classes),), their L.
        """
        lengths = policy.tolist()
        counts = [videos.shape[1] * (videos.shape[2] // length) for length in lengths]
        means = []
        for chunk in class_chunks(counts, self.at_once):
            some = videos[chunk.start : chunk.stop].to(self.real.device)  # from the host, if that is their home
            pieces = clip_pieces(some, lengths[chunk.start : chunk.stop], self.at_once)
            features = torch.cat([self.teacher.embed(clips) for clips in pieces])
            means.append(class_means(features, counts[chunk.start : chunk.stop]))
        return (torch.cat(means) - self.real).norm(dim=1).cpu()

    def __call__(self, distance: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The reward of every class, float (len(classes),).

        Args:
            distance: d after the early stage.
            start: d of the same videos before the first iteration; only "gain" uses it.
        """
        if self.kind == "relative":
            return 1 / (1 + distance / self.length)
        reward = 1 / (1 + distance)
        return reward - 1 / (1 + start) if self.kind == "gain" else reward
