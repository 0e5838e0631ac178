"""Make the records that judge the method, in the order of their value: the list comes first, each part says its cost.

    PYTHONPATH=. python benchmarks/records.py --runs FOLDER --videos msraction3d=FOLDER ucf12=FOLDER --jobs 2
    PYTHONPATH=. python benchmarks/records.py --runs FOLDER --parts headline oracle --seeds 0 1 --limit 3600

Several processes share one GPU, or a machine's cores; a GPU serves them better under NVIDIA's MPS, which
`nvidia-cuda-mps-control -d` starts: with 14 of them on an H200, students trained more than twice as fast. What is
there already is not made again, so the same command continues after an interruption or a limit. A unit is all rows of
one part, dataset and seed: its teacher, experts and sweeps are made once. A part that reads the records of another
waits until these are there.
"""

import argparse
import os
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

# Of every dataset: what differs from the preset `demo`; the same as on the page "Does it distil?".
DATASETS = {
    "motions": {},
    "msraction3d": {"size": 64, "stride": 16, "teacher_steps": 500, "expert_batch": 24, "expert_epochs": 40},
    "ucf12": {"size": 64, "teacher_steps": 500},
    "jhmdb21": {"size": 64, "teacher_steps": 500},
}
TRAINED = {"distill_networks": "experts", "distill_start": "mean"}  # what distils: see "Does it distil?"
PAPER = {"distill_networks": "random", "distill_start": "real"}  # DM's networks
LENGTHS = (8, 4, 2, 1)  # the action set at F = 8, F itself without a suffix


def every(base: str) -> list[str]:
    """The rows of a method at every fixed L."""
    return [base if length == LENGTHS[0] else f"{base}:{length}" for length in LENGTHS]


@dataclass(frozen=True)
class Part:
    """One part of the list.

    Attributes:
        name: for ``--parts``.
        rows: methods, or pairs of a method and what it changes in the settings.
        datasets, seeds, ipc: of the records.
        swept: whether their sets are taken out of sweeps.
        held: made on training groups that are held out instead of the test set.
        scores: whether every L is scored by rewards as well (``scores.py``).
        after: the part whose records decide the rows: the best L of every class on held-out groups.
        motion: how many of six classes are told apart by motion alone, in data that every seed draws anew.
    """

    name: str
    rows: tuple = ()
    datasets: tuple[str, ...] = ("msraction3d", "motions")
    seeds: range = range(5)
    ipc: int = 1
    swept: bool = True
    held: bool = False
    scores: bool = False
    after: str | None = None
    motion: int | None = None


LEARNED = ["david:warmup", "david", "david:warmup-undistilled", "david:undistilled"]
HEADLINE = ["random", "mean", *every("dm"), *LEARNED, "dm:any", *every("random")[1:], *every("mean")[1:]]
TWICE = {"distill_iterations": 200}
CURVE = ["random", "mean", "dm", "dm:2", "david:warmup", "david:warmup-undistilled"]
REAL = {"distill_start": "real"}
VDSD = [
    {"vdsd_start": "real", "vdsd_lr_dynamic": lr, "vdsd_lr_hallucinator": lr / 30} for lr in (0.001, 0.003, 0.01, 0.03)
]
MIXED = ("random", "mean", *every("dm"), "david:warmup", "david", "david:warmup-undistilled", *every("mean")[1:])

PLAN = (
    Part("headline", (*HEADLINE, ("dm", PAPER)), seeds=range(10)),
    Part("held-out", (*every("random"), *every("mean"), *every("dm")), seeds=range(10), held=True, scores=True),
    Part("oracle", seeds=range(10), after="held-out"),
    Part("headline", (*HEADLINE, ("dm", PAPER)), ("ucf12",), range(10)),
    Part("mtt", ("mtt", ("dm", TWICE | TRAINED)), seeds=range(5), swept=False),
    Part("held-out", (*every("random"), *every("mean"), *every("dm")), ("ucf12",), held=True, scores=True),
    Part("oracle", (), ("ucf12",), after="held-out"),
    Part("vdsd search", tuple(("vdsd", {"distill_networks": n} | step) for n in ("random", "experts") for step in VDSD),
         ("motions", "msraction3d"), range(2), swept=False, held=True),
    Part("full", ("full", "still"), ("msraction3d", "motions", "ucf12", "jhmdb21"), range(1)),
    Part("headline", ("random", "mean", *every("dm"), *LEARNED), ("jhmdb21",)),
    Part("ipc 5", ("random", "mean", *every("dm"), *LEARNED), ipc=5),
    *(Part(f"mixture {k} of 6", MIXED, ("motions",), range(10), motion=k) for k in (0, 2, 4, 6)),
    Part("students of 60", tuple((row, {"student_steps": 60}) for row in CURVE)),
    Part("students of 1000", tuple((row, {"student_steps": 1000}) for row in CURVE)),
    Part("real start", tuple((row, REAL) for row in (*every("dm"), "david:warmup", "david:warmup-undistilled"))),
    Part("mtt", ("mtt", ("dm", TWICE | TRAINED)), ("ucf12",), swept=False),
    Part("longer", tuple(("dm", {"distill_iterations": n}) for n in (300, 1000, 3000)), seeds=range(1), swept=False),
    Part("longer random", tuple(("dm", PAPER | {"distill_iterations": n}) for n in (300, 1000, 3000)),
         seeds=range(1), swept=False),
)  # fmt: skip


