"""VDSD ("Dancing with Still Images"): still images, dynamic memories, and a hallucinator that joins them to videos.

Two stages: still images by gradient matching; then, with these frozen, dynamic memories and hallucinator by the loss of
DM or of MTT, the two backbones that VDSD was published with.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from david import matching
from david.baselines import mtt
from david.baselines.experts import Experts
from david.baselines.gradient_matching import GradientMatcher, random_frames, start_stream
from david.baselines.static_dynamic import StaticDynamicSet
from david.c3d import default_weights
from david.matching import Features, class_chunks, class_means, dm_loss, pixel_optimizer, random_clips
from david.support.costs import shared
from david.support.files import locked
from david.support.loop import Loop
from david.support.seeds import derive, generator

# (backbone, IPC): SGD step sizes of dynamic memory and hallucinator in VDSD's scripts for miniUCF, the only ones
# published with its code. IPC 5's stand for every other IPC.
PUBLISHED = {("dm", 1): (1e-4, 1e-5), ("dm", 5): (1e3, 1e-6), ("mtt", 1): (1e4, 1e-3), ("mtt", 5): (1e4, 1e-3)}


@dataclass(frozen=True)
class Settings:
    """How still images and dynamic memories are learned; the defaults are VDSD's.

    Attributes:
        static_iterations, static_lr, static_batch: of the still images, see ``GradientMatcher``.
        optimizer, momentum: of dynamic memory and hallucinator.
        start: of these, "noise" or "real": see ``DynamicLearner``.
        lr_dynamic, lr_hallucinator: their step sizes; 0: as published for backbone and IPC.
        width: factor on the channels of the networks.
    """

    static_iterations: int = 1000
    static_lr: float = 0.1
    static_batch: int = 256
    optimizer: str = "sgd"
    momentum: float = 0.95
    start: str = "noise"
    lr_dynamic: float = 0.0
    lr_hallucinator: float = 0.0
    width: float = 1.0


def step_sizes(settings: Settings, backbone: str, ipc: int) -> tuple[float, float]:
    """Step sizes of dynamic memory and hallucinator: the settings' own, and the published one in place of a 0."""
    dynamic, hallucinator = PUBLISHED[backbone, 1 if ipc == 1 else 5]
    return settings.lr_dynamic or dynamic, settings.lr_hallucinator or hallucinator


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

    They start as noise, as published, or, with ``start="real"``, as the other methods do: each dynamic memory is
    the brightness of a real clip, less that of the frame which its still image began as, and the hallucinator adds it
    to the still.

    Args:
        train: real clips, on the device to compute on.
        static: float32 (M, 2 IPC, 3, H, W), on the same device.
        seed: fixes everything random.
        settings: how.
        how: the backbone's settings.
        experts: MTT's, where the backbone or its networks are of them.

    Attributes:
        memory: the set so far; its clips have a graph to the leaves.
    """

    backbone: str
    step_setting = "its step size, vdsd_lr_ or mtt_lr_"

    def __init__(
        self,
        train,
        static: torch.Tensor,
        *,
        seed: int,
        settings: Settings,
        how: matching.Settings | mtt.Settings,
        experts: Experts | None = None,
    ):
        self.train, self.seed, self.settings, self.how, self.experts = train, seed, settings, how, experts
        m, memories, _, height, width = static.shape
        layer = nn.Conv3d(4, 3, 3, padding=1)
        if settings.start == "real":
            dynamic = torch.stack([own_motion(train, c, memories, seed) for c in range(m)])
            adding(layer)
        else:
            shape = (m, memories, train.frames, 1, height, width)
            dynamic = torch.randn(shape, generator=generator(seed, "dynamic"))
            default_weights(layer, generator(seed, "hallucinator"))
        dynamic, layer = dynamic.to(static.device).requires_grad_(), layer.to(static.device)
        self.leaves = {"dynamic": dynamic, "weight": layer.weight, "bias": layer.bias}
        self.memory = StaticDynamicSet(static, **self.leaves, classes=list(train.classes))
        kind, momentum = settings.optimizer, settings.momentum
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
        parts = (self.settings, self.how, self.experts and self.experts.identity, self.memory.ipc)
        return str(derive(self.seed, self.backbone, self.train.fingerprint, *map(str, parts)))


class DynamicMatcher(DynamicLearner):
    """On DM: the mean features of each class's videos, each in one of its combinations, meet those of real clips."""

    backbone = "dm"

    def __init__(self, train, static, **options):
        super().__init__(train, static, **options)
        self.real = Features(train, seed=self.seed, settings=self.how, experts=self.experts)
        self.chunks = class_chunks([self.memory.ipc] * len(train.classes), train.at_once)

    def backward(self) -> None:
        ipc, real = self.memory.ipc, self.real.draw(self.iteration)
        labels, picks = self.memory.combinations(generator(self.seed, "combination", self.iteration))
        for chunk in self.chunks:
            part = slice(chunk.start * ipc, chunk.stop * ipc)
            features = self.real.net.embed(self.memory.clips(labels[part], picks[part]))
            dm_loss(real[chunk.start : chunk.stop], class_means(features, [ipc] * len(chunk))).backward()


