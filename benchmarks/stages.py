"""How near every stage comes to its bound: what the same arithmetic, or the same copying, takes at best.

    python benchmarks/stages.py
    python benchmarks/stages.py --width 1 --frames 16 --size 112 --classes 50 --clips 64 --batch 256    # a GPU

Sampling is bound by copying: each value is read as a byte and written as four. All else is bound by the rate of large
matrix products, of the precision it computes in. Bounds are measured in turns with the stages, in one process. An
episode of the search is run with its early stage, a tenth of a distillation, and with a whole one in its place.
"""

from dataclasses import dataclass
from statistics import median

import measure
import torch

from david.c3d import C3D
from david.costs import clip_flops
from david.distilled import DistilledSet
from david.evaluate import accuracy
from david.matching import Distiller
from david.presets import Settings
from david.projection import iteration_flops, student_flops
from david.reward import TeacherReward
from david.search import learn_policy, make_agent
from david.seeds import generator
from david.temporal import action_set
from david.training import train_on

EARLY = 0.1  # of a distillation: the early stage of an episode


@dataclass
class Stage:
    """What to call, how many clips that handles, and its work: FLOP by precision, or bytes to "copy"."""

    run: object
    clips: float
    work: dict[str, float]


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
    runs = [Distiller(train, policy, **given, settings=settings) for policy in (dm, david)]
    stored = DistilledSet(torch.randn_like(runs[1].videos), david, train.classes)
    # Every call is the first episode of a new agent, so all of them draw this policy.
    agent, _ = make_agent(options.classes, len(action_set(frames)), seed=0, settings=settings)
    drawn = torch.tensor(action_set(frames))[agent.act()]
    positions, trained = torch.arange(batch) % len(train), options.steps * batch
    without, _ = clip_flops(**shape)
    return {
        "sampling": Stage(
            lambda: train.batch(positions, generator=generator(0, "coins"), flip=True),
            batch, {"copy": 5 * batch * frames * options.size**2 * 3},
        ),
        "student training": Stage(
            lambda: train_on(stored, stage="student", seed=0, settings=settings),
            trained, {"float32": trained * student_flops(**shape, classes=options.classes)},
        ),
        "evaluation": Stage(lambda: accuracy(net, train), len(train), {"float32": len(train) * without}),
        "episode, early stage": Stage(
            lambda: learn_policy(train, reward, **given, settings=settings),
            *matching(settings, drawn, options.ipc, settings.early_iterations, looks=2),
        ),
        "episode, whole distillation": Stage(
            lambda: learn_policy(train, reward, **given, settings=whole),
            *matching(whole, drawn, options.ipc, whole.early_iterations, looks=2),
        ),
        "DM iteration": Stage(runs[0].step, *matching(settings, dm, options.ipc)),
        "DAViD iteration": Stage(runs[1].step, *matching(settings, david, options.ipc)),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure, print every stage's share of its bound, write the record."""
    numbers = {"classes": 10, "clips": 16, "ipc": 1, "frames": 8, "size": 48, "batch": 64}
    numbers |= {"iterations": 20, "steps": 10, "repeats": 3}
    options, load = measure.options(__doc__, arguments, **numbers), measure.load()
    device, best, found = options.device, [], stages(options)
    runners = {name: stage.run for name, stage in found.items()}
    runners["bound"] = lambda: best.append(measure.rates(device, *sorted({"float32", options.precision})))
    times = measure.in_turns(runners, options.repeats, device)
    rate, rows = measure.best_of(best), {}
    for name, stage in found.items():
        spent = times[name]
        rows[name] = {
            "clips": stage.clips,
            "work": stage.work,
            "seconds": spent,
            "clips per second": [stage.clips / value for value in spent],
            "share of the bound": measure.least_seconds(stage.work, rate) / median(spent),
        }
        print(f"{name:28} {rows[name]['share of the bound']:6.1%} of its bound")
    whole, early = (times[f"episode, {kind}"] for kind in ("whole distillation", "early stage"))
    setting = {name: value for name, value in vars(options).items() if name not in ("out", "device")}
    result = {
        "what": "the stages of a run, each beside its bound",
        "setting": setting,
        "early stage": EARLY,
        "stages": rows,
        "whole / early episode": measure.ratio(whole, early),
        "rates": best,
    }
    print(measure.write("stages", options.out, device, load, result).name)


if __name__ == "__main__":
    main()
