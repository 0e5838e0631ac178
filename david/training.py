"""Train one network on a source of batches: students, teachers and full-data references alike."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.data.clips import Clips, send
from david.runs.settings import Settings
from david.sets import DistilledSet, RealSet
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.progress import track
from david.support.seeds import derive, generator, keep_random_state

Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def train_network(
    net: C3D, draw: Draw, *, steps: int, lr: float, optimizer: str, seed: int, desc: str = "train"
) -> C3D:
    """Train ``net`` from fresh weights for a fixed number of steps and return it in eval mode: the last iterate.

    Args:
        net: the network; its weights are drawn anew from ``seed``.
        draw: generator -> (clips float (B, F, 3, H, W), labels int64 (B,)), both on the network's device.
        steps: optimiser steps.
        lr: learning rate (its peak for "adam").
        optimizer: "sgd" is the recipe of VDSD: momentum 0.9, weight decay 5e-4, lr x 0.1 at half of the steps.
            "adam" follows a one-cycle schedule and gets there in far fewer steps.
        seed: fixes initial weights, batches and dropout.

    Raises:
        ValueError: unknown optimiser, or no steps.
        FloatingPointError: the loss became NaN or infinite.
    """
    if steps < 1:
        raise ValueError(f"{desc}: training takes at least 1 step, got {steps}")
    device = next(net.parameters()).device
    net.reset(generator(seed, "weights", device=device)).train()
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
        for _ in track(range(steps), desc=desc, unit="step"):
            clips, labels = draw(batches)
            loss = cross_entropy(net(clips), labels)
            update.zero_grad(set_to_none=True)
            loss.backward()
            update.step()
            schedule.step()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"{desc}: the loss is {loss.item()} after {steps} steps; lower the learning rate")
    return net.eval()


@torch.no_grad()
def embed_clips(net: C3D, clips: Clips, batch: int = 128) -> torch.Tensor:
    """Features of every clip, unflipped, float (N, embed_dim) on the network's device."""
    positions = torch.arange(len(clips)).split(batch)
    return torch.cat([net.embed(clips.batch(part)) for part in positions])


def train_on(
    source: DistilledSet | RealSet, *, stage: str, seed: int, settings: Settings, device: torch.device | None = None
) -> C3D:
    """A network trained from fresh weights on a set's batches, by the recipe of a stage.

    A set that MTT distilled brings the student's learning rate that was learned with it; SGD takes it, as MTT's authors
    do. (It says nothing about Adam.)

    Args:
        source: anything with ``batch``; the real set gives the paper's "Full DS" row and its teacher Phi_T (3.2).
        stage: "teacher" or "student": which settings hold the recipe.
        seed: fixes weights, batches and dropout.
        device: to train on; that of the source by default. A set too large for a GPU stays on the host and sends
            every batch.
    """
    device, recipe = device or source.device, settings.recipe(stage)
    if stage == "student" and recipe["optimizer"] == "sgd":
        recipe["lr"] = source.info.get("student_lr", recipe["lr"])
    net = C3D(len(source.classes), settings.frames, settings.size, settings.width).to(device)

    def draw(random: torch.Generator) -> tuple[torch.Tensor, ...]:
        return tuple(send(part, device) for part in source.batch(random, recipe["batch"]))

    return train_network(
        net, draw, steps=recipe["steps"], lr=recipe["lr"],
        optimizer=recipe["optimizer"], seed=seed, desc=stage,
    )  # fmt: skip


def load_teacher(train: Clips, *, settings: Settings, folder: Path | None = None) -> C3D:
    """The teacher of ``settings.teacher_seed``, read from ``folder`` (safetensors), or trained and then kept there.

    Of several processes that need it at once, one trains it and the others wait.
    """
    if folder is None:
        return train_on(RealSet(train), stage="teacher", seed=settings.teacher_seed, settings=settings)
    path = folder / f"teacher-{derive(0, train.fingerprint, str(settings.subset('teacher'))):016x}.safetensors"
    with shared(), locked(path.with_suffix(".lock")):
        if not path.exists():
            net = load_teacher(train, settings=settings)
            with atomic(path) as temporary:
                save_file({k: v.cpu().contiguous() for k, v in net.state_dict().items()}, temporary)
            return net
    net = C3D(len(train.classes), settings.frames, settings.size, settings.width)
    try:
        net.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole teacher ({error}); delete it to train one anew") from error
    return net.to(train.device).eval()
