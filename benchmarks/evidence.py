"""Stage of ``gpu.py``: distillations of real videos under every L, what the teacher sees of them, and what students do.

One ``Sweep`` from noise at the paper's settings, and one from real frames, are followed by the teacher's distance, by
the gradient and by how far videos moved. Then students train on sets taken from them, the most telling first.
"""

from dataclasses import replace
from time import perf_counter

import measure
import torch

from david.algorithm import make_agent
from david.data import readers as datasets
from david.data.clips import Clips, open_clips
from david.partition import action_set
from david.reward import TeacherReward
from david.runs.settings import Settings
from david.sets import DistilledSet, RealSet
from david.sweep import Sweep
from david.training import accuracy, evaluate, train_on

RULES = ("paper", "warmup")
# Shares of the stage's time: of the teacher's training, and of the sweeps.
TEACHER, SWEEPS = 0.15, {"noise": 0.4, "real": 0.2}


def read(options, sizes, device: torch.device) -> tuple[Clips, Clips]:
    """Training and test clips on the device: real ones, or noise for a dry run without a folder."""
    if not options.data:
        return tuple(measure.noise_clips(sizes.classes, sizes.clips, sizes.frames, sizes.size, device) for _ in "ab")
    dataset = datasets.load(options.reader, root=options.data)
    if sizes.some:
        classes, count = sizes.some
        train, test = (
            tuple(video for c in range(classes) for video in [v for v in videos if v.label == c][:count])
            for videos in (dataset.train, dataset.test)
        )
        dataset = replace(dataset, classes=dataset.classes[:classes], train=train, test=test)
    shape = {"frames": sizes.frames, "size": sizes.size, "stride": options.stride}
    return tuple(open_clips(dataset, split, **shape).to(device) for split in ("train", "test"))


def train_teacher(record: measure.Record, train: Clips, test: Clips, settings: Settings):
    """The teacher, of as many of its steps as fit into its share of the time; its accuracy goes into the record."""
    source, started = RealSet(train), perf_counter()

    def trained(steps: int):
        return train_on(source, seed=0, settings=settings.replace(teacher_steps=steps).teacher)

    trained(3)  # warm-up
    probe = min(12, settings.teacher_steps)
    pace = measure.seconds(lambda: trained(probe), train.device) / probe
    steps = min(settings.teacher_steps, max(probe, int(TEACHER * record.limit / pace)))
    net = trained(steps)
    record.add("teacher", "steps", steps)
    record.add("teacher", "seconds", perf_counter() - started)
    record.add("teacher", "test", accuracy(net, test))
    return net


