"""MTT: synthetic videos on which a student follows the trajectories of experts (Cazenavette et al. 2022).

``distill`` is the method, ``TrajectoryMatcher`` its loop, ``TrajectoryLoss`` its loss; experts are networks whose
training on real clips is recorded.
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.data.clips import Clips
from david.matching import pixel_optimizer, start_videos
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.loop import Loop
from david.support.pixels import rounded, send
from david.support.progress import track
from david.support.seeds import derive, generator, keep_random_state
from david.training import Draw, check_loss


def distill(train, *, ipc, seed, settings, work: Path | None = None) -> DistilledSet:
    """Match trajectories for ``settings.mtt_iterations`` iterations, from real clips, at full temporal resolution.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random, but for experts that all seeds share.
        settings: its common, ``expert_`` and ``mtt_`` fields.
        work: folder for the checkpoint that an interrupted run continues from; the experts are kept beside it, for
            other runs.

    Returns:
        DistilledSet; its ``info["student_lr"]`` is the learning rate that was learned with it, at which MTT's
        authors train students.

    Raises:
        ValueError: a single class.
    """
    check_classes(train.classes)
    experts = load_experts(train, seed=settings.experts_of(seed), settings=settings, folder=work and work.parent)
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


class Experts:
    """Recorded trainings on real clips.

    Args:
        recordings: of each expert its snapshots, float (epochs + 1, P): a tensor, or the path of a safetensors file.
        identity: stands for them in the identity of what is made with them.

    Attributes:
        epochs: how long each was trained.
    """

    def __init__(self, recordings: list[torch.Tensor | Path], identity: str = ""):
        self.recordings, self.identity = recordings, identity
        self.epochs = min(snapshot_shape(recording)[0] for recording in recordings) - 1

    def __len__(self) -> int:
        return len(self.recordings)

    def segment(self, expert: int, epoch: int, span: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An expert's parameters after ``epoch`` and after ``epoch + span`` epochs, (P,) each; reads those two only.

        Raises:
            IndexError: the expert was not trained so long.
        """
        if not 0 <= epoch <= epoch + span <= self.epochs:
            raise IndexError(f"epochs {epoch} to {epoch + span} of an expert of {self.epochs} epochs")
        recording = self.recordings[expert]
        if torch.is_tensor(recording):
            return recording[epoch], recording[epoch + span]
        with safe_open(recording, "pt") as file:
            rows = file.get_slice("snapshots")
            return rows[epoch], rows[epoch + span]


def snapshot_shape(recording: torch.Tensor | Path) -> tuple[int, int]:
    """(epochs + 1, P); of a file without reading its snapshots.

    Raises:
        ValueError: the file is truncated, or is not an expert.
    """
    if torch.is_tensor(recording):
        return tuple(recording.shape)
    try:
        with safe_open(recording, "pt") as file:
            return tuple(file.get_slice("snapshots").get_shape())
    except SafetensorError as error:
        raise ValueError(f"{recording} is not a whole expert ({error}); delete it to train one anew") from error


def check_classes(classes: list[str]) -> None:
    """ValueError for a single class: a network that cannot be wrong learns nothing, so it leaves no trajectory."""
    if len(classes) < 2:
        raise ValueError(
            f"MTT follows networks as they learn to tell classes apart, and {classes[0]} is the only one: add a class, "
            f"or choose another method, such as 'dm' or 'david'"
        )


def load_experts(train: Clips, *, seed: int, settings: Settings, folder: Path | None = None) -> Experts:
    """``expert_count`` experts, each read from a file of its own in ``folder``, or trained and then kept there.

    All runs that ask for one seed share them, and all of them are used (the published code draws from its first file
    only).

    Args:
        train: real clips, on the device to compute on.
        seed: of the experts, not of a distillation.
        settings: its common and ``expert_`` fields.
        folder: without one, the experts stay in memory.

    Raises:
        FloatingPointError: an expert diverged.
        ValueError: a file is not an expert of these clips and settings.
    """
    recipe = settings.subset("expert") | {"expert_count": 0}  # more of them leave the first as they are
    key = derive(seed, train.fingerprint, str(recipe))
    identity = f"{settings.expert_count} of {key}"
    if folder is None:
        recordings = [train_expert(train, k, seed=seed, settings=settings) for k in range(settings.expert_count)]
        return Experts(recordings, identity)
    paths = [folder / f"expert-{key:016x}-{k:03d}.safetensors" for k in range(settings.expert_count)]
    shape = (settings.expert_epochs + 1, flatten(student_net(train, settings)).numel())
    for k, path in enumerate(paths):
        if not path.exists():  # a folder that has it may be read-only
            with shared(), locked(path.with_suffix(".lock")):  # other runs may need it at once: one trains it
                if not path.exists():
                    snapshots = train_expert(train, k, seed=seed, settings=settings)
                    with atomic(path) as temporary:
                        save_file({"snapshots": snapshots}, temporary)
        if snapshot_shape(path) != shape:
            raise ValueError(f"{path} is not the expert that it is named for; delete it to train one anew")
    return Experts(paths, identity)


