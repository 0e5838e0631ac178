"""VDSD ("Dancing with Still Images"): still images, dynamic memories, and a hallucinator that joins them to videos.

Two stages: still images by gradient matching; then, with these frozen, dynamic memories and hallucinator by the loss of
DM or of MTT, the two backbones that VDSD was published with.
"""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from david.baselines.gradient_matching import GradientMatcher, random_frames, start_stream
from david.baselines.mtt import TrajectoryLoss, check_classes, load_experts
from david.baselines.static_dynamic import StaticDynamicSet
from david.c3d import default_weights
from david.matching import Features, class_chunks, class_means, dm_loss, pixel_optimizer, random_clips
from david.runs.settings import Settings
from david.support.costs import shared
from david.support.files import locked
from david.support.loop import Loop
from david.support.seeds import derive, generator

# (backbone, IPC): SGD step sizes of dynamic memory and hallucinator in VDSD's scripts for miniUCF, the only ones
# published with its code. IPC 5's stand for every other IPC.
PUBLISHED = {("dm", 1): (1e-4, 1e-5), ("dm", 5): (1e3, 1e-6), ("mtt", 1): (1e4, 1e-3), ("mtt", 5): (1e4, 1e-3)}


def step_sizes(settings: Settings, backbone: str, ipc: int) -> tuple[float, float]:
    """Step sizes of dynamic memory and hallucinator: the settings' own, and the published one in place of a 0."""
    dynamic, hallucinator = PUBLISHED[backbone, 1 if ipc == 1 else 5]
    s = settings
    if backbone == "mtt":
        return s.mtt_lr_dynamic or dynamic, s.mtt_lr_hallucinator or hallucinator
    return s.vdsd_lr_dynamic or dynamic, s.vdsd_lr_hallucinator or hallucinator


def own_motion(train, label: int, count: int, seed: int) -> torch.Tensor:
    """How the brightness of some clips of a class departs from the frames that its still images start as.

    Returns:
        float (count, F, 1, H, W), normalised.
    """
    positions = train.by_class()[label]
    chosen = random_clips(positions, count, seed=seed, label=label)
    frames = random_frames(train, chosen, start_stream(seed, label))
    return train.batch(chosen).mean(2, keepdim=True) - frames.mean(1, keepdim=True)[:, None]


@torch.no_grad()
def adding(layer: nn.Conv3d) -> None:
    """Give a hallucinator, in place, the weights that add the dynamic memory to every channel of the still image."""
    layer.weight.zero_()
    layer.bias.zero_()
    middle = layer.weight[:, :, 1, 1, 1]
    middle[:, :3] = torch.eye(3)
    middle[:, 3] = 1


class DynamicLearner(Loop):
    """Stage 2: dynamic memories and hallucinator, moved together; the still images stay as they are.

    They start as noise, as published, or, with ``vdsd_start="real"``, as the other methods do: each dynamic memory is
    the brightness of a real clip, less that of the frame which its still image began as, and the hallucinator adds it
    to the still.

    Args:
        train: real clips, on the device to compute on.
        static: float32 (M, 2 IPC, 3, H, W), on the same device.
        seed: fixes everything random.
        settings: its common and ``vdsd_`` fields and those of the backbone.

    Attributes:
        memory: the set so far; its clips have a graph to the leaves.
        stages: prefixes of the backbone's settings.
    """

    backbone: str
    stages: tuple[str, ...]
    step_setting = "its step size, vdsd_lr_ or mtt_lr_"

    def __init__(self, train, static: torch.Tensor, *, seed: int, settings: Settings):
        self.train, self.seed, self.settings = train, seed, settings
        m, memories, _, height, width = static.shape
        layer = nn.Conv3d(4, 3, 3, padding=1)
        if settings.vdsd_start == "real":
            dynamic = torch.stack([own_motion(train, c, memories, seed) for c in range(m)])
            adding(layer)
        else:
            shape = (m, memories, settings.frames, 1, height, width)
            dynamic = torch.randn(shape, generator=generator(seed, "dynamic"))
            default_weights(layer, generator(seed, "hallucinator"))
        dynamic, layer = dynamic.to(static.device).requires_grad_(), layer.to(static.device)
        self.leaves = {"dynamic": dynamic, "weight": layer.weight, "bias": layer.bias}
        self.memory = StaticDynamicSet(static, **self.leaves, classes=list(train.classes))
        kind, momentum = settings.vdsd_optimizer, settings.vdsd_momentum
        lr_dynamic, lr_hallucinator = step_sizes(settings, self.backbone, self.memory.ipc)
        self.optimizers = [
            pixel_optimizer([dynamic], kind, lr=lr_dynamic, momentum=momentum),
            pixel_optimizer([layer.weight, layer.bias], kind, lr=lr_hallucinator, momentum=momentum),
        ]

    def backward(self) -> None:
        """Add the gradients of this iteration's loss to the leaves."""
        raise NotImplementedError

    def step(self) -> None:
        """One iteration of the backbone."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.iteration += 1

    def identity(self) -> str:
        settings = str(self.settings.subset("vdsd", *self.stages))
        return str(derive(self.seed, self.backbone, self.train.fingerprint, settings, self.memory.ipc))


class DynamicMatcher(DynamicLearner):
    """On DM: the mean features of each class's videos, each in one of its combinations, meet those of real clips."""

    backbone = "dm"

    def __init__(self, train, static, *, seed, settings, experts=None):
        super().__init__(train, static, seed=seed, settings=settings)
        self.real = Features(train, seed=seed, settings=settings.distill, experts=experts)
        self.stages = ("distill", "expert") if settings.distill_networks == "experts" else ("distill",)
        self.chunks = class_chunks([self.memory.ipc] * len(train.classes), train.at_once)

    def backward(self) -> None:
        ipc, real = self.memory.ipc, self.real.draw(self.iteration)
        labels, picks = self.memory.combinations(generator(self.seed, "combination", self.iteration))
        for chunk in self.chunks:
            part = slice(chunk.start * ipc, chunk.stop * ipc)
            features = self.real.net.embed(self.memory.clips(labels[part], picks[part]))
            dm_loss(real[chunk.start : chunk.stop], class_means(features, [ipc] * len(chunk))).backward()