class Followed:
    """A sweep of which the record says more and more.

    Attributes:
        rows: of every look, "iteration" and "seconds" since the start, and by L the teacher's "distance" of every class
            (a list), "squared_gradient_norm" of a class's videos, in the mean of classes and of the iterations since
            the last look, and "change" of a pixel from its start, in the mean of all.
    """

    def __init__(self, record: measure.Record, name: str, train: Clips, reward: TeacherReward, settings, actions=None):
        self.record, self.name, self.reward, self.rows = record, name, reward, []
        self.sweep, self.began = Sweep(train, ipc=1, seed=0, settings=settings.distill, actions=actions), perf_counter()
        self.start = {length: run.videos.detach().clone() for length, run in self.sweep.runs.items()}
        self.squares = {length: torch.zeros((), device=train.device) for length in self.sweep.runs}
        for length, run in self.sweep.runs.items():
            for optimizer in run.optimizers:
                optimizer.register_step_pre_hook(self.summing(length))
        self.look()

    def summing(self, length: int):
        """A hook that adds up the squares of gradients, without waiting for the device."""

        def add(optimizer, *_) -> None:
            for group in optimizer.param_groups:
                for leaf in group["params"]:
                    self.squares[length] += leaf.grad.square().sum()

        return add

    def look(self) -> None:
        """One more row, and the record written; FloatingPointError where the teacher's distance overflows."""
        done = self.sweep.iteration
        since, found = done - (self.rows[-1]["iteration"] if self.rows else 0), {}
        for length, run in self.sweep.runs.items():
            distance = self.reward.distance(run.videos.detach(), run.policy)
            if not torch.isfinite(distance).all():
                raise FloatingPointError(f"L = {length}: the teacher's distance is infinite at iteration {done}")
            found[str(length)] = {
                "distance": distance.tolist(),
                "squared_gradient_norm": self.squares[length].item() / max(since, 1) / len(run.videos),
                "change": (run.videos.detach() - self.start[length]).abs().mean().item(),
            }
            self.squares[length].zero_()
        self.rows.append({"iteration": done, "seconds": perf_counter() - self.began, "frames_per_segment": found})
        self.record.add("sweeps", self.name, self.rows)

    def to(self, iteration: int) -> None:
        """Go on to this iteration and look."""
        self.sweep.run(iteration)
        self.look()

    def pace(self) -> float:
        """Seconds of an iteration between the latest two looks; 0 if there was one look."""
        last, this = self.rows[-2:] if len(self.rows) > 1 else self.rows * 2
        return (this["seconds"] - last["seconds"]) / max(1, this["iteration"] - last["iteration"])

    def distances(self, iteration: int) -> torch.Tensor:
        """Of every L and class at the last look that is not after ``iteration``, (A, M)."""
        row = [row for row in self.rows if row["iteration"] <= iteration][-1]
        return torch.tensor([own["distance"] for own in row["frames_per_segment"].values()])

    def stored(self, policy: torch.Tensor, distilled: bool) -> DistilledSet:
        """The set of a policy as it is now, or as it started."""
        videos = self.sweep.videos(policy)
        if not distilled:
            videos = torch.stack([self.start[length][c] for c, length in enumerate(policy.tolist())])
        return DistilledSet(videos, policy, list(self.sweep.real.train.classes))


