"""MTT: synthetic videos on which a student follows the trajectories of experts (Cazenavette et al. 2022)."""

import math
from dataclasses import asdict
from pathlib import Path

import torch

from david.baselines.trajectories import TrajectoryLoss, load_experts
from david.data.clips import rounded
from david.matching import pixel_optimizer
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.start import start_videos
from david.support.loop import Loop
from david.support.seeds import derive


def distill(train, *, ipc, seed, settings, work: Path | None = None) -> DistilledSet:
    """Match trajectories for ``settings.mtt_iterations`` iterations, from real clips, at full temporal resolution.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random except the experts, which all seeds share.
        settings: its common, ``expert_`` and ``mtt_`` fields.
        work: folder for the checkpoint that an interrupted run continues from; the experts are kept beside it, for
            other runs.

    Returns:
        DistilledSet; its ``info["student_lr"]`` is the learning rate that was learned with it, at which MTT's
        authors train students.
    """
    experts = load_experts(train, settings=settings, folder=None if work is None else work.parent)
    matcher = TrajectoryMatcher(train, experts, ipc=ipc, seed=seed, settings=settings)
    matcher.run(settings.mtt_iterations, checkpoint=None if work is None else work / "checkpoint.safetensors")
    made = {"method": "mtt", "ipc": ipc, "seed": seed, "settings": asdict(settings)}
    return matcher.distilled(made | {"student_lr": matcher.leaves["student_lr"].item()})


class TrajectoryMatcher(Loop):
    """The videos and the student's learning rate, moved together.

    With ``mtt_lr_unit="pixel"`` a step that goes on in one direction changes a pixel by ``mtt_lr`` deviations, root
    mean square, where the gradient is as large as it is at the start, on average over ten iterations' losses: so one
    number serves every size, IPC and student.

    Args:
        train: real clips, on the device to compute on.
        experts: ``load_experts`` of them.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: its common and ``mtt_`` fields.

    Attributes:
        losses: the trajectory loss of each iteration since this object was made, scalars on the device.
    """

    step_setting = "mtt_lr"

    def __init__(self, train, experts, *, ipc: int, seed: int, settings: Settings):
        self.train, self.ipc, self.seed, self.settings = train, ipc, seed, settings
        self.loss, self.losses = TrajectoryLoss(train, experts, seed=seed, settings=settings), []
        self.policy = torch.full((len(train.classes),), settings.frames)
        videos = start_videos(train, self.policy, ipc=ipc, seed=seed, kind="real", device=train.device).requires_grad_()
        student_lr = torch.tensor(settings.mtt_student_lr, device=train.device, requires_grad=True)
        self.leaves = {"videos": videos, "student_lr": student_lr}
        s, lr = settings, settings.mtt_lr
        self.average, self.bounded = s.mtt_average, s.mtt_range == "8-bit"
        if s.mtt_lr_unit == "pixel":
            lr *= (1 - s.mtt_momentum) / self.gradient_size()
        self.optimizers = [
            pixel_optimizer([videos], s.mtt_optimizer, lr=lr, momentum=s.mtt_momentum),
            torch.optim.SGD([student_lr], s.mtt_student_lr_lr, momentum=0.5),
        ]
        self.begin_averages(["videos"])

    def gradient_size(self, draws: int = 10) -> float:
        """Root mean square of the gradient to the videos at the start, over the losses of the first iterations."""
        videos, squares = self.leaves["videos"], []
        for iteration in range(draws):
            self.loss.backward(self.draw, self.leaves["student_lr"], iteration)
            squares.append(videos.grad.square().mean())
            videos.grad = self.leaves["student_lr"].grad = None
        size = torch.stack(squares).mean().sqrt().item()
        if not 0 < size < math.inf:
            raise ValueError(
                f"mtt_lr_unit='pixel' measures steps by the gradient at the start, which is {size}: mend "
                f"mtt_student_lr={self.settings.mtt_student_lr} or expert_lr={self.settings.expert_lr}"
            )
        return size

    def draw(self, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips of a student step, with a graph to the videos: all of them, or ``mtt_batch``, balanced over classes."""
        videos = self.leaves["videos"]
        if self.settings.mtt_batch:
            return DistilledSet(videos, self.policy, self.train.classes).batch(random, self.settings.mtt_batch)
        return videos.flatten(0, 1), torch.arange(len(videos), device=videos.device).repeat_interleave(self.ipc)

    def step(self) -> None:
        """One iteration: the student's steps along one expert, then one step on videos and learning rate."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        student_lr = self.leaves["student_lr"]
        self.losses.append(self.loss.backward(self.draw, student_lr, self.iteration))
        for optimizer in self.optimizers:
            optimizer.step()
        student_lr.data.clamp_(min=0.001)  # as the published code has it
        self.settle("videos", self.bounded)
        self.iteration += 1

    def distilled(self, info: dict) -> DistilledSet:
        """The product so far."""
        videos = self.result("videos")
        videos = rounded(videos) if self.bounded else videos
        return DistilledSet(videos, self.policy, list(self.train.classes), info)

    def identity(self) -> str:
        settings = str(self.settings.subset("expert", "mtt"))
        return str(derive(self.seed, self.train.fingerprint, settings, self.ipc))
