"""MTT: synthetic videos on which a student follows the trajectories of experts (Cazenavette et al. 2022).

``distill`` is the method, ``TrajectoryMatcher`` its loop, ``TrajectoryLoss`` its loss; `experts.py` trains the experts.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from david.baselines.experts import Experts, student_net, unflatten
from david.data.clips import Clips
from david.matching import pixel_optimizer, start_videos
from david.sets import DistilledSet
from david.support.loop import Loop
from david.support.pixels import rounded
from david.support.seeds import derive, generator, keep_random_state
from david.training import Draw


@dataclass(frozen=True)
class Settings:
    """How trajectories are matched; the defaults are MTT's.

    Attributes:
        iterations: N.
        optimizer, lr, momentum: of the steps on normalised pixels; ``lr_unit`` "absolute", or "pixel": see
            ``TrajectoryMatcher``.
        range, average: as ``matching.Settings`` has them.
        steps: of the student, unrolled in an iteration.
        batch: synthetic clips of a student's step; 0: the whole set.
        span: epochs of the expert that the student is to cover.
        max_start: epochs of the expert to start from: 0 to this, exclusive.
        student_lr, student_lr_lr: the student's learning rate at first, and the rate that it is learned at.
        width: factor on the channels of C3D.
    """

    iterations: int = 8000
    optimizer: str = "sgd"
    lr: float = 1e5
    momentum: float = 0.5
    range: str = "8-bit"
    lr_unit: str = "absolute"
    average: float = 0.0
    steps: int = 10
    batch: int = 0
    span: int = 1
    max_start: int = 10
    student_lr: float = 0.01
    student_lr_lr: float = 1e-5
    width: float = 1.0


def distill(
    train: Clips, experts: Experts, *, ipc: int, seed: int, settings: Settings, work: Path | None = None
) -> DistilledSet:
    """Match trajectories for ``settings.iterations`` iterations, from real clips, at full temporal resolution.

    Args:
        train: real clips, on the device to compute on.
        experts: trained on them.
        ipc: I, stored videos a class.
        seed: fixes everything random but the experts.
        settings: how.
        work: folder for the checkpoint that an interrupted run continues from.

    Returns:
        DistilledSet; its ``info["student_lr"]`` is the learning rate that was learned with it, at which MTT's
        authors train students.

    Raises:
        ValueError: a single class.
    """
    check_classes(train.classes)
    matcher = TrajectoryMatcher(train, experts, ipc=ipc, seed=seed, settings=settings)
    matcher.run(settings.iterations, checkpoint=work and work / "checkpoint.safetensors")
    return matcher.distilled({"student_lr": matcher.leaves["student_lr"].item()})


def check_classes(classes: list[str]) -> None:
    """ValueError for a single class: a network that cannot be wrong learns nothing, so it leaves no trajectory."""
    if len(classes) < 2:
        raise ValueError(
            f"MTT follows networks as they learn to tell classes apart, and {classes[0]} is the only one: add a class, "
            f"or choose another method, such as 'dm' or 'david'"
        )


class TrajectoryMatcher(Loop):
    """The videos and the student's learning rate, moved together.

    With ``lr_unit="pixel"`` a step that goes on in one direction changes a pixel by ``lr`` deviations, root
    mean square, where the gradient is as large as it is at the start, on average over ten iterations' losses: so one
    number serves every size, IPC and student.

    Args:
        train: real clips, on the device to compute on.
        experts: ``load_experts`` of them.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: how.

    Attributes:
        losses: the trajectory loss of each iteration since this object was made, scalars on the device.
    """

    step_setting = "mtt_lr"

    def __init__(self, train, experts, *, ipc: int, seed: int, settings: Settings):
        self.train, self.ipc, self.seed, self.settings = train, ipc, seed, settings
        self.loss, self.losses = TrajectoryLoss(train, experts, seed=seed, settings=settings), []
        self.policy = torch.full((len(train.classes),), train.frames)
        videos = start_videos(train, self.policy, ipc=ipc, seed=seed, kind="real", device=train.device).requires_grad_()
        student_lr = torch.tensor(settings.student_lr, device=train.device, requires_grad=True)
        self.leaves = {"videos": videos, "student_lr": student_lr}
        s, lr = settings, settings.lr
        self.average, self.bounded = s.average, s.range == "8-bit"
        if s.lr_unit == "pixel":
            lr *= (1 - s.momentum) / self.gradient_size()
        self.optimizers = [
            pixel_optimizer([videos], s.optimizer, lr=lr, momentum=s.momentum),
            torch.optim.SGD([student_lr], s.student_lr_lr, momentum=0.5),
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
                f"mtt_student_lr={self.settings.student_lr} or expert_lr"
            )
        return size

    def draw(self, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips of a student step, with a graph to the videos: all of them, or ``mtt_batch``, balanced over classes."""
        videos = self.leaves["videos"]
        if self.settings.batch:
            return DistilledSet(videos, self.policy, self.train.classes).batch(random, self.settings.batch)
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
        parts = (self.settings, self.loss.experts.identity, self.ipc)
        return str(derive(self.seed, self.train.fingerprint, *map(str, parts)))