def student_net(train: Clips, settings: Settings) -> C3D:
    """The network of experts and students alike, in training mode, so with dropout."""
    net = C3D(len(train.classes), settings.frames, settings.size, settings.width)
    return net.to(train.device).train()


def train_expert(train: Clips, number: int, *, seed: int, settings: Settings) -> torch.Tensor:
    """Plain SGD over shuffled epochs, a snapshot before the first and after each: float32 (epochs + 1, P), on the CPU.

    Raises:
        FloatingPointError: loss or weights became NaN or infinite; said soon after, not at the end.
    """
    seed = derive(seed, "expert", number)
    net = student_net(train, settings)
    net.reset(generator(seed, "weights", device=train.device))
    update = torch.optim.SGD(net.parameters(), settings.expert_lr)
    batches, labels = generator(seed, "batches"), torch.as_tensor(train.labels)
    snapshots = torch.empty(settings.expert_epochs + 1, flatten(net).numel())
    snapshots[0], step = flatten(net), 0
    with keep_random_state(train.device):
        torch.manual_seed(derive(seed, "dropout"))
        for epoch in track(range(settings.expert_epochs), desc=f"expert {number}", unit="epoch"):
            for picks in torch.randperm(len(train), generator=batches).split(settings.expert_batch):
                clips, step = train.batch(picks, generator=batches, flip=train.flip), step + 1
                loss = cross_entropy(net(clips), send(labels[picks], train.device))
                check_loss(loss, step, f"expert {number}", rate="expert_lr")
                update.zero_grad(set_to_none=True)
                loss.backward()
                update.step()
            snapshots[epoch + 1] = flatten(net)
            if not torch.isfinite(snapshots[epoch + 1]).all():
                raise FloatingPointError(f"expert {number} diverged within {epoch + 1} epochs; lower expert_lr")
    return snapshots


class TrajectoryLoss:
    """Where does a student get, that starts on an expert's trajectory and learns from synthetic clips? (MTT, Eq. 2)

    The loss of iteration i is |theta_S - theta*(t + span)|^2 / |theta*(t) - theta*(t + span)|^2: t is a random epoch of
    a random expert, and theta_S is where S = ``mtt_steps`` steps of SGD lead from theta*(t). It is 1 for a
    student that stays where it is. Expert, t, dropout and clips depend on (seed, i) only.

    Args:
        train: real clips, for their classes and device.
        experts: trained on them.
        seed: fixes everything random.
        settings: its common and ``mtt_`` fields.

    Raises:
        ValueError: no expert was trained for ``mtt_span`` epochs.
    """

    def __init__(self, train: Clips, experts: Experts, *, seed: int, settings: Settings):
        self.experts, self.seed, self.device = experts, seed, train.device
        self.steps, self.span = settings.mtt_steps, settings.mtt_span
        self.starts = min(settings.mtt_max_start, experts.epochs - self.span + 1)
        if self.starts < 1:
            raise ValueError(f"mtt_span={self.span} exceeds the {experts.epochs} epochs of the experts: expert_epochs")
        self.net = student_net(train, settings).requires_grad_(False)

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


def flatten(net: torch.nn.Module) -> torch.Tensor:
    """All parameters as one vector (P,), in the order of ``named_parameters``, detached."""
    return torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])


def unflatten(vector: torch.Tensor, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The inverse of ``flatten``: name -> a view of ``vector`` (P,), so that gradients flow to the vector."""
    named = dict(net.named_parameters())
    parts = vector.split([weight.numel() for weight in named.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(named.items(), parts, strict=True)}
