"""DC, dataset condensation by gradient matching (Zhao et al. 2021), on single frames: VDSD's static memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from david.c3d import default_weights
from david.data.clips import Clips
from david.matching import random_clips
from david.support.loop import Loop
from david.support.pixels import normalise
from david.support.seeds import derive, generator


def convnet(num_classes: int, size: int, width: float = 1.0) -> nn.Sequential:
    """DC's ConvNet: blocks of Conv2d(3x3) - InstanceNorm - ReLU - AvgPool2d(2), then a linear classifier.

    As many blocks as leave a map of at least 4x4: three at 32 pixels (DC) and at 48, four at 64 and at 112 (VDSD).

    Args:
        num_classes: number of logits.
        size: height and width of the images in pixels, at least 8.
        width: factor on the 128 channels.
    """
    channels, layers = max(1, round(128 * width)), []
    for inputs in [3] + [channels] * ((size // 4).bit_length() - 2):
        norm = nn.GroupNorm(channels, channels)  # InstanceNorm with weights, as DC's code has it
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), norm, nn.ReLU(inplace=True), nn.AvgPool2d(2)]
        size //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, num_classes))


def weight_gradients(net: nn.Module, images: torch.Tensor, label: int, create_graph: bool = False):
    """Gradients of the cross-entropy of ``images`` (B, 3, H, W), all of class ``label``: one a weight.

    Biases and other one-dimensional parameters are left out, as in DC's code.
    """
    weights = [weight for weight in net.parameters() if weight.ndim > 1]
    labels = torch.full((len(images),), label, device=images.device)
    return torch.autograd.grad(cross_entropy(net(images), labels), weights, create_graph=create_graph)


def gradient_distance(real, synthetic) -> torch.Tensor:
    """1 - cosine, summed over layers and output channels (DC, Eq. 10 and its distance "ours"; a scalar).

    Args:
        real, synthetic: gradients of the same weights, float (out, ...) each.
    """
    pairs = zip(real, synthetic, strict=True)
    return sum((1 - cosine_similarity(r.flatten(1), s.flatten(1))).sum() for r, s in pairs)


def random_frames(train: Clips, positions, random: torch.Generator) -> torch.Tensor:
    """One random frame of each of these clips, unflipped: float32 (B, 3, H, W), normalised."""
    frames = torch.randint(train.frames, (len(positions),), generator=random).numpy()
    frames = torch.as_tensor(train.videos[train.rows[np.asarray(positions)], frames])
    return normalise(frames).contiguous()  # GroupNorm is faster so


def start_stream(seed: int, label: int) -> torch.Generator:
    """Draws the frames that a class's images start as."""
    return generator(seed, "static start", label)


class GradientMatcher(Loop):
    """Images on which random networks have the same gradients as on random frames of real clips.

    Every iteration has a network of its own, which is not trained: DC's loops for one image a class (outer = inner
    = 1), kept for any number of them, where DC's own train the network between steps (10 and 50 for ten images).
    The classes are matched one after the other, so memory does not grow with their number.

    Args:
        train: real clips, on the device to compute on.
        per_class: S, images a class; they start as random frames of random clips.
        seed: fixes everything random.
        batch: real frames of a class in an iteration.
        lr: of SGD, on normalised pixels.
        width: factor on the channels of the networks.
    """

    step_setting = "vdsd_static_lr"

    def __init__(self, train: Clips, *, per_class: int, seed: int, batch: int, lr: float, width: float = 1.0):
        self.train, self.seed, self.batch, self.lr, self.width = train, seed, batch, lr, width
        self.members = train.by_class()
        self.net = convnet(len(train.classes), train.size, width).to(train.device)
        self.images = torch.stack(list(self._start(per_class)))
        self.leaves = {"images": self.images}
        self.optimizers = [torch.optim.SGD([self.images], lr, momentum=0.5)]

    def _start(self, per_class: int) -> Iterator[torch.Tensor]:
        for label, positions in enumerate(self.members):
            chosen = random_clips(positions, per_class, seed=self.seed, label=label)
            yield random_frames(self.train, chosen, start_stream(self.seed, label))

    def step(self) -> None:
        """One iteration: a new network, new real frames, one step on all images."""
        random = generator(self.seed, "static", self.iteration)
        default_weights(self.net, generator(self.seed, "static network", self.iteration, device=self.train.device))
        gradients = []
        for label, own in enumerate(self.members):
            picks = own[torch.randperm(len(own), generator=random)[: self.batch].numpy()]
            real = weight_gradients(self.net, random_frames(self.train, picks, random), label)
            images = self.images[label].clone().requires_grad_()
            synthetic = weight_gradients(self.net, images, label, create_graph=True)
            gradients += torch.autograd.grad(gradient_distance(real, synthetic), images)
        self.images.grad = torch.stack(gradients)
        (optimizer,) = self.optimizers
        optimizer.step()
        self.iteration += 1

    def run(self, iterations: int, *, checkpoint: Path | None = None, **options) -> None:
        """As ``Loop.run``; the checkpoint of the last iteration is kept too, for what comes after this stage."""
        super().run(iterations, checkpoint=checkpoint, **options)
        if checkpoint is not None:
            self._save(checkpoint)

    def identity(self) -> str:
        parts = (self.batch, self.lr, self.width, self.images.shape[1])
        return str(derive(self.seed, self.train.fingerprint, *map(str, parts)))
