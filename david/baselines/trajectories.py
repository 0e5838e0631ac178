"""Trajectories in weight space: those of experts on real clips, and the loss of a student that leaves one (MTT)."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.data.clips import Clips, send
from david.runs.settings import Settings
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.progress import track
from david.support.seeds import derive, generator, keep_random_state
from david.training import Draw


def flatten(net: torch.nn.Module) -> torch.Tensor:
    """All parameters as one vector (P,), in the order of ``named_parameters``, detached."""
    return torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])


def unflatten(vector: torch.Tensor, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The inverse of ``flatten``: name -> a view of ``vector`` (P,), so that gradients flow to the vector."""
    named = dict(net.named_parameters())
    parts = vector.split([weight.numel() for weight in named.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(named.items(), parts, strict=True)}


@torch.no_grad()
def set_parameters(net: torch.nn.Module, vector: torch.Tensor) -> None:
    """Give ``net`` the parameters that ``flatten`` made a vector of, (P,)."""
    for name, weight in unflatten(vector, net).items():
        net.get_parameter(name).copy_(weight)


class Experts:
    """Recorded trainings on real clips.

    Args:
        recordings: of each expert its snapshots, float (epochs + 1, P): a tensor, or the path of a safetensors file.

    Attributes:
        epochs: how long each was trained.
    """

    def __init__(self, recordings: list[torch.Tensor | Path]):
        self.recordings = recordings
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


def load_experts(train: Clips, *, settings: Settings, folder: Path | None = None) -> Experts:
    """``expert_count`` experts, each read from a file of its own in ``folder``, or trained and then kept there.

    Like the teacher, and unlike the sets distilled from them, they do not depend on a distillation's seed: all runs
    share them. All of them are used (the published code draws from its first file only).

    Args:
        train: real clips, on the device to compute on.
        settings: its common and ``expert_`` fields.
        folder: without one, the experts stay in memory.

    Raises:
        FloatingPointError: an expert diverged.
        ValueError: a file is not an expert of these clips and settings.
    """
    if folder is None:
        return Experts([train_expert(train, k, settings=settings) for k in range(settings.expert_count)])
    recipe = settings.subset("expert") | {"expert_count": 0}  # more of them leave the first as they are
    key = derive(0, train.fingerprint, str(recipe))
    paths = [folder / f"expert-{key:016x}-{k:03d}.safetensors" for k in range(settings.expert_count)]
    shape = (settings.expert_epochs + 1, flatten(student_net(train, settings)).numel())
    for k, path in enumerate(paths):
        with shared(), locked(path.with_suffix(".lock")):  # other runs may need it at once: one trains it
            if not path.exists():
                with atomic(path) as temporary:
                    save_file({"snapshots": train_expert(train, k, settings=settings)}, temporary)
        if snapshot_shape(path) != shape:
            raise ValueError(f"{path} is not the expert that it is named for; delete it to train one anew")
    return Experts(paths)


def student_net(train: Clips, settings: Settings) -> C3D:
    """The network of experts and students alike, in training mode, so with dropout."""
    net = C3D(len(train.classes), settings.frames, settings.size, settings.width)
    return net.to(train.device).train()


def train_expert(train: Clips, number: int, *, settings: Settings) -> torch.Tensor:
    """Plain SGD over shuffled epochs, a snapshot before the first and after each: float32 (epochs + 1, P), on the CPU.

    Raises:
        FloatingPointError: the weights became NaN or infinite.
    """
    seed = derive(0, "expert", number)
    net = student_net(train, settings)
    net.reset(generator(seed, "weights", device=train.device))
    update = torch.optim.SGD(net.parameters(), settings.expert_lr)
    batches, labels = generator(seed, "batches"), torch.as_tensor(train.labels)
    snapshots = torch.empty(settings.expert_epochs + 1, flatten(net).numel())
    snapshots[0] = flatten(net)
    with keep_random_state(train.device):
        torch.manual_seed(derive(seed, "dropout"))
        for epoch in track(range(settings.expert_epochs), desc=f"expert {number}", unit="epoch"):
            for picks in torch.randperm(len(train), generator=batches).split(settings.expert_batch):
                clips = train.batch(picks, generator=batches, flip=train.flip)
                update.zero_grad(set_to_none=True)
                cross_entropy(net(clips), send(labels[picks], train.device)).backward()
                update.step()
            snapshots[epoch + 1] = flatten(net)
    if not torch.isfinite(snapshots).all():
        raise FloatingPointError(f"expert {number} diverged within {settings.expert_epochs} epochs; lower expert_lr")
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
