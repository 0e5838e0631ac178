"""What a GPU does in minutes: exactness, speed, memory, and evidence on real videos; the most valuable first.

    make gpu DATA=folder READER=ucf101 OUT=folder
    PYTHONPATH=. python benchmarks/gpu.py --data FOLDER --reader ucf101 --out FOLDER
    PYTHONPATH=. python benchmarks/gpu.py --dry-run --out FOLDER     # the same at tiny sizes, on any machine

A machine that is lent for minutes needs no venv and no installed `david` for this: the second line, in the repository,
wants a Python that has torch, numpy, pandas, safetensors, tqdm and av, and a C++ compiler for the compiled variant.

Every stage has a record of its own, `gpu-STAGE-DEVICE.json`, written again after each measurement, and a limit of time
after which it begins no other. A measurement that fails leaves its error in the record, and the others are made.

Exactness (`exactness.py`) compares with the CPU; on a CPU alone it measures float32 beside float64. Speed is that of
DM's iteration at UCF101's shape beside ``plain.DistributionMatching``, not in turns, as a machine may be gone before
the last: every way has a warm-up, which is recorded apart, and then a few iterations one after the other. Memory is
that of an iteration, of DAViD or at the largest IPC of DM, and of a student's step, at UCF101's shape. Evidence
(`evidence.py`) follows distillations under every L. There is no variant with CUDA graphs: an iteration sends clips from
the host that a graph would not send anew.
"""

import argparse
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import evidence
import exactness
import growth
import measure
import numpy as np
import plain
import torch
from davidbook.projection import iteration_flops
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from david.data.clips import Clips
from david.matching import Distiller, empty_videos
from david.partition import action_set
from david.runs.costs import clip_flops
from david.runs.parameters import known_dataset, number, there, writable
from david.sets import DistilledSet
from david.support.values import argument, known_device
from david.training import train_on

PLAIN, FIRST = "plain recipe", "bfloat16, TF32"
# name -> precision of the real clips' pass, and how the device computes (`measure.numerics`); in the order of their
# value. Deterministic is what "the same seed gives the same record" wants of a GPU.
VARIANTS = {
    FIRST: ("bfloat16", {"tf32": True}),
    PLAIN: ("float32", {"tf32": True}),
    "bfloat16, TF32, deterministic": ("bfloat16", {"tf32": True, "deterministic": True}),
    "bfloat16, TF32, cudnn.benchmark": ("bfloat16", {"tf32": True, "benchmark": True}),
    "bfloat16": ("bfloat16", {"tf32": False}),
    "float32, TF32": ("float32", {"tf32": True}),
    "float32": ("float32", {"tf32": False}),
    "bfloat16, TF32, compiled": ("bfloat16", {"tf32": True, "compiled": True}),
}


@dataclass(frozen=True)
class Sizes:
    """What the stages measure: UCF101's training set in shape, and the paper's settings; ``TINY`` for a dry run."""

    classes: int = 101
    clips: int = 94  # of a class, resident
    batch: int = 64  # real clips of a class and iteration
    frames: int = 16
    size: int = 112
    width: float = 1.0
    repeats: int = 3  # iterations of every way but the plain recipe, which has 2
    distinct: int = 8  # clips of a class that the plain recipe's are copies of
    draws: int = 3  # of seeds, for float32 beside float64
    ipcs: tuple[int, ...] = (10, 50, 1)  # in the order of their value
    student_batch: int = 256
    student_steps: int = 1000
    students: int = 2  # trained on every set
    teacher_steps: int = 1500
    teacher_batch: int = 256
    early: int = 100  # iterations before the early reward
    looks: tuple[int, ...] = (40, 100, 250, 500)  # iterations after which the teacher looks, and every 1,000th
    least: int = 1000  # iterations of a distillation
    most: int = 5000
    some: tuple[int, int] | None = None  # classes, and videos of each, that are read; all by default


TINY = Sizes(
    classes=3, clips=4, batch=2, frames=8, size=48, width=0.125, repeats=1, distinct=2, draws=1, ipcs=(2, 1),
    student_batch=4, student_steps=2, students=1, teacher_steps=2, teacher_batch=4, early=2, looks=(1, 2), least=3,
    most=3, some=(3, 4),
)  # fmt: skip


