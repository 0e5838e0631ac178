"""Train a network on a set, and test it: students, teachers and references on full data alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.sets import DistilledSet, RealSet
from david.support.costs import shared
from david.support.pixels import send
from david.support.progress import track
from david.support.seeds import derive, generator, keep_random_state

if TYPE_CHECKING:  # to train on a distilled set, and to test on clips, takes no reader of videos
    from david.data.clips import Clips

LOOK = 20  # steps between two looks at the loss, as a GPU has to be waited for


@dataclass(frozen=True)
class Settings:
    """How a network is trained; the defaults are the paper's for students.

    Attributes:
        steps, batch, lr: of the optimiser.
        optimizer: "sgd", with lr x 0.1 at half of the steps, or "adam", with a one-cycle schedule.
        width: factor on the channels of C3D.
    """

    steps: int = 1000
    batch: int = 256
    lr: float = 0.01
    optimizer: str = "sgd"
    width: float = 1.0


Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]
Model = Callable[[int, int, int], nn.Module]  # of M, F and the size of frames; it takes (B, F, 3, H, W), gives (B, M)


def train_network(
    net: C3D, draw: Draw, *, steps: int, lr: float, optimizer: str, seed: int, desc: str = "train"
) -> C3D:
    """Train ``net`` from fresh weights for a fixed number of steps and return it in eval mode: the last iterate.

    Args:
        net: the network; C3D's weights are drawn anew from ``seed``.
        draw: generator -> (clips float (B, F, 3, H, W), labels int64 (B,)), both on the network's device.
        steps: optimiser steps.
        lr: learning rate (its peak for "adam").
        optimizer: "sgd" is the recipe of VDSD: momentum 0.9, weight decay 5e-4, lr x 0.1 at half of the steps.
            "adam" follows a one-cycle schedule and gets there in far fewer steps.
        seed: fixes initial weights, batches and dropout.

    Raises:
        ValueError: unknown optimiser, or no steps.
        FloatingPointError: the loss became NaN or infinite; said at that step, on a GPU within ``LOOK`` steps.
    """
    if steps < 1:
        raise ValueError(f"{desc}: training takes at least 1 step, got {steps}")
    device = next(net.parameters()).device
    if isinstance(net, C3D):  # others come with weights
        net.reset(generator(seed, "weights", device=device))
    net.train()
    if optimizer == "sgd":
        update = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(update, [max(1, steps // 2)], 0.1)
    elif optimizer == "adam":
        update = torch.optim.Adam(net.parameters(), lr)
        # total_steps + 1: the scheduler is stepped once more than OneCycleLR allows otherwise.
        schedule = torch.optim.lr_scheduler.OneCycleLR(update, lr, total_steps=steps + 1)
    else:
        raise ValueError(f"unknown optimizer {optimizer!r}; choose 'sgd' or 'adam'")
    batches = generator(seed, "batches")
    with keep_random_state(device):
        torch.manual_seed(derive(seed, "dropout"))
        for step in track(range(1, steps + 1), desc=desc, unit="step"):
            clips, labels = draw(batches)
            loss = cross_entropy(net(clips), labels)
            check_loss(loss, step, f"{desc} of {steps} steps", last=step == steps)
            update.zero_grad(set_to_none=True)
            loss.backward()
            update.step()
            schedule.step()
    return net.eval()


def check_loss(
    loss: torch.Tensor, step: int, what: str, *, rate: str = "the learning rate", last: bool = False
) -> None:
    """FloatingPointError where the loss of step number ``step`` is not finite: lower ``rate``.

    On a GPU only every ``LOOK``-th step and the last are looked at. That is enough, as weights that took one such step
    are not finite either.
    """
    if (loss.device.type == "cpu" or step % LOOK == 0 or last) and not torch.isfinite(loss):
        raise FloatingPointError(f"{what}: the loss is {loss.item()} at step {step}; lower {rate}")


@torch.no_grad()
def embed_clips(net: C3D, clips: "Clips", batch: int = 128) -> torch.Tensor:
    """Features of every clip, unflipped, float (N, embed_dim) on the network's device."""
    positions = torch.arange(len(clips)).split(batch)
    return torch.cat([net.embed(clips.batch(part)) for part in positions])


