"""Distribution matching on video: the distillation loss L_DD of DAViD (section 3.4) and the loop around it."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from david.c3d import C3D
from david.clips import Clips
from david.files import atomic
from david.presets import Settings
from david.progress import track
from david.seeds import derive, generator
from david.temporal import num_segments, partition

# Clips that go through the network at once: bounds memory whatever the number of classes and IPC are.
CHUNK = 128


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


def start_videos(train: Clips, policy: torch.Tensor, *, ipc: int, seed: int, kind: str) -> torch.Tensor:
    """The synthetic videos before the first step, float32 (M, I, F, 3, H, W), normalised, on ``train``'s device.

    Args:
        train: real clips.
        policy: int64 (M,), L of each class.
        ipc: I, stored videos a class.
        seed: fixes the noise, or which clips are used; the same for every policy.
        kind: "noise" is N(0, 1), as the paper has it. "real" starts each segment as L evenly spaced frames of a real
            clip of its own, so a partitioned video begins as a collage of F / L clips. Clips repeat only
            when a class has fewer than IPC * F / L.
    """
    _, frames, height, width, _ = train.videos.shape
    shape = (len(policy), ipc, frames, 3, height, width)
    if kind == "noise":
        return torch.randn(shape, generator=generator(seed, "start")).to(train.device)
    if kind != "real":
        raise ValueError(f"unknown start {kind!r}; choose 'noise' or 'real'")
    videos = torch.empty(shape, device=train.device)
    for c, (positions, length) in enumerate(zip(train.by_class(), policy.tolist(), strict=True)):
        order = torch.randperm(len(positions), generator=generator(seed, "start", c))
        count = ipc * num_segments(frames, length)
        chosen = torch.as_tensor(positions)[order.repeat(-(-count // len(order)))[:count]]
        shown = (torch.arange(length) * 2 + 1) * frames // (2 * length)  # the middles of L equal parts
        clips = train.batch(chosen)[:, shown.to(train.device)]  # (count, L, 3, H, W)
        videos[c] = clips.reshape(ipc, frames, 3, height, width)
    return videos


class Distiller:
    """Distribution matching of every class at once, under one policy.

    Each iteration draws new network weights and new real clips, and takes one step on all videos. The losses
    of different classes touch disjoint pixels, so the classes go through the network in chunks, each with its own
    backward pass: the same gradient, and memory that does not grow with the number of classes. The randomness
    of iteration i depends on (seed, i) only, so two policies of one seed see the same networks and clips.

    Args:
        train: real clips, on the device to compute on.
        policy: int64 (M,), L of each class.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: its ``distill_`` fields.

    Attributes:
        iteration: steps taken so far.
    """

    def __init__(self, train: Clips, policy: torch.Tensor, *, ipc: int, seed: int, settings: Settings):
        self.train, self.policy, self.seed, self.settings = train, policy, seed, settings
        self.iteration = 0
        self.members = [torch.as_tensor(positions) for positions in train.by_class()]
        self.net = C3D(len(policy), settings.frames, settings.size, settings.width).to(train.device)
        self.net.requires_grad_(False)
        start = start_videos(train, policy, ipc=ipc, seed=seed, kind=settings.distill_start)
        self.counts = (ipc * (start.shape[2] // policy)).tolist()
        self.chunks, first, clips = [], 0, 0
        for c, count in enumerate(self.counts):
            if clips and clips + count > CHUNK:
                self.chunks.append(range(first, c))
                first, clips = c, 0
            clips += count
        self.chunks.append(range(first, len(policy)))
        # One leaf a chunk, so that no backward pass allocates a gradient for the whole set.
        self.parts = [start[chunk.start : chunk.stop].clone().requires_grad_() for chunk in self.chunks]
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        s = self.settings
        if s.distill_optimizer == "sgd":
            return torch.optim.SGD(self.parts, s.distill_lr, momentum=s.distill_momentum)
        if s.distill_optimizer == "adam":
            return torch.optim.Adam(self.parts, s.distill_lr)
        raise ValueError(f"unknown distill_optimizer {s.distill_optimizer!r}; choose 'sgd' or 'adam'")

    @property
    def videos(self) -> torch.Tensor:
        """The synthetic videos, float (M, I, F, 3, H, W)."""
        return torch.cat([part.detach() for part in self.parts])

    @torch.no_grad()
    def _real_means(self, random: torch.Generator) -> torch.Tensor:
        """Mean features (M, D) of ``distill_batch_real`` real clips a class, drawn without replacement."""
        size = self.settings.distill_batch_real
        picks = [own[torch.randperm(len(own), generator=random)[:size]] for own in self.members]
        features = [
            self.net.embed(self.train.batch(part, generator=random, flip=self.train.flip))
            for part in torch.cat(picks).split(CHUNK)
        ]
        return class_means(torch.cat(features), [len(pick) for pick in picks])

    def step(self) -> None:
        """One iteration: new weights, new real clips, one optimiser step on every video."""
        random = generator(self.seed, "iteration", self.iteration)
        self.net.reset(generator(self.seed, "network", self.iteration, device=self.train.device))
        real = self._real_means(random)
        self.optimizer.zero_grad(set_to_none=True)
        for chunk, part in zip(self.chunks, self.parts, strict=True):
            lengths = self.policy[chunk.start : chunk.stop].tolist()
            clips = torch.cat([partition(v, length) for v, length in zip(part, lengths, strict=True)])
            means = class_means(self.net.embed(clips), self.counts[chunk.start : chunk.stop])
            dm_loss(real[chunk.start : chunk.stop], means).backward()
        self.optimizer.step()
        self.iteration += 1

    def run(self, iterations: int, *, checkpoint: Path | None = None, every: int = 100, desc="distil") -> torch.Tensor:
        """Step until ``iterations`` are done and return the videos.

        Args:
            iterations: total, N (those of a checkpoint included).
            checkpoint: file to resume from and to write every ``every`` iterations; removed by the caller.

        Raises:
            FloatingPointError: the videos diverged.
        """
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        for _ in track(range(self.iteration, iterations), desc=desc, unit="it"):
            self.step()
            if checkpoint is not None and self.iteration % every == 0:
                self._save(checkpoint)
        videos = self.videos
        if not torch.isfinite(videos).all():
            raise FloatingPointError(f"the synthetic videos diverged within {iterations} iterations; lower distill_lr")
        return videos

    def _state(self) -> dict[str, torch.Tensor]:
        """Everything a continuation needs: videos and optimiser buffers (the randomness follows the iteration)."""
        state = {f"{i}/video": part.detach() for i, part in enumerate(self.parts)}
        for i, part in enumerate(self.parts):
            buffers = self.optimizer.state.get(part, {})
            state |= {f"{i}/{name}": value for name, value in buffers.items() if torch.is_tensor(value)}
        return {name: value.cpu().contiguous() for name, value in state.items()}

    def _identity(self) -> str:
        settings = str(self.settings.subset("distill"))
        return str(derive(self.seed, self.train.fingerprint, settings, str(self.policy.tolist()), *self.counts))

    def _save(self, path: Path) -> None:
        with atomic(path) as temporary:
            header = {"iteration": str(self.iteration), "identity": self._identity()}
            save_file(self._state(), temporary, metadata=header)

    def _load(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        if header.get("identity") != self._identity():
            raise ValueError(f"{path} is the checkpoint of another distillation; delete it to start over")
        state = load_file(path, device=str(self.train.device))
        for i, part in enumerate(self.parts):
            part.data.copy_(state[f"{i}/video"])
            buffers = {n.split("/")[1]: v for n, v in state.items() if n.startswith(f"{i}/") and n != f"{i}/video"}
            if buffers:
                self.optimizer.state[part] = buffers
        self.iteration = int(header["iteration"])
