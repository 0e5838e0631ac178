"""Train networks on real clips and keep a snapshot of every epoch: MTT's experts, and networks trained a little."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.data.clips import Clips
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.pixels import send
from david.support.progress import track
from david.support.seeds import derive, generator, keep_random_state
from david.training import check_loss


@dataclass(frozen=True)
class Settings:
    """How experts are trained; the defaults are MTT's.

    Attributes:
        count: how many.
        epochs, batch, lr: of plain SGD, without momentum, weight decay or schedule.
        width: factor on the channels of C3D.
    """

    count: int = 30
    epochs: int = 50
    batch: int = 256
    lr: float = 0.01
    width: float = 1.0


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


def load_experts(train: Clips, *, seed: int, settings: Settings, folder: Path | None = None) -> Experts:
    """``settings.count`` experts, each read from a file of its own in ``folder``, or trained and then kept there.

    All runs that ask for one seed share them, and all of them are used (the published code draws from its first file
    only).

    Args:
        train: real clips, on the device to compute on.
        seed: of the experts, not of a distillation.
        settings: how they are trained.
        folder: without one, the experts stay in memory.

    Raises:
        FloatingPointError: an expert diverged.
        ValueError: a file is not an expert of these clips and settings.
    """
    key = derive(seed, train.fingerprint, str(replace(settings, count=0)))  # more of them leave the first as they are
    identity = f"{settings.count} of {key}"
    if folder is None:
        recordings = [train_expert(train, k, seed=seed, settings=settings) for k in range(settings.count)]
        return Experts(recordings, identity)
    paths = [folder / f"expert-{key:016x}-{k:03d}.safetensors" for k in range(settings.count)]
    shape = (settings.epochs + 1, flatten(student_net(train, settings.width)).numel())
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


def student_net(train: Clips, width: float) -> C3D:
    """The network of experts and students alike, in training mode, so with dropout."""
    net = C3D(len(train.classes), train.frames, train.size, width)
    return net.to(train.device).train()


def train_expert(train: Clips, number: int, *, seed: int, settings: Settings) -> torch.Tensor:
    """Plain SGD over shuffled epochs, a snapshot before the first and after each: float32 (epochs + 1, P), on the CPU.

    Raises:
        FloatingPointError: loss or weights became NaN or infinite; said soon after, not at the end.
    """
    seed = derive(seed, "expert", number)
    net = student_net(train, settings.width)
    net.reset(generator(seed, "weights", device=train.device))
    update = torch.optim.SGD(net.parameters(), settings.lr)
    batches, labels = generator(seed, "batches"), torch.as_tensor(train.labels)
    snapshots = torch.empty(settings.epochs + 1, flatten(net).numel())
    snapshots[0], step = flatten(net), 0
    with keep_random_state(train.device):
        torch.manual_seed(derive(seed, "dropout"))
        for epoch in track(range(settings.epochs), desc=f"expert {number}", unit="epoch"):
            for picks in torch.randperm(len(train), generator=batches).split(settings.batch):
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


def flatten(net: torch.nn.Module) -> torch.Tensor:
    """All parameters as one vector (P,), in the order of ``named_parameters``, detached."""
    return torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])


def unflatten(vector: torch.Tensor, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The inverse of ``flatten``: name -> a view of ``vector`` (P,), so that gradients flow to the vector."""
    named = dict(net.named_parameters())
    parts = vector.split([weight.numel() for weight in named.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(named.items(), parts, strict=True)}