class DynamicTrajectories(DynamicLearner):
    """On MTT: a student of the videos follows the experts.

    Its learning rate stays as it is, as in VDSD's script for IPC 5: the first videos are noise, a student that learns
    nothing from them comes nearest to the expert, and a learned rate would go down to its floor and stay there.
    """

    backbone = "mtt"

    def __init__(self, train, static, **options):
        super().__init__(train, static, **options)
        self.loss = mtt.TrajectoryLoss(train, self.experts, seed=self.seed, settings=self.how)
        self.student_lr = torch.tensor(self.how.student_lr, device=train.device)

    def draw(self, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips of a student step: every video in one of its combinations, or ``batch``, balanced over classes."""
        if self.how.batch:
            return self.memory.batch(random, self.how.batch)
        labels, picks = self.memory.combinations(random)
        return self.memory.clips(labels, picks), labels.to(self.memory.device)

    def backward(self) -> None:
        self.loss.backward(self.draw, self.student_lr, self.iteration)


def distill(
    train,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    how: matching.Settings | mtt.Settings,
    experts: Experts | None = None,
    work: Path | None = None,
) -> StaticDynamicSet:
    """Learn the still images, then, under a backbone's loss and for its number of iterations, what makes them move.

    Args:
        train: real clips, on the device to compute on.
        ipc: videos a class, each of two still images and two dynamic memories.
        seed: fixes everything random but the experts.
        settings: how.
        how: the settings of the backbone, and so which: DM's (``matching.Settings``) or MTT's.
        experts: MTT's, where the backbone or its networks are of them.
        work: folder for the checkpoint that an interrupted run continues from; beside it are kept the still images,
            which the two backbones share.

    Returns:
        StaticDynamicSet.

    Raises:
        ValueError: MTT's backbone, and a single class.
    """
    learner = DynamicTrajectories if isinstance(how, mtt.Settings) else DynamicMatcher
    if learner.backbone == "mtt":
        mtt.check_classes(train.classes)
    static = {"batch": settings.static_batch, "lr": settings.static_lr, "width": settings.width}
    stage = GradientMatcher(train, per_class=2 * ipc, seed=seed, **static)
    still = work and work.parent / f"static-{int(stage.identity()):016x}.safetensors"
    with shared(), locked(still.with_suffix(".lock")) if still else nullcontext():
        stage.run(settings.static_iterations, checkpoint=still, desc="still images")
    dynamic = learner(train, stage.images, seed=seed, settings=settings, how=how, experts=experts)
    dynamic.run(how.iterations, checkpoint=work and work / "dynamic.safetensors")
    learned = {name: tensor.detach() for name, tensor in dynamic.memory.tensors.items()}
    return StaticDynamicSet(**learned, classes=list(train.classes), info={"backbone": learner.backbone})
