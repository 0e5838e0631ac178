"""Distribution matching on video: the distillation loss L_DD of DAViD (section 3.4) and the loop around it."""

from collections.abc import Iterator

import torch

from david import sharding
from david.c3d import C3D
from david.clips import CHUNK, Clips
from david.costs import home
from david.fast_embed import bfloat16_features, compiling, frozen_embed, round_weights
from david.fourier import Workspace
from david.loop import Loop
from david.presets import Settings
from david.seeds import derive, generator
from david.start import start_videos
from david.temporal import partition


def class_means(features: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Means of consecutive runs of rows: features (sum(counts), D) -> (len(counts), D)."""
    return torch.stack([part.mean(0) for part in features.split(counts)])


def dm_loss(real: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    """Squared distance of mean features, summed over features and classes (DM; a scalar).

    The step size of the paper, 10, presupposes these sums: a mean over either would scale it by 1 / (M * D).

    Args:
        real, synthetic: (M, D) mean features of each class.
    """
    return (real - synthetic).square().sum()


def few(count: int, among: int, random: torch.Generator) -> torch.Tensor:
    """``count`` of the numbers below ``among``, all of them if there are not so many, without replacement.

    In a time that does not grow with ``among`` beyond a few thousand, as an iteration draws from every class.
    """
    if among < max(4096, 4 * count):
        return torch.randperm(among, generator=random)[:count]
    found: dict[int, None] = {}
    while len(found) < count:
        found |= dict.fromkeys(torch.randint(among, (count,), generator=random).tolist())
    return torch.tensor(list(found)[:count])


class RandomFeatures:
    """A new random network in every iteration, and the class means of real clips under it.

    The randomness of iteration i depends on (seed, i) only, so two runs of one seed see the same networks and clips.

    Args:
        train: real clips, on the device to compute on.
        seed: fixes everything random.
        settings: its ``distill_batch_real``, ``distill_precision`` and common fields.
        classes: only of these; they see the same networks and clips as among all.

    Attributes:
        net: the network of the latest iteration.
    """

    def __init__(self, train: Clips, *, seed: int, settings: Settings, classes: range | None = None):
        self.train, self.seed = train, seed
        self.batch_real, self.precision = settings.distill_batch_real, settings.distill_precision
        self.classes = range(len(train.classes)) if classes is None else classes
        self.members = [torch.as_tensor(positions) for positions in train.by_class()]
        self.net = C3D(len(train.classes), settings.frames, settings.size, settings.width).to(train.device)
        self.net.requires_grad_(False)
        self.features, self.workspace = bfloat16_features, Workspace()
        if compiling():
            # Not `embed`, which would be compiled anew for every layout of clips, up to torch's limit.
            self.net.trunk.forward = torch.compile(self.net.trunk.forward)
            self.features = torch.compile(self.features)

    @torch.no_grad()
    def draw(self, iteration: int) -> torch.Tensor:
        """Mean features (M, D) of ``distill_batch_real`` real clips a class, drawn without replacement."""
        random = generator(self.seed, "iteration", iteration)
        self.net.reset(generator(self.seed, "network", iteration, device=self.train.device))
        if self.precision == "bfloat16":
            round_weights(self.net)
        # One stream draws for all classes, and the coins for mirroring after that, so draw for those left out too.
        picks = [own[few(self.batch_real, len(own), random)] for own in self.members]
        torch.rand(sum(map(len, picks[: self.classes.start])), generator=random)
        picks = picks[self.classes.start : self.classes.stop]
        embed, means = frozen_embed(self.net, self.precision, self.features, self.workspace), []
        at_once = self.train.at_once
        for chunk in class_chunks([len(pick) for pick in picks], at_once):
            some = picks[chunk.start : chunk.stop]
            parts = torch.cat(some).split(at_once)
            features = [embed(self.train.batch(p, generator=random, flip=self.train.flip)) for p in parts]
            means.append(class_means(torch.cat(features), [len(pick) for pick in some]))
        return torch.cat(means)


def class_chunks(counts: list[int], at_once: int) -> list[range]:
    """Consecutive classes whose clips, ``counts`` of each, go through the network together: no more than ``at_once``.

    A class of more clips has a chunk of its own.

    The losses of different classes are separate, so each chunk can have a backward pass of its own: the same
    gradient, and memory that does not grow with the number of classes.
    """
    chunks, first, clips = [], 0, 0
    for c, count in enumerate(counts):
        if clips and clips + count > at_once:
            chunks.append(range(first, c))
            first, clips = c, 0
        clips += count
    return [*chunks, range(first, len(counts))]


def clip_pieces(videos: torch.Tensor, lengths: list[int], at_once: int) -> Iterator[torch.Tensor]:
    """The training clips of one of the ``class_chunks``, in order, float (B, F, 3, H, W).

    Args:
        videos: float (len(lengths), I, F, 3, H, W).
        lengths: L of each class.
        at_once: no more clips than these at a time.
    """
    if len(lengths) > 1:
        yield torch.cat([partition(v, length) for v, length in zip(videos, lengths, strict=True)])
        return
    for some in videos[0].split(max(1, at_once * lengths[0] // videos.shape[2])):
        yield partition(some, lengths[0])


class Distiller(Loop):
    """Distribution matching of every class at once, under one policy; on several ranks, of this rank's share of them.

    Each iteration draws new network weights and new real clips, and takes one step on all videos. Beside these and
    their momentum it holds the gradient and the activations of one chunk, however many classes and videos there are.
    Videos and momentum that would crowd a GPU stay on the host, and visit it chunk by chunk.

    Args:
        train: real clips, on the device to compute on.
        policy: int64 (M,), L of each class, those of other ranks included.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: its ``distill_`` fields.
        real: the networks and real clips of the iterations, if several distillers share them; else its own.

    Attributes:
        classes: this rank's; without ``david.sharding.group`` all M.
        videos: their synthetic videos, float (len(classes), I, F, 3, H, W); every step changes them in place.
    """

    def __init__(
        self,
        train: Clips,
        policy: torch.Tensor,
        *,
        ipc: int,
        seed: int,
        settings: Settings,
        real: RandomFeatures | None = None,
    ):
        self.train, self.policy, self.seed, self.settings = train, policy, seed, settings
        self.classes = sharding.share(len(policy))
        self.lengths = policy[self.classes.start : self.classes.stop].tolist()
        self.real = real or RandomFeatures(train, seed=seed, settings=settings, classes=self.classes)
        kind = settings.distill_start
        states = 2 if settings.distill_optimizer == "sgd" else 3  # the videos, and one or two moments
        clip = settings.frames * 3 * settings.size**2 * 4
        device = home(train.device, states * len(self.classes) * ipc * clip)
        start = start_videos(train, policy, ipc=ipc, seed=seed, kind=kind, classes=self.classes, device=device)
        self.counts = [ipc * (start.shape[2] // length) for length in self.lengths]
        self.chunks = class_chunks(self.counts, CHUNK)  # on a small GPU as well: a checkpoint is of any machine
        # One leaf and one optimiser a chunk: no gradient outlives its chunk's step. The leaves are views of `videos`.
        parts = [start[chunk.start : chunk.stop].requires_grad_() for chunk in self.chunks]
        self.videos, self.leaves = start, {f"videos {i}": part for i, part in enumerate(parts)}
        kind, lr, momentum = settings.distill_optimizer, settings.distill_lr, settings.distill_momentum
        self.optimizers = [pixel_optimizer([part], kind, lr=lr, momentum=momentum) for part in parts]

    def step(self) -> None:
        """One iteration: new weights, new real clips, one optimiser step on every video."""
        self.move(self.real.draw(self.iteration))

    def move(self, real: torch.Tensor) -> None:
        """The rest of an iteration whose networks and real clips are drawn already: one step on every video.

        Args:
            real: mean features of real clips under ``self.real.net``, float (len(classes), D).
        """
        for chunk, part, optimizer in zip(self.chunks, self.leaves.values(), self.optimizers, strict=True):
            # A copy, or the same memory if this is its home.
            visiting = part.detach().to(self.train.device, non_blocking=True).requires_grad_()
            self.backward(chunk, visiting, real[chunk.start : chunk.stop])
            part.grad = visiting.grad.to(part.device)
            optimizer.step()
            part.grad = None
        self.iteration += 1

    def backward(self, chunk: range, videos: torch.Tensor, real: torch.Tensor) -> None:
        """Add the gradient of the loss of a chunk to that of its ``videos``, a few clips at a time.

        Args:
            chunk: consecutive classes, numbered within ``classes``.
            videos: float (len(chunk), I, F, 3, H, W).
            real: mean features of real clips, float (len(chunk), D).
        """
        net, lengths = self.real.net, self.lengths[chunk.start : chunk.stop]
        counts = self.counts[chunk.start : chunk.stop]
        at_once = self.train.at_once
        if len(chunk) > 1 and sum(counts) > at_once:
            for part in class_chunks(counts, at_once):
                own = slice(part.start, part.stop)
                self.backward(chunk[own], videos[own], real[own])
            return
        if sum(counts) <= at_once:
            (clips,) = clip_pieces(videos, lengths, at_once)
            dm_loss(real, class_means(net.embed(clips), counts)).backward()
            return
        # One graph of so many clips would grow with the IPC. Here the features are computed without a graph, for the
        # slope of the loss at each of them, and then once more, piece by piece, to go on from there to the pixels.
        with torch.no_grad():
            features = torch.cat([net.embed(clips) for clips in clip_pieces(videos, lengths, at_once)])
        dm_loss(real, class_means(features.requires_grad_(), counts)).backward()
        done = 0
        for clips in clip_pieces(videos, lengths, at_once):
            net.embed(clips).backward(features.grad[done : done + len(clips)])
            done += len(clips)

    def identity(self) -> str:
        settings = str(self.settings.subset("distill"))
        share = [] if sharding.size() == 1 else [str(self.classes)]
        return str(derive(self.seed, self.train.fingerprint, settings, str(self.policy.tolist()), *self.counts, *share))


def pixel_optimizer(leaves: list[torch.Tensor], kind: str, *, lr: float, momentum: float) -> torch.optim.Optimizer:
    """The optimiser of synthetic pixels: "sgd" with momentum, as all of the papers have it, or "adam".

    Raises:
        ValueError: unknown kind.
    """
    if kind == "sgd":
        return torch.optim.SGD(leaves, lr, momentum=momentum)
    if kind == "adam":
        return torch.optim.Adam(leaves, lr)
    raise ValueError(f"unknown optimizer {kind!r} for pixels; choose 'sgd' or 'adam'")