def train_on(
    source: DistilledSet | RealSet,
    *,
    seed: int,
    settings: Settings,
    device: torch.device | None = None,
    desc: str = "student",
    model: Model | None = None,
) -> nn.Module:
    """A network trained from fresh weights on a set's batches.

    A set that MTT distilled brings the student's learning rate that was learned with it; SGD takes it, as MTT's authors
    do. (It says nothing about Adam.)

    Args:
        source: anything with ``batch``; the real set gives the paper's "Full DS" row and its teacher Phi_T (3.2).
        seed: fixes weights, batches and dropout.
        settings: how.
        device: to train on; that of the source by default. A set too large for a GPU stays on the host and sends
            every batch.
        desc: what the progress bar says.
        model: builds another network than C3D.
    """
    device, lr = device or source.device, settings.lr
    if settings.optimizer == "sgd":
        lr = source.info.get("student_lr", lr)
    if model is None:
        net = C3D(len(source.classes), *source.shape, settings.width).to(device)
    else:
        with keep_random_state(device):
            torch.manual_seed(derive(seed, "weights"))
            net = model(len(source.classes), *source.shape).to(device)

    def draw(random: torch.Generator) -> tuple[torch.Tensor, ...]:
        return tuple(send(part, device) for part in source.batch(random, settings.batch))

    return train_network(net, draw, steps=settings.steps, lr=lr, optimizer=settings.optimizer, seed=seed, desc=desc)


def load_teacher(train: "Clips", *, seed: int, settings: Settings, folder: Path | None = None) -> C3D:
    """The teacher of a seed, read from ``folder`` (safetensors), or trained on real clips and then kept there.

    Of several processes that need it at once, one trains it and the others wait.
    """
    from david.support.files import atomic, locked  # which want a system with locks

    if folder is None:
        return train_on(RealSet(train), seed=seed, settings=settings, desc="teacher")
    path = folder / f"teacher-{derive(seed, train.fingerprint, str(settings)):016x}.safetensors"
    if not path.exists():  # a folder that has it may be read-only
        with shared(), locked(path.with_suffix(".lock")):
            if not path.exists():
                net = load_teacher(train, seed=seed, settings=settings)
                weights = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
                with atomic(path) as temporary:
                    save_file(weights, temporary)
                return net
    net = C3D(len(train.classes), train.frames, train.size, settings.width)
    try:
        net.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole teacher ({error}); delete it to train one anew") from error
    return net.to(train.device).eval()


@torch.no_grad()
def accuracy(net: C3D, test: "Clips", batch: int = 128) -> dict:
    """Top-1, top-5 and per-class accuracy on every test clip: unflipped centre clips, normalised by constants.

    Returns:
        {"top1": float, "top5": float, "per_class": list of M floats}, fractions of 1. Each clip is judged alone:
        no statistics of a test batch enter.
    """
    labels = torch.as_tensor(test.labels).to(test.device)
    positions = torch.arange(len(test)).split(batch)
    logits = torch.cat([net(test.batch(part)) for part in positions])
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    first = ranked[:, 0].double()
    per_class = torch.zeros(logits.shape[1], dtype=torch.float64, device=first.device).index_add_(0, labels, first)
    per_class /= torch.bincount(labels, minlength=logits.shape[1])
    return {
        "top1": first.mean().item(),
        "top5": ranked.any(1).double().mean().item(),
        "per_class": per_class.tolist(),
    }


def evaluate(
    distilled: DistilledSet | RealSet, test: "Clips", *, seed: int, settings: Settings, model: Model | None = None
) -> dict:
    """Train one student on the set and test its last iterate.

    It trains on the device of the test clips, wherever the set is.

    Returns:
        what ``accuracy`` returns, and the student's "seed"; classes are in the order of the set.

    Raises:
        ValueError: set and clips are not of the same classes.
    """
    test = in_order(test, distilled.classes)
    student = train_on(distilled, seed=seed, settings=settings, device=test.device, model=model)
    return {"seed": seed, **accuracy(student, test)}


def in_order(clips: "Clips", classes: list[str]) -> "Clips":
    """The same clips with their classes, and so their labels, in the order of ``classes``.

    Names that differ in their Unicode form alone are the same.

    Raises:
        ValueError: they are of other classes; or two have one name, and another order.
    """
    own, wanted = ([normalize("NFC", name) for name in names] for names in (clips.classes, classes))
    if own == wanted:
        return clips
    if sorted(own) != sorted(wanted) or len(set(own)) < len(own):
        (name, *_) = sorted(set(own) ^ set(wanted)) or [name for name in own if own.count(name) > 1]
        where = ("both, twice" if name in own else "the set alone") if name in wanted else "the clips alone"
        raise ValueError(
            f"set and clips are not of the same classes, {name!r} being in {where}; test a set on clips of its dataset"
        )
    places = np.array([wanted.index(name) for name in own])
    return replace(clips, labels=places[clips.labels], classes=list(classes))
