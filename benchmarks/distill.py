"""How fast an iteration of DM is: beside the plain recipe of earlier work, and beside what it cannot do without.

    python benchmarks/distill.py --out bench.json

All figures of one call come from one process on one machine, in turns, the median of several; ratios between them
mean something, seconds alone do not. The plain recipe is the one of the published code of DM on video, written anew
from its description: real clips as float32 on the host, stacked and copied class by class; a new network in every
iteration, in PyTorch's default layout, ReLU before the pool; one graph of all classes.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from david.c3d import C3D
from david.clips import Clips, normalise
from david.costs import clip_flops
from david.files import write_json
from david.matching import Distiller
from david.presets import Settings
from david.records import made_on


def noise_clips(classes: int, clips: int, frames: int, size: int, device: torch.device) -> Clips:
    """Random pixels in place of a training set: the arithmetic does not look at them."""
    pixels = torch.randint(256, (classes * clips, frames, size, size, 3), dtype=torch.uint8)
    labels = np.repeat(np.arange(classes), clips)
    names = np.array([f"clip {i}" for i in range(len(labels))])
    titles = [f"class {c}" for c in range(classes)]
    return Clips(
        pixels.to(device), np.arange(len(labels)), labels, titles, names, names, flip=True, fingerprint="noise"
    )


class PlainRecipe:
    """DM as earlier code runs it."""

    def __init__(self, train: Clips, settings: Settings):
        self.settings, self.device = settings, train.device
        clips = normalise(train.videos.cpu()).transpose(1, 2).contiguous()  # (N, 3, F, H, W) float32, on the host
        self.real = [list(clips[torch.as_tensor(own)]) for own in train.by_class()]
        shape = (len(self.real), 3, settings.frames, settings.size, settings.size)
        self.videos = torch.randn(shape, device=self.device, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.videos], settings.distill_lr, momentum=settings.distill_momentum)

    def network(self) -> nn.Module:
        channels = [3, *(max(1, round(self.settings.width * c)) for c in (64, 128, 128))]
        layers = []
        for inputs, outputs, pool in zip(channels, channels[1:], ((1, 2, 2), (2, 2, 2), (2, 2, 2))):
            conv = nn.Conv3d(inputs, outputs, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3))
            layers += [conv, nn.ReLU(inplace=True), nn.MaxPool3d(pool)]
        return nn.Sequential(*layers, nn.Flatten()).to(self.device).requires_grad_(False)

    def step(self) -> None:
        net, loss = self.network(), torch.zeros((), device=self.device)
        for c, real in enumerate(self.real):
            chosen = torch.randperm(len(real))[: self.settings.distill_batch_real]
            batch = torch.stack([real[i] for i in chosen]).to(self.device)
            loss = loss + (net(batch).mean(0) - net(self.videos[c : c + 1]).mean(0)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()


class BareEmbed:
    """The network's share alone: clips that lie there ready go forward, the synthetic ones backward as well."""

    def __init__(self, train: Clips, settings: Settings):
        self.net = C3D(len(train.classes), settings.frames, settings.size, settings.width).to(train.device)
        self.net.requires_grad_(False)
        count = settings.distill_batch_real * len(train.classes)
        self.real = [train.batch(np.arange(i, min(i + 128, count)) % len(train)) for i in range(0, count, 128)]
        self.synthetic = train.batch(np.arange(len(train.classes))).requires_grad_()

    def step(self) -> None:
        with torch.no_grad():
            for part in self.real:
                self.net.embed(part)
        self.net.embed(self.synthetic).sum().backward()


def seconds(run, device: torch.device) -> float:
    """One call, until the device is done with it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def rates(device: torch.device, size: int = 2048) -> dict[str, float]:
    """What the device can do at best: FLOP/s of matrix products by precision, bytes/s of a copy (read and write)."""
    found = {}
    for name in ("float32", "bfloat16"):
        a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, name)) for _ in range(2))
        found[f"{name} FLOP/s"] = 2 * size**3 / min(seconds(partial(torch.matmul, a, b), device) for _ in range(5))
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    found["copy bytes/s"] = 2 * block.numel() / min(seconds(block.clone, device) for _ in range(5))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in {"classes": 12, "clips": 64, "frames": 8, "size": 64, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    device = torch.device(options.device)
    settings = Settings(frames=options.frames, size=options.size, width=options.width, distill_batch_real=options.clips)
    train = noise_clips(options.classes, options.clips, options.frames, options.size, device)
    policy = torch.full((options.classes,), options.frames)
    runners = {
        "plain recipe": PlainRecipe(train, settings),
        "david": Distiller(train, policy, ipc=1, seed=0, settings=settings),
        "bare embed": BareEmbed(train, settings),
    }
    times = {name: [] for name in runners}
    for turn in range(options.repeats + 1):
        for name, runner in runners.items():
            spent = seconds(runner.step, device)
            if turn:  # the first turn warms up
                times[name].append(spent)
    median = {name: statistics.median(spent) for name, spent in times.items()}
    without, with_gradient = clip_flops(options.frames, options.size, options.width)
    flops = options.classes * (options.clips * without + with_gradient)
    best = rates(device)
    result = {
        "what": "an iteration of DM at IPC 1",
        "setting": {k: v for k, v in vars(options).items() if k not in ("out", "device")},
        "seconds": times,
        "plain / david": median["plain recipe"] / median["david"],
        "david / bare embed": median["david"] / median["bare embed"],
        "TFLOP": flops / 1e12,
        "share of the float32 matrix rate": flops / median["david"] / best["float32 FLOP/s"],
        "rates": best,
        "made": made_on(device),
    }
    for name in ("plain / david", "david / bare embed", "share of the float32 matrix rate"):
        print(f"{name}: {result[name]:.2f}")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