def free(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def compiles() -> bool:
    """Whether there is what torch needs to compile networks."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def plain_runner(train: Clips, settings, distinct: int, clips: int) -> plain.DistributionMatching:
    """The plain recipe on so many ``clips`` of a class, ``distinct`` of them: as many copies, of less memory."""
    few = np.concatenate([positions[:distinct] for positions in train.by_class()])
    runner = plain.DistributionMatching(train.subset(few), settings)
    runner.real = [(own * -(-clips // len(own)))[:clips] for own in runner.real]
    return runner


def timed(runner, repeats: int, device: torch.device) -> dict[str, list[float] | float]:
    """Seconds of the first step, in which libraries choose their ways, and of some more."""
    first = measure.seconds(runner.step, device)
    return {"warm_up_seconds": first, "seconds": [measure.seconds(runner.step, device) for _ in range(repeats)]}


def kernels(step, wall: float, device: torch.device) -> dict:
    """Where the device's time goes in one step: the ten most expensive kernels, and operators by what they were given.

    On a CPU both are operators.

    Args:
        wall: seconds of a step that is not profiled; "gap_seconds" is what the device did not compute of these.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        profiled = measure.seconds(step, device)
    kind, clock = (DeviceType.CUDA, "self_device_time_total") if on_gpu else (DeviceType.CPU, "self_cpu_time_total")

    def spent(events, of: DeviceType) -> list[tuple]:
        """Seconds of the device, calls, name and shapes of every event, the most expensive first."""
        own = [event for event in events if event.device_type == of and not event.is_user_annotation]
        found = [(getattr(e, clock) / 1e6, e.count, e.key[:80], str(e.input_shapes or "")) for e in own]
        return sorted(found, reverse=True)

    total = sum(seconds for seconds, *_ in spent(profiler.key_averages(), kind))
    top = {"kernels": spent(profiler.key_averages(), kind)}
    top["operators"] = spent(profiler.key_averages(group_by_input_shape=True), DeviceType.CPU)  # launched by the host
    seconds = {"profiled_wall_seconds": profiled, "device_seconds": total, "gap_seconds": wall - total}
    return seconds | {
        name: [{"name": n, "shapes": shapes[:120], "calls": k, "share": s / total} for s, k, n, shapes in each[:10]]
        for name, each in top.items()
    }


def speed(record: measure.Record, sizes: Sizes, _) -> None:
    """Seconds of an iteration of DM, ours in several ways and that of the plain recipe."""
    device, shape = record.device, {"frames": sizes.frames, "size": sizes.size, "width": sizes.width}
    train = measure.noise_clips(sizes.classes, sizes.clips, sizes.frames, sizes.size, device)
    policy = measure.policy_of("dm", sizes.classes, sizes.frames)
    settings = {p: measure.settings_of(**shape, clips=sizes.batch, precision=p) for p in ("float32", "bfloat16")}
    work = sum(iteration_flops(settings["float32"], classes=sizes.classes, ipc=1, segments=1))
    record.content["FLOP"] = work
    record.content["plain recipe's clips"] = f"{sizes.distinct} of a class on the host, in a list {sizes.batch} long"
    rates = record.measure("rates", "of the device", measure.rates, device, "bfloat16", "float32") or {}

    def runner(name: str):
        own = settings[VARIANTS[name][0]]
        if name == PLAIN:
            return plain_runner(train, own, sizes.distinct, sizes.batch)
        return Distiller(train, policy, ipc=1, seed=0, settings=own.distill)

    def run(name: str) -> dict:
        with measure.numerics(**VARIANTS[name][1]):
            found = timed(runner(name), 2 if name == PLAIN else sizes.repeats, device)
        if rates:
            found["share of the bfloat16 rate"] = work / median(found["seconds"]) / rates["bfloat16"]
        return found

    def profiled(wall: float) -> dict:
        with measure.numerics(**VARIANTS[FIRST][1]):
            first = runner(FIRST)
            first.step()
            return kernels(first.step, wall, device)

    for name, (_, ways) in VARIANTS.items():
        if ways.get("compiled") and not (compiles() and device.type == "cuda"):
            record.add("left out", name, "it takes a GPU and a C++ compiler")
            continue
        record.measure("iteration", name, run, name, needs=20 if device.type == "cuda" and name == PLAIN else 0)
        times = {name: median(own["seconds"]) for name, own in record.content.get("iteration", {}).items()}
        if PLAIN in times:
            ratios = {f"plain / {way}": times[PLAIN] / spent for way, spent in times.items() if way != PLAIN}
            record.add("ratios", "of the medians", ratios)
        if name == FIRST and name in times:
            record.measure("profile", FIRST, profiled, times[FIRST])
        free(device)
    tell_speed(record)


def tell_speed(record: measure.Record) -> None:
    """The lines about speed."""
    found = record.content.get("iteration", {})
    times = {name: median(own["seconds"]) for name, own in found.items()}
    record.tell("speed: seconds of an iteration: " + ", ".join(f"{name} {t:.3g}" for name, t in times.items()))
    ratios = record.content.get("ratios", {}).get("of the medians", {})
    record.tell("speed: " + ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items()))
    if first := found.get(FIRST):
        record.tell(f"speed: {FIRST}: {first.get('share of the bfloat16 rate', 0):.1%} of the bfloat16 rate")
    if spent := record.content.get("profile", {}).get(FIRST):
        top = ", ".join(f"{kernel['share']:.0%} {kernel['name']}" for kernel in spent["kernels"][:3])
        record.tell(f"speed: gap {spent['gap_seconds']:.3f} s of the device; of its time {top}")