class DynamicTrajectories(DynamicLearner):
    """On MTT: a student of the videos follows ``experts``.

    Its learning rate stays as it is, as in VDSD's script for IPC 5: the first videos are noise, a student that learns
    nothing from them comes nearest to the expert, and a learned rate would go down to its floor and stay there.
    """

    backbone, stages = "mtt", ("expert", "mtt")

    def __init__(self, train, static, experts, *, seed, settings):
        super().__init__(train, static, seed=seed, settings=settings)
        self.loss = TrajectoryLoss(train, experts, seed=seed, settings=settings)
        self.student_lr = torch.tensor(settings.mtt_student_lr, device=train.device)

    def draw(self, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips of a student step: every video in one of its combinations, or ``mtt_batch``, balanced over classes."""
        if self.settings.mtt_batch:
            return self.memory.batch(random, self.settings.mtt_batch)
        labels, picks = self.memory.combinations(random)
        return self.memory.clips(labels, picks), labels.to(self.memory.device)

    def backward(self) -> None:
        self.loss.backward(self.draw, self.student_lr, self.iteration)


def distill(train, *, ipc, seed, settings, work: Path | None = None, backbone: str | None = None) -> StaticDynamicSet:
    """Learn the still images, then, under a backbone's loss and for its number of iterations, what makes them move.

    Args:
        train: real clips, on the device to compute on.
        ipc: videos a class, each of two still images and two dynamic memories.
        seed: fixes everything random, but for experts that all seeds share.
        settings: its common and ``vdsd_`` fields, and ``distill_``, or ``expert_`` and ``mtt_``.
        work: folder for the checkpoint that an interrupted run continues from; beside it are kept the experts, and the
            still images, which the two backbones share.
        backbone: "dm", the default, or "mtt".

    Returns:
        StaticDynamicSet.

    Raises:
        ValueError: unknown backbone; or MTT's, and a single class.
    """
    backbone = backbone or "dm"
    if backbone not in ("dm", "mtt"):
        raise ValueError(f"unknown backbone {backbone!r} of VDSD; choose 'dm' or 'mtt'")
    if backbone == "mtt":
        check_classes(train.classes)
    dynamic = work and work / "dynamic.safetensors"
    stage = GradientMatcher(train, per_class=2 * ipc, seed=seed, settings=settings)
    still = work and work.parent / f"static-{int(stage.identity()):016x}.safetensors"
    with shared(), locked(still.with_suffix(".lock")) if still else nullcontext():
        stage.run(settings.vdsd_static_iterations, checkpoint=still, desc="still images")
    own = {"seed": settings.experts_of(seed), "settings": settings, "folder": work and work.parent}
    info = {"method": "vdsd", "backbone": backbone, "ipc": ipc, "seed": seed, "settings": asdict(settings)}
    if backbone == "dm":
        experts = None
        if settings.distill_networks == "experts":
            experts = load_experts(train, **own)
        learner = DynamicMatcher(train, stage.images, seed=seed, settings=settings, experts=experts)
        learner.run(settings.distill_iterations, checkpoint=dynamic)
    else:
        experts = load_experts(train, **own)
        learner = DynamicTrajectories(train, stage.images, experts, seed=seed, settings=settings)
        learner.run(settings.mtt_iterations, checkpoint=dynamic)
    learned = {name: tensor.detach() for name, tensor in learner.memory.tensors.items()}
    return StaticDynamicSet(**learned, classes=list(train.classes), info=info)
