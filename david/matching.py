"""Distil videos: the distillation loss L_DD of DAViD (section 3.4), where videos start, one step of it, the loop.

Distribution matching (DM; Zhao and Bilen 2023): the mean features of a class's synthetic clips are to meet those of its
real clips, under one random network after another.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from david.c3d import C3D
from david.fast_embed import bfloat16_features, compiling, frozen_embed, round_weights
from david.partition import num_segments, partition
from david.support.costs import home
from david.support.loop import Loop
from david.support.pixels import CHUNK, rounded
from david.support.seeds import derive, generator

if TYPE_CHECKING:
    from david.data.clips import Clips


@dataclass(frozen=True)
class Settings:
    """How videos are distilled; the defaults are the paper's where it states them.

    Attributes:
        iterations: N.
        optimizer: "sgd" or "adam", on normalised pixels.
        lr, momentum: of SGD's steps; ``lr_unit`` "absolute", or in units of the loss's "curvature": see ``Distiller``.
        batch_real: real clips of a class in an iteration.
        precision: "bfloat16" or "float32", of the real clips' pass: see ``david.fast_embed``.
        start: "noise", "real" or "mean", see ``start_videos``.
        range: "8-bit" keeps pixels within what 8 bits can show, and rounds them at the end; "free" does neither.
        average: 0 for the last iterate; k for an average of about the last 1 / k of them, see ``Loop``.
        width: factor on the channels of C3D.
    """

    iterations: int = 5000
    optimizer: str = "sgd"
    lr: float = 10.0
    momentum: float = 0.95
    batch_real: int = 64
    precision: str = "bfloat16"
    start: str = "noise"
    range: str = "8-bit"
    lr_unit: str = "absolute"
    average: float = 0.0
    width: float = 1.0

    @property
    def bounded(self) -> bool:
        """Whether pixels are kept within what 8 bits can show."""
        return self.range == "8-bit"


HELD_OUT = 4  # networks that no step uses, for the curve of a run
HELD_OUT_CLIPS = 32  # real clips a class, at most, that give the class means under them
ALIKE = 5e-4  # features that are apart by less than this share of what they are count as so far apart


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


def spread(features: torch.Tensor) -> torch.Tensor:
    """The sum of the squared distances of features (N, D) to their mean, the unit of other distances.

    Of features that are alike (there is one of them, say) ALIKE of their own squares, so that the unit is never 0.
    """
    return (features - features.mean(0)).square().sum().clamp_min(ALIKE * features.square().sum())


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


def random_clips(positions, count: int, *, seed: int, label: int) -> torch.Tensor:
    """``count`` of a class's ``positions``, in random order; they repeat only once all of them are used.

    Every method that begins from real clips draws them here, so that one seed means the same clips to all.
    """
    order = torch.randperm(len(positions), generator=generator(seed, "start", label))
    return torch.as_tensor(positions)[order.repeat(-(-count // len(order)))[:count]]


def noise(count: int, shape: tuple[int, ...], random: torch.Generator) -> Iterator[torch.Tensor]:
    """The ``count`` rows of ``torch.randn(count, *shape, generator=random)``, without ever holding all of them."""
    # torch makes normal numbers in blocks of 16, so that pieces of whole blocks are the same numbers.
    step = 16 // math.gcd(16, math.prod(shape))
    for first in range(0, count, step):
        yield from torch.randn(min(step, count - first), *shape, generator=random)


def empty_videos(train: "Clips", classes: int, ipc: int, device: torch.device | None = None) -> torch.Tensor:
    """Memory for stored videos, float32 (classes, ipc, F, 3, H, W), on ``device`` or else at ``home``."""
    shape = (classes, ipc, train.frames, 3, train.size, train.size)
    device = device or home(train.device, 4 * math.prod(shape))
    visits = train.device.type == "cuda" and device.type == "cpu"  # a GPU fetches fastest from pinned memory
    return torch.empty(shape, device=device, pin_memory=visits)


def start_videos(
    train: "Clips", policy: torch.Tensor, *, ipc: int, seed: int, kind: str, classes: range | None = None, device=None
) -> torch.Tensor:
    """The synthetic videos before the first step, float32 (len(classes), I, F, 3, H, W), normalised.

    Args:
        train: real clips.
        policy: int64 (len(classes),), L of each class.
        ipc: I, stored videos a class.
        seed: fixes the noise, or which clips are used; the same for every policy.
        kind: "noise" is N(0, 1); the paper says noise, and not which. "real" starts each segment as L evenly spaced
            frames of a real clip of its own, so a partitioned video begins as a collage of F / L clips. Clips repeat
            only when a class has fewer than IPC * F / L. "mean" cuts every real clip of the class to such a segment
            and stores the IPC * F / L centres that k-means finds among them: at L = F and IPC 1 the class's pixel mean.
        classes: only these of the M; their videos are the same as among those of all.
        device: where to return them; by default that of ``train``, or the host if they would crowd a GPU.
    """
    classes = range(len(train.classes)) if classes is None else classes
    videos = empty_videos(train, len(classes), ipc, device)
    if kind == "noise":
        for c, video in zip(range(classes.stop), noise(len(train.classes), videos.shape[1:], generator(seed, "start"))):
            if c in classes:
                videos[c - classes.start] = video
        return videos
    if kind not in ("real", "mean"):
        raise ValueError(f"unknown start {kind!r}; choose 'noise', 'real' or 'mean'")
    members = train.by_class()
    for video, c, length in zip(videos, classes, policy.tolist(), strict=True):
        count = ipc * num_segments(train.frames, length)
        shown = (torch.arange(length) * 2 + 1) * train.frames // (2 * length)  # the middles of L equal parts
        segments = video.view(count, length, *video.shape[2:])
        if kind == "mean":
            segments.copy_(segment_centres(train, members[c], shown, count, seed=derive(seed, "centres", c)))
            continue
        chosen = random_clips(members[c], count, seed=seed, label=c)
        for some, part in zip(segments.split(train.at_once), chosen.split(train.at_once), strict=True):
            some.copy_(train.batch(part)[:, shown.to(train.device)])
    return videos


def segment_centres(train: "Clips", positions, shown: torch.Tensor, count: int, *, seed: int) -> torch.Tensor:
    """``count`` centres of k-means among a class's segments, float (count, L, 3, H, W), normalised, on the CPU.

    Args:
        positions: of the class's clips.
        shown: int64 (L,), the frames of a clip that are its segment.
        count: centres; where there are fewer clips, they repeat.
        seed: of k-means' start; a single centre is the mean, whatever the seed.
    """
    parts = torch.as_tensor(positions).split(train.at_once)
    found = torch.cat([train.batch(part)[:, shown.to(train.device)].cpu() for part in parts])
    if count == 1:
        return found.mean(0, keepdim=True)
    from sklearn.cluster import KMeans  # late, as nothing else of a distillation needs it
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies of a clip share a centre, which then repeats
        clusters = KMeans(min(count, len(found)), n_init=1, random_state=seed % 2**32).fit(found.flatten(1).numpy())
    centres = torch.from_numpy(clusters.cluster_centers_).view(-1, *found.shape[1:])
    return centres.repeat(-(-count // len(centres)), 1, 1, 1, 1)[:count]


class Features:
    """The networks of distribution matching, one in every iteration, and the class means of real clips under it.

    The randomness of iteration i depends on (seed, i) only, so two runs of one seed see the same networks and clips.

    A network is drawn anew, as in DM; or it is a snapshot of one of MTT's experts, trained a little, as in IDM (Zhao et
    al. 2023): from the second half of their epochs, as before it networks know next to nothing. An expert's features
    grow many times over while it learns, so each snapshot's are scaled to the same distance between clips; else the
    loss would be that of the oldest snapshots alone.

    Args:
        train: real clips, on the device to compute on.
        seed: fixes everything random but the experts, which all seeds share.
        settings: its ``batch_real``, ``precision`` and ``width``.
        classes: only of these; they see the same networks and clips as among all.
        experts: MTT's (``david.baselines.experts``); None draws networks at random.

    Attributes:
        net: the network of the latest iteration.
    """

    def __init__(
        self,
        train: "Clips",
        *,
        seed: int,
        settings: Settings,
        classes: range | None = None,
        experts=None,
    ):
        self.train, self.seed, self.experts = train, seed, experts
        self.batch_real, self.precision = settings.batch_real, settings.precision
        self.classes = range(len(train.classes)) if classes is None else classes
        self.members = [torch.as_tensor(positions) for positions in train.by_class()]
        self.net = C3D(len(train.classes), train.frames, train.size, settings.width).to(train.device)
        self.net.requires_grad_(False)
        self.scales, self.known = {}, {}
        self.features = bfloat16_features
        if compiling():
            # Not `embed`, which would be compiled anew for every layout of clips, up to torch's limit.
            self.net.trunk.forward = torch.compile(self.net.trunk.forward)
            self.features = torch.compile(self.features)

    def renew(self, *names: str | int, held_out: bool = False) -> None:
        """Give ``net`` the weights of the stream that ``names`` name.

        Args:
            held_out: of networks that no iteration has: the last expert's, where there are experts.
        """
        if self.experts is None:
            self.net.reset(generator(self.seed, *names, device=self.train.device))
        else:
            random = generator(self.seed, *names)
            expert = len(self.experts) - 1
            if not held_out:
                expert = int(torch.randint(expert, (), generator=random))
            half = self.experts.epochs // 2
            self.load_snapshot(expert, half + 1 + int(torch.randint(self.experts.epochs - half, (), generator=random)))
        if self.precision == "bfloat16":
            round_weights(self.net)

    @torch.no_grad()
    def load_snapshot(self, expert: int, epoch: int) -> None:
        """Give ``net`` an expert's weights after ``epoch`` epochs, its features divided by their deviation."""
        snapshot, _ = self.experts.segment(expert, epoch, 0)
        own = list(self.net.parameters())
        for parameter, values in zip(own, snapshot.split([parameter.numel() for parameter in own]), strict=True):
            parameter.copy_(values.view_as(parameter))
        if (expert, epoch) not in self.scales:
            some = torch.cat([own[:2] for own in self.members])
            features = self.net.embed(self.train.batch(some))
            self.scales[expert, epoch] = (spread(features) / len(features)).rsqrt()
        for parameter in self.net.trunk[-3].parameters():  # before a pool and a ReLU, so this scales the features
            parameter.mul_(self.scales[expert, epoch])

    @torch.no_grad()
    def draw(self, iteration: int) -> torch.Tensor:
        """Mean features (M, D) of ``batch_real`` real clips a class, drawn without replacement."""
        random = generator(self.seed, "iteration", iteration)
        self.renew("network", iteration)
        # One stream draws for all classes, and the coins for mirroring after that, so draw for those left out too.
        picks = [own[few(self.batch_real, len(own), random)] for own in self.members]
        torch.rand(sum(map(len, picks[: self.classes.start])), generator=random)
        return self.real_means(picks[self.classes.start : self.classes.stop], random)

    @torch.no_grad()
    def held_out(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean features (M, D) of up to HELD_OUT_CLIPS real clips a class under the k-th network that no step uses.

        And the sum of the squared distances of all M classes' means to their common mean; of classes that look alike,
        a small share of the means themselves.
        """
        self.renew("held out", k, held_out=True)
        if k not in self.known:
            every = self.real_means([positions[:HELD_OUT_CLIPS] for positions in self.members], None)
            self.known[k] = every[self.classes.start : self.classes.stop].clone(), spread(every)
        return self.known[k]

    def real_means(self, picks: list[torch.Tensor], random: torch.Generator | None) -> torch.Tensor:
        """Mean features (len(picks), D) of the clips at ``picks``, mirrored by ``random``'s coins or not at all."""
        embed, means = frozen_embed(self.net, self.precision, self.features), []
        at_once, flip = self.train.at_once, self.train.flip and random is not None
        for chunk in class_chunks([len(pick) for pick in picks], at_once):
            some = picks[chunk.start : chunk.stop]
            parts = torch.cat(some).split(at_once)
            features = [embed(self.train.batch(p, generator=random, flip=flip)) for p in parts]
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
    """Distribution matching of every class at once, under one policy.

    Each iteration draws new network weights and new real clips, and takes one step on all videos. Beside these and
    their momentum it holds the gradient and the activations of one chunk, however many classes and videos there are.
    Videos and momentum that would crowd a GPU stay on the host, and visit it chunk by chunk.

    With ``lr_unit="curvature"`` each class's step is ``lr`` (1 - momentum) over the largest curvature
    of its loss at the start, so that a step that goes on in one direction is ``lr`` over it: SGD is stable up
    to 2 (1 + momentum) / (1 - momentum), 78 at momentum 0.95, whatever the width, the size, L and IPC are.

    Args:
        train: real clips, on the device to compute on.
        policy: int64 (len(classes),), L of each class.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: how.
        classes: only these of the M; their videos become what they become among all.
        experts: MTT's, whose snapshots are the networks; None draws networks at random.
        real: the networks and real clips of the iterations, if several distillers share them; else its own.

    Attributes:
        videos: the synthetic videos, float (len(classes), I, F, 3, H, W); every step changes them in place.
    """

    step_setting = "distill_lr"

    def __init__(
        self,
        train: "Clips",
        policy: torch.Tensor,
        *,
        ipc: int,
        seed: int,
        settings: Settings,
        classes: range | None = None,
        experts=None,
        real: Features | None = None,
    ):
        self.train, self.policy, self.seed, self.settings = train, policy, seed, settings
        self.classes, self.lengths = range(len(train.classes)) if classes is None else classes, policy.tolist()
        self.real = real or Features(train, seed=seed, settings=settings, classes=self.classes, experts=experts)
        self.average, self.bounded = settings.average, settings.bounded
        # The videos, one or two moments, and the average.
        states = (2 if settings.optimizer == "sgd" else 3) + bool(self.average)
        clip = train.frames * 3 * train.size**2 * 4
        device = home(train.device, states * len(self.classes) * ipc * clip)
        start = start_videos(
            train, policy, ipc=ipc, seed=seed, kind=settings.start, classes=self.classes, device=device
        )
        self.counts = [ipc * (start.shape[2] // length) for length in self.lengths]
        self.chunks = class_chunks(self.counts, CHUNK)  # on a small GPU as well: a checkpoint is of any machine
        # One leaf and one optimiser a chunk: no gradient outlives its chunk's step. The leaves are views of `videos`.
        parts = [start[chunk.start : chunk.stop].requires_grad_() for chunk in self.chunks]
        self.videos, self.leaves = start, {f"videos {i}": part for i, part in enumerate(parts)}
        kind, lr, momentum = settings.optimizer, settings.lr, settings.momentum
        self.scale = None  # of each class's gradient, (len(classes), 1, 1, 1, 1, 1)
        if settings.lr_unit == "curvature":
            self.scale, lr = 1 / self.curvatures().view(-1, 1, 1, 1, 1, 1), lr * (1 - momentum)
        self.optimizers = [pixel_optimizer([part], kind, lr=lr, momentum=momentum) for part in parts]
        self.begin_averages(list(self.leaves))

    def step(self) -> None:
        """One iteration: new weights, new real clips, one optimiser step on every video."""
        self.move(self.real.draw(self.iteration))

    def move(self, real: torch.Tensor) -> None:
        """The rest of an iteration whose networks and real clips are drawn already: one step on every video.

        Args:
            real: mean features of real clips under ``self.real.net``, float (len(classes), D).
        """
        for chunk, (name, part), optimizer in zip(self.chunks, self.leaves.items(), self.optimizers, strict=True):
            gradient = self.gradient(chunk, part, real[chunk.start : chunk.stop])
            if self.scale is not None:
                gradient *= self.scale[chunk.start : chunk.stop]
            part.grad = gradient.to(part.device)
            del gradient  # or it would outlive its chunk's step
            optimizer.step()
            part.grad = None
            self.settle(name, self.bounded)
        self.iteration += 1

    def gradient(self, chunk: range, videos: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The gradient of a chunk's loss to its videos, on the device of the real clips.

        Args:
            chunk, real: as ``backward`` has them.
            videos: float (len(chunk), I, F, 3, H, W), wherever they live.
        """
        # A copy, or the same memory if this is its home.
        visiting = videos.detach().to(self.train.device, non_blocking=True).requires_grad_()
        self.backward(chunk, visiting, real)
        return visiting.grad

    @torch.no_grad()
    def means(self, chunk: range, videos: torch.Tensor) -> torch.Tensor:
        """Mean features of a chunk's training clips under the network of the moment, float (len(chunk), D)."""
        lengths, counts = (own[chunk.start : chunk.stop] for own in (self.lengths, self.counts))
        means = []
        for part in class_chunks(counts, self.train.at_once):
            own, some = slice(part.start, part.stop), videos[part.start : part.stop].to(self.train.device)
            pieces = clip_pieces(some, lengths[own], self.train.at_once)
            features = torch.cat([self.real.net.embed(clips) for clips in pieces])
            means.append(class_means(features, counts[own]))
        return torch.cat(means)

    def curvatures(self, networks: int = 2, rounds: int = 5) -> torch.Tensor:
        """The largest curvature of each class's loss where its videos are now: (len(classes),), a mean over networks.

        Power iteration on the Gauss-Newton matrix 2 J^T J of one network after the other, J the slope of the class's
        mean features, beginning with the gradient. (Networks differ in the directions that they are curved in: the mean
        of their matrices is far less curved than each, but one step meets one network.) The network is linear in
        pieces, so J u is a difference of features.
        """
        found = []
        for chunk, part in zip(self.chunks, self.leaves.values(), strict=True):
            videos, total = part.detach().to(self.train.device), 0
            reach = 0.02 * videos[0].numel() ** 0.5  # pixels change by 0.02 deviations, root mean square
            for k in range(networks):
                self.real.renew("curvature", k)
                here = self.means(chunk, videos)
                target = 0 * here
                for _ in range(rounds):
                    product = self.gradient(chunk, videos, target)
                    norm = product.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1, 1).clamp_min(1e-30)
                    # The gradient is that of a squared residual: of the features at first, then of J u.
                    target = 2 * here - self.means(chunk, videos + product * (reach / norm))
                total = total + norm.flatten() / reach
            found.append(total / networks)
        return torch.cat(found)

    def held_out(self) -> float | None:
        """The sum of ``held_out_losses``; None for pixels without bounds, whose runs go on as they did of old."""
        return self.held_out_losses().sum().item() if self.bounded else None

    def held_out_losses(self) -> torch.Tensor:
        """The matching loss of every class under networks that no step uses, (len(classes),).

        The squared distance of synthetic to real mean features, in units of how far the classes' real means are apart:
        the sum over all classes of their squared distances to their common mean.
        """
        losses = 0
        for k in range(HELD_OUT):
            real, unit = self.real.held_out(k)
            own = torch.cat([self.means(chunk, self.result(name)) for chunk, name in zip(self.chunks, self.leaves)])
            losses = losses + (real - own).square().sum(1) / unit
        return losses / HELD_OUT

    def distilled(self) -> torch.Tensor:
        """The videos so far, float (len(classes), I, F, 3, H, W): averaged, and rounded to 8 bits, if so set."""
        videos = torch.cat([self.result(name) for name in self.leaves]) if self.averages else self.videos.detach()
        return rounded(videos) if self.bounded else videos

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
        networks = self.real.experts and self.real.experts.identity
        parts = (self.settings, networks, self.policy.tolist(), self.classes, self.counts)
        return str(derive(self.seed, self.train.fingerprint, *map(str, parts)))


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
