"""How near every stage comes to its bound: what the same arithmetic, or the same copying, takes at best.

    python benchmarks/stages.py
    python benchmarks/stages.py --width 1 --frames 16 --size 112 --classes 50 101 --clips 64 --batch 256    # a GPU

One axis at a time leaves a base point: the first of `--classes`, `--ipc` and `--size`. Every point has a process of
its own, and another for its memory, which is measured as in `growth.py`: that slows down whatever is short.
Sampling is bound by copying: each value is read as a byte and written as four. All else is bound by the rate of large
matrix products, of the precision it computes in. Bounds are measured in turns with the stages, in one process. An
episode of the search is run with its early stage, a tenth of a distillation, and with a whole one in its place. Where
earlier code has such a stage, its way takes part in the turns (see ``plain``); DM's is in `distill.py`.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import measure
import plain
import torch
from davidbook.projection import iteration_flops, student_flops
from growth import STEADY

from david.algorithm import learn_policy, make_agent
from david.c3d import C3D
from david.matching import Distiller
from david.partition import action_set
from david.reward import TeacherReward
from david.runs.costs import clip_flops
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.support.seeds import generator
from david.training import accuracy, train_on

EARLY = 0.1  # of a distillation: the early stage of an episode
AXES = ("classes", "ipc", "size")


@dataclass
class Stage:
    """What to call, how many clips that handles, its work (FLOP by precision, or bytes to "copy"), and a plain way."""

    run: Callable
    clips: float
    work: dict[str, float]
    plain: Callable | None = None


def matching(settings: Settings, policy, ipc: int, iterations: int = 1, looks: int = 0) -> tuple[float, dict]:
    """Clips and work of some iterations, and of the teacher's ``looks`` at all synthetic clips."""
    segments = (settings.frames / policy).mean().item()
    real, synthetic = iteration_flops(settings, classes=len(policy), ipc=ipc, segments=segments)
    seen = len(policy) * ipc * segments
    without, _ = clip_flops(settings.frames, settings.size, settings.width)
    work = {"float32": iterations * synthetic + looks * seen * without}
    precision = settings.distill_precision
    work[precision] = work.get(precision, 0) + iterations * real
    return iterations * (len(policy) * settings.distill_batch_real + seen) + looks * seen, work


def stages(options) -> dict[str, Stage]:
    """Every stage, on noise clips."""
    device, frames, batch = options.device, options.frames, options.batch
    shape = {name: getattr(options, name) for name in ("frames", "size", "width")}
    settings = measure.settings_of(
        **shape, clips=options.clips, precision=options.precision, distill_iterations=options.iterations,
        search_episodes=1, search_beta=EARLY, student_steps=options.steps, student_batch=batch,
    )  # fmt: skip
    whole = settings.replace(search_beta=1.0)
    train = measure.noise_clips(options.classes, options.clips, frames, options.size, device)
    dm, david = (measure.policy_of(method, options.classes, frames) for method in ("dm", "david"))
    net = C3D(options.classes, **shape).to(device).eval()
    reward, given = TeacherReward(net, train), {"ipc": options.ipc, "seed": 0}
    runs = [Distiller(train, policy, **given, settings=settings.distill) for policy in (dm, david)]
    stored = DistilledSet(torch.randn_like(runs[1].videos), david, train.classes)
    # Every call is the first episode of a new agent, so all of them draw this policy.
    agent, _ = make_agent(options.classes, len(action_set(frames)), seed=0, settings=settings.algorithm)
    drawn = torch.tensor(action_set(frames))[agent.act()]
    positions, trained = torch.arange(batch) % len(train), options.steps * batch
    without, _ = clip_flops(**shape)
    return {
        "sampling": Stage(
            lambda: train.batch(positions, generator=generator(0, "coins"), flip=True),
            batch, {"copy": 5 * batch * frames * options.size**2 * 3}, plain.sampling(train, positions),
        ),
        "student training": Stage(
            lambda: train_on(stored, seed=0, settings=settings.student),
            trained, {"float32": trained * student_flops(**shape, classes=options.classes)},
            plain.training(stored, settings),
        ),
        "evaluation": Stage(
            lambda: accuracy(net, train),
            len(train), {"float32": len(train) * without}, plain.evaluation(train, settings),
        ),
        "episode, early stage": Stage(
            lambda: learn_policy(train, reward, **given, settings=settings.algorithm),
            *matching(settings, drawn, options.ipc, settings.early_iterations, looks=2),
        ),
        "episode, whole distillation": Stage(
            lambda: learn_policy(train, reward, **given, settings=whole.algorithm),
            *matching(whole, drawn, options.ipc, whole.early_iterations, looks=2),
        ),
        "DM iteration": Stage(runs[0].step, *matching(settings, dm, options.ipc)),
        "DAViD iteration": Stage(runs[1].step, *matching(settings, david, options.ipc)),
    }  # fmt: skip