def mixed(motion: int, seed: int) -> dict:
    """Options of the reader of motions: six classes of a seed, so many of them pairs of one motion and its reverse."""
    from david.data.readers.motions import APPEARANCE, MOTION

    random = np.random.default_rng([2026, seed])
    still, pairs = random.permutation(APPEARANCE), random.permutation(3)
    moving = [MOTION[2 * pair + k] for pair in pairs[: motion // 2] for k in range(2)]
    return {"seed": 1000 + seed, "classes": (*map(str, still[: 6 - motion]), *moving)}


def experiment(part: Part, dataset: str, seed: int, runs: str, root: str | None, preset: str, changes: tuple):
    """The experiment of a row."""
    import david

    settings = david.preset(preset, **(DATASETS[dataset] | TRAINED | dict(changes)))
    name = f"heldout-{dataset}" if part.held else dataset
    options = {} if part.motion is None else mixed(part.motion, seed)
    return david.Experiment(name, settings, david.Store(runs), root=root, options=options, swept=part.swept)


_clips = {}


def opened(made):
    """Give an experiment the clips that another of this process has opened."""
    known = _clips.setdefault((made.name, str(made.options)), made)
    if known is not made:
        made.__dict__.update(dataset=known.dataset, train=known.train, test=known.test)
        made._opened, made._known = known._opened, known._known
    return made


def best_lengths(made, base: str, seeds: tuple[int, ...]) -> list[int] | None:
    """The L of every class at which students on held-out groups were best, in the mean of seeds; None: too few.

    A seed of which one L is missing, because its videos diverged, does not count.
    """
    found = {seed: [made._find(method, ipc=1, seed=seed) for method in every(base)] for seed in seeds}
    whole = [[[s["per_class"] for s in r["students"]] for r in rows] for rows in found.values() if all(rows)]
    if len(whole) < len(seeds) / 2:
        return None
    return [LENGTHS[k] for k in np.argmax(np.mean(whole, axis=(0, 2)), axis=0)]


def decisive(part: Part, dataset: str) -> Part:
    """The part that decides another's rows."""
    return next(p for p in PLAN if p.name == part.after and dataset in p.datasets)


def unit(part: Part, dataset: str, seed: int, seeds: tuple, where: tuple, ends: float, keep: tuple[str, ...]) -> str:
    """All rows of one part, dataset and seed; what ran, how long and what failed, in a line."""
    import torch
    from scores import scored

    torch.set_num_threads(1)
    began, made, failed, rows = time.time(), 0, [], part.rows
    if part.after:
        held = opened(experiment(decisive(part, dataset), dataset, seed, *where, ()))
        chosen = {base: best_lengths(held, base, seeds) for base in ("random", "mean", "dm")}
        rows = [f"{base}:{','.join(map(str, lengths))}" for base, lengths in chosen.items() if lengths]
    for row in [*rows, *(["scores"] if part.scores else [])]:
        if time.time() > ends:
            break
        method, changes = row if isinstance(row, tuple) else (row, {})
        try:
            own = opened(experiment(part, dataset, seed, *where, tuple(changes.items())))
            if method == "scores":
                scored(own, seed=seed, folder=own.store.folder)
                continue
            path = own.run(method, ipc=part.ipc, seed=seed)["path"]
            made += 1
            if not path.name.startswith(keep):
                path.with_suffix(".safetensors").unlink(missing_ok=True)
        except Exception as error:  # the other rows are made
            failed.append(f"{row}: {type(error).__name__}: {error}")
            if os.environ.get("TRACE"):
                traceback.print_exc()
    said = f"{part.name}, {dataset}, seed {seed}: {made} of {len(rows)} records, {time.time() - began:.0f} s"
    return "\n  FAILED ".join([said, *failed])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the records")
    parser.add_argument("--videos", nargs="*", default=[], metavar="DATASET=FOLDER")
    parser.add_argument("--parts", nargs="*", help="some of the list; all by default")
    parser.add_argument("--preset", default="demo", help="smoke tries it out")
    parser.add_argument("--seeds", nargs="*", type=int, help="some of a part's")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds, after which no other record is begun")
    parser.add_argument("--grace", type=float, default=1e9, help="seconds after the limit in which records may end")
    parser.add_argument("--keep", nargs="*", default=[], help="what the names of sets begin with that are kept")
    options = parser.parse_args()
    ends = time.time() + options.limit
    roots = dict(pair.split("=", 1) for pair in options.videos) | {"motions": None}
    queue = [
        (part, dataset, seed)
        for part in PLAN
        for seed in part.seeds
        for dataset in part.datasets
        if dataset in roots
        and (not options.parts or part.name in options.parts)
        and (not options.seeds or seed in options.seeds)
    ]
    running, runs = {}, str(options.runs.absolute())

    def ready(part: Part, dataset: str, _: int) -> bool:
        """Whether the part that decides its rows is finished on this dataset."""
        left = {(p.name, d) for p, d, _ in (*queue, *running.values())}
        return not part.after or (part.after, dataset) not in left

    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        while (queue or running) and time.time() < ends + options.grace:
            while len(running) < options.jobs and time.time() < ends:
                able = next((k for k, entry in enumerate(queue) if ready(*entry)), None)
                if able is None:
                    break
                part, dataset, seed = queue.pop(able)
                seeds = decisive(part, dataset).seeds if part.after else ()
                seeds = tuple(s for s in seeds if not options.seeds or s in options.seeds)
                where = (runs, roots[dataset], options.preset)
                call = pool.submit(unit, part, dataset, seed, seeds, where, ends, tuple(options.keep))
                running[call] = (part, dataset, seed)
            if not running:
                break
            finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for call in finished:
                running.pop(call)
                print(f"[{time.time() - ends + options.limit:.0f} s] {call.result()}", flush=True)
        for process in list(pool._processes.values()) if running else ():
            process.kill()


if __name__ == "__main__":
    main()
