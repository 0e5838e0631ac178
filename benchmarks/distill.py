"""How fast an iteration of DM is: beside the plain recipe of earlier work, and beside what it cannot do without.

    python benchmarks/distill.py
    python benchmarks/distill.py --compile 1      # and ours with its network compiled (``DAVID_COMPILE``)
    python benchmarks/distill.py --width 1 --frames 16 --size 112 --classes 101 --compile 1   # a GPU

All figures of one call come from one process on one machine, in turns, the median of several; ratios between them
mean something, seconds alone do not. The plain recipe is that of ``plain.DistributionMatching``.
"""

import os
from functools import partial
from statistics import median
from unittest.mock import patch

import measure
import numpy as np
import plain
import torch
from davidbook.projection import iteration_flops
from torch.utils.flop_counter import FlopCounterMode

from david.c3d import C3D
from david.data.clips import Clips
from david.fast_embed import frozen_embed
from david.matching import Distiller
from david.runs.settings import Settings


class BareEmbed:
    """The network's share alone: clips that lie there ready go forward, the synthetic ones backward as well."""

    def __init__(self, train: Clips, settings: Settings):
        self.net = C3D(len(train.classes), settings.frames, settings.size, settings.width).to(train.device)
        self.net.requires_grad_(False)
        self.precision = settings.distill_precision
        count = settings.distill_batch_real * len(train.classes)
        self.real = [train.batch(np.arange(i, min(i + 128, count)) % len(train)) for i in range(0, count, 128)]
        self.synthetic = train.batch(np.arange(len(train.classes))).requires_grad_()

    def step(self) -> None:
        embed = frozen_embed(self.net, self.precision)
        with torch.no_grad():
            for part in self.real:
                embed(part)
        self.synthetic.grad = None
        self.net.embed(self.synthetic).sum().backward()


def layer_runners(train: Clips, settings: Settings) -> tuple[dict, dict[str, int]]:
    """Every layer of the network, on up to 32 real clips, and the FLOP of each: where the time goes."""
    number = torch.bfloat16 if settings.distill_precision == "bfloat16" else torch.float32
    net = C3D(len(train.classes), settings.frames, settings.size, settings.width).to(train.device, number)
    x = train.batch(np.arange(min(32, len(train)))).transpose(1, 2).to(number)
    runners, flops, counts = {}, {}, {}
    with torch.no_grad():
        for layer in net.trunk:
            x, kind = x.contiguous(memory_format=torch.channels_last_3d), type(layer).__name__
            counts[kind] = counts.get(kind, 0) + 1
            name = f"{kind} {counts[kind]}"
            runners[name] = torch.no_grad()(partial(layer, x.clone()))
            with FlopCounterMode(display=False) as counter:
                x = layer(x)
            flops[name] = counter.get_total_flops()
    return runners, flops


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the ratios, write the record."""
    numbers = {"classes": 12, "clips": 64, "frames": 8, "size": 64, "repeats": 5, "compile": 0}
    options, load = measure.options(__doc__, arguments, **numbers), measure.load()
    setting = {name: getattr(options, name) for name in ("clips", "frames", "size", "width", "precision")}
    settings, device = measure.settings_of(**setting), options.device
    train = measure.noise_clips(options.classes, options.clips, options.frames, options.size, device)
    policy = measure.policy_of("dm", options.classes, options.frames)
    best, (layers, layer_flops) = [], layer_runners(train, settings)
    runners = {"plain recipe": plain.DistributionMatching(train, settings).step}
    ours = {"": (settings, "0")}
    if options.compile:
        ours[", compiled"] = settings, "1"
    for name, (own, compiled) in ours.items():
        with patch.dict(os.environ, DAVID_COMPILE=compiled):
            runners[f"david{name}"] = Distiller(train, policy, ipc=1, seed=0, settings=own.distill).step
        if compiled == "0":
            runners[f"bare embed{name}"] = BareEmbed(train, own).step
    iterations = list(runners)
    runners |= {
        **layers,
        "bound": lambda: best.append(measure.rates(device, *sorted({"float32", options.precision}))),
    }
    times = measure.in_turns(runners, options.repeats, device)
    real, synthetic = iteration_flops(settings, classes=options.classes, ipc=1, segments=1)
    work = {"float32": synthetic, options.precision: real}
    if options.precision == "float32":
        work = {"float32": real + synthetic}
    parts, rate = {name: median(times[name]) for name in layers}, measure.best_of(best)
    least = measure.least_seconds(work, rate)
    ratios = {f"plain / david{name}": measure.ratio(times["plain recipe"], times[f"david{name}"]) for name in ours}
    for name in ours:
        if bare := times.get(f"bare embed{name}"):
            ratios[f"david / bare embed{name}"] = measure.ratio(times[f"david{name}"], bare)
    result = {
        "what": "an iteration of DM at IPC 1",
        "setting": setting | {"classes": options.classes, "repeats": options.repeats},
        "seconds": {name: times[name] for name in iterations},
        **ratios,
        "share of the bound": least / median(times["david"]),
        **{f"share of the bound{name}": least / median(times[f"david{name}"]) for name in ours if name == ", compiled"},
        "layers": {
            name: {
                "share of the network": spent / sum(parts.values()),
                "share of the bound": layer_flops[name] / rate[options.precision] / median(times[name]),
            }
            for name, spent in parts.items()
        },
        "FLOP": real + synthetic,
        "rates": best,
    }
    for name in (*ratios, "share of the bound"):
        print(f"{name}: {result[name]:.2f}")
    print(measure.write("distill", options.out, device, load, result).name)


if __name__ == "__main__":
    main()