def point(options) -> dict:
    """Every stage at one size, in turns. To be called in a new process.

    Returns:
        the place, "stages": name -> "clips", "work", "seconds" (a list), "share of the bound" and, where earlier code
        has such a stage, "plain / ours"; "whole / early episode" and "rates".
    """
    device, best, found = options.device, [], stages(options)
    runners = {name: stage.run for name, stage in found.items()}
    runners |= {f"plain {name}": stage.plain for name, stage in found.items() if stage.plain}
    runners["bound"] = lambda: best.append(measure.rates(device, *sorted({"float32", options.precision})))
    times = measure.in_turns(runners, options.repeats, device)
    rate, rows = measure.best_of(best), {}
    for name, stage in found.items():
        rows[name] = {
            "clips": stage.clips,
            "work": stage.work,
            "seconds": times[name],
            "share of the bound": measure.least_seconds(stage.work, rate) / median(times[name]),
        }
        if stage.plain:
            rows[name]["plain / ours"] = measure.ratio(times[f"plain {name}"], times[name])
    whole, early = (times[f"episode, {kind}"] for kind in ("whole distillation", "early stage"))
    place = {name: getattr(options, name) for name in AXES}
    return place | {"stages": rows, "whole / early episode": measure.ratio(whole, early), "rates": best}


def peaks(options) -> dict[str, int]:
    """Peak memory of every stage, in bytes, once it has run before. To be called in a new process, of steady memory."""
    found = {}
    for name, stage in stages(options).items():
        stage.run()
        with measure.Peak(options.device) as peak:
            stage.run()
        found[name] = peak.own
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure point by point, print every stage's share of its bound, write the record."""
    numbers = {"classes": (10, 30), "ipc": (1, 5), "size": (48, 64), "frames": 8, "clips": 16, "batch": 64}
    numbers |= {"iterations": 20, "steps": 10, "repeats": 3}
    options, load = measure.options(__doc__, arguments, **numbers), measure.load()
    base = {name: getattr(options, name)[0] for name in AXES}
    places = [base, *({**base, name: value} for name in AXES for value in getattr(options, name)[1:])]
    points = []
    for place in places:
        own = Namespace(**vars(options) | place)
        found = measure.apart(point, own)
        for name, peak in measure.apart(peaks, own, environment=STEADY).items():
            found["stages"][name]["peak_bytes"] = peak
        points.append(found)
        print(", ".join(f"{name} {value}" for name, value in place.items()))
        for name, row in found["stages"].items():
            beside = f", plain code {row['plain / ours']:5.2f} times as long" if "plain / ours" in row else ""
            share, peak = row["share of the bound"], row["peak_bytes"] / 2**20
            print(f"    {name:28} {share:6.1%} of its bound, {peak:6.1f} MiB{beside}", flush=True)
    result = {
        "what": "the stages of a run, each beside its bound, along one axis at a time",
        "setting": {name: value for name, value in vars(options).items() if name not in ("out", "device", *AXES)},
        "base": base,
        "early stage": EARLY,
        "points": points,
    }
    print(measure.write("stages", options.out, options.device, load, result).name)


if __name__ == "__main__":
    main()