def student_step(sizes: Sizes, ipc: int, device: torch.device) -> dict:
    """Peak memory over the set of two steps of a student, and where the set lives."""
    shape = {"frames": sizes.frames, "size": sizes.size, "width": sizes.width}
    settings = measure.settings_of(
        **shape, clips=1, precision="float32", student_steps=2, student_batch=sizes.student_batch
    )
    train = measure.noise_clips(sizes.classes, 1, sizes.frames, sizes.size, device)
    videos, policy = empty_videos(train, sizes.classes, ipc), measure.policy_of("david", sizes.classes, sizes.frames)
    stored = DistilledSet(videos.zero_(), policy, train.classes)
    with measure.Peak(device) as peak:
        spent = measure.seconds(lambda: train_on(stored, seed=0, settings=settings.student, device=device), device)
    held = videos.nbytes if videos.device.type == device.type else 0
    return {
        "peak_bytes": peak.own,
        "set_bytes": videos.nbytes,
        "set_on": videos.device.type,
        "bytes_in_all": peak.own + held,
        "seconds_of_two_steps": spent,
    }


def memory(record: measure.Record, sizes: Sizes, _) -> None:
    """Peak memory of an iteration by IPC, and of a student at the largest.

    Of DAViD, but of DM where IPC is above 10: six times as many clips would take as much longer, and no more memory,
    as they go through the network in chunks. Videos start as real frames, as the host would draw the noise of 12 GB
    for half a minute.
    """
    device = record.device
    shape = {"classes": sizes.classes, "frames": sizes.frames, "size": sizes.size, "width": sizes.width}
    given = {"clips": sizes.batch, "precision": "bfloat16", "device": device, "start": "real", **shape}

    def point(ipc: int) -> dict:
        with measure.numerics(tf32=True):
            found = growth.point("dm" if ipc > 10 else "david", ipc=ipc, repeats=1, **given)
        working = found["peak_bytes"] - found["held_bytes"]
        beside = {"videos_on": device.type if found["held_bytes"] else "cpu", "working_bytes": working}
        return found | beside | {"bytes_in_all": found["peak_bytes"] + found["data_bytes"]}

    for ipc in sizes.ipcs:
        free(device)
        if found := record.measure("iteration", f"IPC {ipc}", point, ipc):
            gib = {name: f"{found[f'{name}_bytes'] / 2**30:.2f}" for name in ("data", "held", "working")}
            record.tell(
                f"memory: {found['method']}, IPC {ipc}: {found['bytes_in_all'] / 2**30:.2f} GiB: clips {gib['data']}, "
                f"videos and momentum {gib['held']} ({found['videos_on']}), the rest {gib['working']}; "
                f"{median(found['seconds']):.2f} s"
            )
    free(device)
    most = max(sizes.ipcs)
    if found := record.measure("student", f"IPC {most}", student_step, sizes, most, device):
        record.tell(f"memory: a student: {found['bytes_in_all'] / 2**30:.2f} GiB, its set on {found['set_on']}")