class TrajectoryLoss:
    """Where does a student get, that starts on an expert's trajectory and learns from synthetic clips? (MTT, Eq. 2)

    The loss of iteration i is |theta_S - theta*(t + span)|^2 / |theta*(t) - theta*(t + span)|^2: t is a random epoch of
    a random expert, and theta_S is where S = ``steps`` steps of SGD lead from theta*(t). It is 1 for a
    student that stays where it is. Expert, t, dropout and clips depend on (seed, i) only.

    Args:
        train: real clips, for their classes and device.
        experts: trained on them.
        seed: fixes everything random.
        settings: how.

    Raises:
        ValueError: no expert was trained for ``span`` epochs.
    """

    def __init__(self, train: Clips, experts: Experts, *, seed: int, settings: Settings):
        self.experts, self.seed, self.device = experts, seed, train.device
        self.steps, self.span = settings.steps, settings.span
        self.starts = min(settings.max_start, experts.epochs - self.span + 1)
        if self.starts < 1:
            raise ValueError(f"mtt_span={self.span} exceeds the {experts.epochs} epochs of the experts: expert_epochs")
        self.net = student_net(train, settings.width).requires_grad_(False)

    def segment(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """theta*(t) and theta*(t + span) of an iteration, (P,) each, on the device."""
        random = generator(self.seed, "trajectory", iteration)
        expert, epoch = (int(torch.randint(n, (), generator=random)) for n in (len(self.experts), self.starts))
        start, target = self.experts.segment(expert, epoch, self.span)
        return start.to(self.device), target.to(self.device)

    def _clips(self, draw: Draw, iteration: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return draw(generator(self.seed, "trajectory", iteration, step))

    def _slope(self, theta, clips, labels, iteration: int, step: int, **options) -> torch.Tensor:
        """The gradient of the student's loss at theta (P,), under the dropout of an inner step."""
        torch.manual_seed(derive(self.seed, "dropout", iteration, step))
        logits = functional_call(self.net, unflatten(theta, self.net), (clips,))
        return torch.autograd.grad(cross_entropy(logits, labels), theta, **options)[0]

    def backward(self, draw: Draw, student_lr: torch.Tensor, iteration: int) -> torch.Tensor:
        """Add the loss's gradients to the ``grad`` of ``student_lr`` and of every leaf that ``draw`` made clips from.

        One graph of all S steps would need S times the memory of one. Here the steps are taken without it, and
        gone through once more from the last to the first, each with a graph of its own: with the adjoint
        a_s = dloss / dtheta_s and the slope g_s = dCE / dtheta_s, theta_{s+1} = theta_s - lr g_s gives
        dloss / dx = d(-lr a_{s+1} . g_s) / dx for the pixels x of step s, and a_s = a_{s+1} + d(-lr a_{s+1} . g_s) /
        dtheta_s.

        Args:
            draw: generator -> (clips float (B, F, 3, H, W), labels int64 (B,)), the same for the same generator. It is
                called twice a step; what was used to make the clips needs a graph to its leaves.
            student_lr: lr, a scalar.
            iteration: i.

        Returns:
            the loss, a scalar without a graph.
        """
        start, target = self.segment(iteration)
        lr, scale = student_lr.detach(), (start - target).square().sum()
        path = [start]  # theta_0 ... theta_S
        with keep_random_state(start.device):
            for step in range(self.steps):
                with torch.no_grad():
                    clips, labels = self._clips(draw, iteration, step)
                theta = path[-1].requires_grad_()
                path.append(theta.detach() - lr * self._slope(theta, clips, labels, iteration, step))
            gap = path.pop() - target
            adjoint, d_lr = 2 * gap / scale, torch.zeros_like(lr)
            for step in reversed(range(self.steps)):
                clips, labels = self._clips(draw, iteration, step)
                theta, pixels = path.pop(), clips.detach().requires_grad_()
                slope = self._slope(theta, pixels, labels, iteration, step, create_graph=True)
                d_lr -= adjoint @ slope.detach()
                d_theta, d_pixels = torch.autograd.grad(slope, (theta, pixels), -lr * adjoint)
                clips.backward(d_pixels)
                adjoint = adjoint + d_theta
        student_lr.grad = d_lr if student_lr.grad is None else student_lr.grad + d_lr
        return gap.square().sum() / scale
