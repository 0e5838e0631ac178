"""What VDSD ("Dancing with Still Images") stores instead of videos, and how it becomes training clips."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.functional import conv3d

from david.sets import DistilledSet, StoredSet
from david.support.pixels import send


def hallucinate(static: torch.Tensor, dynamic: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """VDSD's hallucinator: one convolution over the still image, repeated in time, and the dynamic memory.

    Args:
        static: float (B, 3, H, W).
        dynamic: float (B, F, 1, H, W), the fourth input channel.
        weight, bias: float (3, 4, 3, 3, 3) and (3,): Conv3d of kernel 3 and padding 1, without an activation.

    Returns:
        float (B, F, 3, H, W), normalised like ``static``, not clamped.
    """
    still = static[:, :, None].expand(-1, -1, dynamic.shape[1], -1, -1)
    return conv3d(torch.cat([still, dynamic.transpose(1, 2)], 1), weight, bias, padding=1).transpose(1, 2)


@dataclass
class StaticDynamicSet(StoredSet):
    """What VDSD stores ("Dancing with Still Images"): still images, one-channel clips, and what joins them.

    Video v of a class is any of four clips: one of its images 2v and 2v + 1 with one of its dynamic memories 2v
    and 2v + 1. Clips are differentiable in all four tensors.

    Attributes:
        static: float32 (M, 2 IPC, 3, H, W), normalised by MEAN and STD.
        dynamic: float32 (M, 2 IPC, F, 1, H, W).
        weight, bias: float32 (3, 4, 3, 3, 3) and (3,), the hallucinator of all classes.
        classes: M class names.
        info: free JSON about its making.
    """

    format = "david-static-dynamic-set/1"
    stored = ("static", "dynamic", "weight", "bias")

    static: torch.Tensor
    dynamic: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    classes: list[str]
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        (m, s, *_), (n, d, *_) = self.static.shape, self.dynamic.shape
        if not m == n == len(self.classes):
            raise ValueError(f"{m} classes of static, {n} of dynamic memories and {len(self.classes)} names")
        if s != d or s % 2:
            raise ValueError(f"a video takes two static and two dynamic memories; a class has {s} and {d}")

    @property
    def frames(self) -> int:
        return self.dynamic.shape[2]

    @property
    def ipc(self) -> int:
        return self.static.shape[1] // 2

    @property
    def policy(self) -> torch.Tensor:
        """L = F of every class: nothing is partitioned."""
        return torch.full((len(self.classes),), self.frames)

    @property
    def clips_per_class(self) -> torch.Tensor:
        """Training clips of each class: the four combinations of each video, int64 (M,)."""
        return torch.full((len(self.classes),), 4 * self.ipc)

    def clips(self, labels: torch.Tensor, picks: torch.Tensor) -> torch.Tensor:
        """Training clips by number, float (B, F, 3, H, W): number 4v + 2i + j is image 2v + i with dynamics 2v + j."""
        video, i, j = picks // 4, picks // 2 % 2, picks % 2
        labels, image, memory = (send(own, self.device) for own in (labels, 2 * video + i, 2 * video + j))
        static, dynamic = self.static[labels, image], self.dynamic[labels, memory]
        return hallucinate(static, dynamic, self.weight, self.bias)

    def combinations(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Every video once, class by class, each in one of its combinations: labels and picks, int64 (M * IPC,)."""
        labels = torch.arange(len(self.classes)).repeat_interleave(self.ipc)
        videos = torch.arange(self.ipc).repeat(len(self.classes))
        return labels, 4 * videos + torch.randint(4, (len(videos),), generator=generator)

    @property
    def videos(self) -> torch.Tensor:
        """The first combination of every video, to look at: float (M, IPC, F, 3, H, W)."""
        labels, picks = self.combinations(torch.Generator())
        clips = self.clips(labels, picks - picks % 4).detach()
        return clips.unflatten(0, (len(self.classes), self.ipc))


def load_set(path: str | Path, device: torch.device | str = "cpu") -> DistilledSet | StaticDynamicSet:
    """Read a set of either kind, as its file says; errors as of ``StoredSet.load``."""
    return StoredSet.load(path, device)