SLOWER = 30  # how many times as long a CPU may take
STAGES = {  # name -> what it is about, a limit of seconds on a GPU, how
    "exactness": ("a GPU beside the CPU, and float32 beside float64", 90, exactness.run),
    "speed": ("an iteration of DM at UCF101's shape, IPC 1", 120, speed),
    "memory": ("peak memory of an iteration and of a student at UCF101's shape", 60, memory),
    "evidence": ("distillations of real videos under every L", None, evidence.run),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ``only`` lists stages, ``device`` is a torch.device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data, reader = argument(there, "/data/UCF-101", Path), argument(known_dataset, "ucf101")
    whole, above_0 = argument(lambda n: number(n, 1), 8, int), argument(lambda x: number(x, above=True), 5, float)
    parser.add_argument("--data", type=data, help="a folder of videos, for the evidence")
    parser.add_argument("--reader", type=reader, default="ucf101", help="how to read it (default: %(default)s)")
    parser.add_argument("--stride", type=whole, default=16, help="between frames of a clip (default: %(default)s)")
    parser.add_argument("--minutes", type=above_0, default=5, help="for the evidence (default: %(default)s)")
    parser.add_argument("--real-lr", type=above_0, default=10, help="step size from real frames (default: %(default)s)")
    parser.add_argument("--lengths", type=whole, nargs="+", help="distil these L alone, ascending (default: all)")
    out = argument(writable, "runs", Path)
    parser.add_argument("--out", type=out, help="a folder for the records (default: benchmarks/records)")
    parser.add_argument("--only", default=",".join(STAGES), help="some stages (default: %(default)s)")
    place = argument(lambda name: torch.device(known_device(name)), "cpu")
    parser.add_argument("--device", type=place, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, to see that everything works")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(STAGES):
        parser.error(f"unknown stage {', '.join(unknown)}; known are {', '.join(STAGES)}")
    allowed = action_set((TINY if options.dry_run else Sizes()).frames)
    if options.lengths and (set(options.lengths) - set(allowed) or options.lengths != sorted(set(options.lengths))):
        parser.error(f"argument --lengths: {options.lengths} are not some of {allowed}, ascending")
    if options.device.type != "cuda" and not options.dry_run and options.only != ["exactness"]:
        parser.error("there is no GPU: a CPU would take days; it has --only exactness, and --dry-run for all")
    if options.dry_run and not options.out:
        parser.error("a dry run's records mean nothing: name another folder for them by --out")
    options.out = options.out or measure.RECORDS
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the stages, one after the other, and say at the end what came out."""
    options, lines = parse(arguments), []
    os.environ["DAVID_PROGRESS"] = "0"
    torch.manual_seed(0)
    sizes = TINY if options.dry_run else Sizes()
    clip_flops(sizes.frames, sizes.size, sizes.width)  # counted on the host, in seconds that are no stage's
    for name in options.only:
        what, limit, stage = STAGES[name]
        slower = 1 if options.device.type == "cuda" else SLOWER
        limit = 60 * options.minutes if limit is None else limit * slower
        record = measure.Record(f"gpu-{name}", what, folder=options.out, device=options.device, limit=limit)
        record.content["setting"] = vars(sizes)
        try:
            stage(record, sizes, options)
        except Exception as error:
            record.fail("the stage", error)
        lines += record.lines
        if failed := record.content.get("failed"):
            lines.append(f"{name}: failed: {', '.join(failed)}")
        free(options.device)
    print("\n".join(["", "In short", *lines]))


if __name__ == "__main__":
    main()