def rank_correlations(some: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Of every class between its values by L, (A, M) each (Spearman's)."""
    ranks = [values.argsort(0).argsort(0).double().T for values in (some, other)]
    return [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(*ranks)]


def learned(rule: str, distances: torch.Tensor, settings: Settings) -> torch.Tensor:
    """The policy that a rule of ``david.algorithm`` learns where every episode's early distances are these, (A, M)."""
    rewards, classes, actions = 1 / (1 + distances), torch.arange(distances.shape[1]), action_set(settings.frames)
    agent, plan = make_agent(
        len(classes),
        len(actions),
        seed=0,
        settings=settings.with_rule(rule).algorithm,
    )
    for _ in plan:
        chosen = agent.act()
        agent.update(chosen, rewards[chosen, classes])
    return torch.tensor(actions)[agent.policy()]


def follow(record: measure.Record, kind: str, train: Clips, reward: TeacherReward, settings: Settings, sizes, actions):
    """A sweep from "noise" or "real" frames, as long as its share of the time allows and until it diverges."""
    followed = Followed(record, kind, train, reward, settings.replace(distill_start=kind), actions)
    try:
        for iteration in sizes.looks[:2]:
            followed.to(iteration)
        fits = int(SWEEPS[kind] * record.limit / followed.pace())
        if kind == "real":
            fits = min(fits, int(0.6 * record.left() / followed.pace()))
        last = min(sizes.most, max(fits, sizes.least if kind == "noise" else sizes.looks[-1]))
        for iteration in (*sizes.looks[2:], *range(1000, last, 1000), last):
            if followed.sweep.iteration < iteration <= last:
                followed.to(iteration)
    except FloatingPointError as error:
        record.fail(f"sweeps: {kind}", error)
    done = f"evidence: from {kind}: {followed.rows[-1]['iteration']} iterations, {followed.pace():.3f} s each"
    if actions:
        record.tell(done)
        return followed
    found = rank_correlations(followed.distances(sizes.early), followed.distances(followed.rows[-1]["iteration"]))
    record.add("rank correlation of early and last distances", kind, found)
    mean = sum(found) / len(found)
    record.tell(f"{done}; rank correlation over L of early and last distances {mean:.2f}")
    return followed


def plans(policies: dict[str, dict[str, torch.Tensor]], actions: tuple[int, ...], count: int) -> list[tuple]:
    """Sets to train students on, the most telling first: start, policy's name, policy (M,), distilled or not.

    Args:
        policies: start -> rule -> the policy that it learned; none where some L alone were distilled.
        actions: those L, ascending.
        count: M.
    """
    fixed = {f"L = {length}": torch.full((count,), length) for length in reversed(actions)}
    whole = next(iter(fixed))
    first = [("real", whole, False), ("noise", whole, True), ("real", whole, True)]
    rules = [(kind, rule, True) for rule in RULES for kind in policies]
    rules += [("real", rule, False) for rule in RULES if policies]
    ways = [("noise", True), ("real", True), ("real", False)]
    rest = [(kind, name, distilled) for name in fixed if name != whole for kind, distilled in ways]
    return [
        (kind, name, (fixed | policies.get(kind, {}))[name], distilled)
        for kind, name, distilled in first + rules + rest
    ]


def train_students(record: measure.Record, sweeps, policies, test: Clips, settings: Settings, sizes) -> None:
    """Students of one set after the other, then second ones, while there is time."""
    pace, results = 0.0, {}  # seconds of a clip in a step, of the latest; top-1 of each set's students
    actions, count = sweeps["noise"].sweep.actions, len(test.classes)
    for seed in range(sizes.students):
        for kind, name, policy, distilled in plans(policies, actions, count):
            name = f"{name} from {kind}" + ("" if distilled else ", as it starts")
            stored = sweeps[kind].stored(policy, distilled)
            own = settings.replace(student_batch=min(settings.student_batch, int(stored.clips_per_class.sum())))
            clips = own.student_steps * own.student_batch

            def student() -> dict:
                started = perf_counter()
                scores = evaluate(stored, test, seed=seed, settings=own.student)  # noqa: B023
                return scores | {"batch": own.student_batch, "seconds": perf_counter() - started}  # noqa: B023

            if scores := record.measure("students", f"{name}, seed {seed}", student, needs=pace * clips):
                pace = scores["seconds"] / clips
                results.setdefault(name, []).append(scores["top1"])
                print(f"    {name}: {scores['top1']:.1%}", flush=True)
    told = [f"{name}: " + " ".join(f"{100 * top1:.1f}" for top1 in found) for name, found in results.items()]
    record.tell("evidence: students' top-1 in %: " + "; ".join(told))


def run(record: measure.Record, sizes, options) -> None:
    """Teacher, sweeps, students; see ``gpu.Sizes``."""
    if not (options.data or options.dry_run):
        record.add("left out", "all", "it takes real videos: --data")
        return
    train, test = read(options, sizes, record.device)
    settings = measure.settings_of(
        frames=sizes.frames, size=sizes.size, width=sizes.width, clips=sizes.batch, precision="bfloat16",
        stride=options.stride, teacher_steps=sizes.teacher_steps, teacher_batch=sizes.teacher_batch,
        student_steps=sizes.student_steps, student_batch=sizes.student_batch,
    )  # fmt: skip
    record.content["data"] = {"reader": options.reader if options.data else "noise", "stride": options.stride}
    record.content["data"] |= {"train": len(train), "test": len(test), "classes": len(train.classes)}
    record.content["step size"] = {"noise": settings.distill_lr, "real": options.real_lr}
    with measure.numerics(tf32=True):
        teacher = train_teacher(record, train, test, settings)
        record.tell(f"evidence: {len(train)} clips read, teacher {record.content['teacher']['test']['top1']:.1%}")
        reward, sweeps, policies = TeacherReward(teacher, train), {}, {}
        for kind, lr in record.content["step size"].items():
            sweeps[kind] = follow(record, kind, train, reward, settings.replace(distill_lr=lr), sizes, options.lengths)
            if options.lengths:
                continue
            early = sweeps[kind].distances(sizes.early)
            policies[kind] = {rule: learned(rule, early, settings) for rule in RULES}
            record.add("policies", kind, {rule: policy.tolist() for rule, policy in policies[kind].items()})
        train_students(record, sweeps, policies, test, settings, sizes)
