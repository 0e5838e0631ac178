"""Stage of ``gpu.py``: whether a GPU computes what a CPU does, in the same way twice, and without being waited for.

A gradient jumps where two pixels of a max-pool are nearly equal, or a value before a ReLU is nearly 0: the last digit
decides which way the gradient goes. A network of millions of such choices meets a few of them in every step. So a
gradient is compared twice: as it is, and with the choices of the other side. The yardstick is the same comparison of
float32 with float64, on one device.
"""

import traceback
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from unittest.mock import patch

import measure
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import max_pool3d

from david.baselines.experts import Experts, flatten
from david.baselines.mtt import TrajectoryLoss
from david.c3d import C3D
from david.data.clips import Clips
from david.fast_embed import frozen_embed, round_weights
from david.matching import Distiller
from david.partition import action_set, partition
from david.reward import TeacherReward
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.support.seeds import generator
from david.sweep import Sweep
from david.training import accuracy, train_network

COMPARED = "relative difference to the CPU"
SAME_CHOICES = "relative difference to the CPU, with its choices"
YARDSTICK = "float32 beside float64"


@dataclass(frozen=True)
class Case:
    """What to compute with: all but the clips follows from the seed, drawn by the host, the same on every device.

    Attributes:
        number: the type in which networks compute; videos and what is drawn are float32.
    """

    train: Clips
    settings: Settings
    seed: int = 0
    number: torch.dtype = torch.float32

    def on(self, device: torch.device) -> "Case":
        """The same on another device."""
        return replace(self, train=self.train.to(device))

    def network(self) -> C3D:
        """A network without dropout, whatever the type of its clips."""
        s = self.settings
        net = C3D(len(self.train.classes), s.frames, s.size, s.width).reset(generator(self.seed, "network"))
        return takes_any(net.to(self.train.device, self.number)).eval().requires_grad_(False)

    def stored_set(self) -> DistilledSet:
        """One video a class, of noise; every L takes its turn."""
        shape = (len(self.train.classes), 1, self.train.frames, 3, self.train.size, self.train.size)
        videos = torch.randn(shape, generator=generator(self.seed, "videos")).to(self.train.device)
        return DistilledSet(videos, self.policy(), self.train.classes)

    def policy(self) -> torch.Tensor:
        """Every L takes its turn, int64 (M,)."""
        return measure.policy_of("david", len(self.train.classes), self.train.frames)


def takes_any(net: C3D) -> C3D:
    """``net``, which from now on casts clips to the type of its weights."""
    net.trunk.register_forward_pre_hook(lambda trunk, given: given[0].to(trunk[0].weight.dtype))
    return net


def embedding(case: Case) -> torch.Tensor:
    """Features of all clips, at the settings' precision, (N, D)."""
    net = case.network()
    if case.settings.distill_precision == "bfloat16":
        round_weights(net)
    return frozen_embed(net, case.settings.distill_precision)(case.train.batch(range(len(case.train))))


def gradient(case: Case) -> torch.Tensor:
    """Of one iteration of distribution matching to all pixels: what momentum holds after the first."""
    distiller = Distiller(case.train, case.policy(), ipc=1, seed=case.seed, settings=case.settings.distill)
    distiller.real.net = net = case.network()
    net.reset = lambda random: net  # keep its weights: every kind of device draws others of one seed
    distiller.step()
    states = [optimizer.state[leaf] for optimizer, leaf in zip(distiller.optimizers, distiller.leaves.values())]
    return torch.cat([state["momentum_buffer"].flatten() for state in states])


def partitions(case: Case) -> torch.Tensor:
    """The clips of a video for every L, and the adjoint of weighing them: copies and sums of copies."""
    videos, found = case.stored_set().videos[0].requires_grad_(), []
    for length in action_set(case.settings.frames):
        clips = partition(videos, length)
        weights = torch.rand(clips.shape, generator=generator(length, "weights")).to(videos.device)
        found += [clips, *torch.autograd.grad((clips * weights).sum(), videos)]
    return torch.cat([part.flatten() for part in found])


def distance(case: Case) -> torch.Tensor:
    """The teacher's, of every class (M,)."""
    stored = case.stored_set()
    return TeacherReward(case.network(), case.train).distance(stored.videos, stored.policy)


def adjoint(case: Case) -> torch.Tensor:
    """MTT's gradient to all pixels and to the student's learning rate."""
    stored, net = case.stored_set(), replace(case, number=torch.float32).on(measure.CPU).network()
    path = [flatten(net), flatten(net.reset(generator(case.seed + 1, "network")))]
    experts = Experts([torch.stack(path).to(case.number)])
    loss = TrajectoryLoss(case.train, experts, seed=0, settings=case.settings.replace(mtt_steps=2).mtt)
    takes_any(loss.net).eval()  # dropout's masks are the device's own
    lr = torch.tensor(0.01, device=case.train.device, dtype=case.number)
    stored.videos.requires_grad_()
    loss.backward(lambda random: stored.batch(random, 2 * len(case.train.classes)), lr, iteration=0)
    return torch.cat([stored.videos.grad.flatten(), lr.grad[None].float()])


def accuracies(case: Case) -> torch.Tensor:
    """Of every class, (M,)."""
    return torch.tensor(accuracy(case.network(), case.train)["per_class"])


QUANTITIES = (embedding, gradient, partitions, distance, adjoint, accuracies)
SLOPES = (gradient, adjoint)  # which depend on choices more than by rounding


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """|found - wanted| / |wanted|, by the Euclidean norm."""
    found, wanted = (values.detach().cpu().double() for values in (found, wanted))
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def difference(function, case: Case, device: torch.device, *, tf32: bool = False) -> float:
    """How far what ``function`` computes on a device is from what the CPU does, whose float32 is never TF32."""
    with measure.numerics(tf32=tf32):
        return relative(function(case.on(device)), function(case.on(measure.CPU)))


class Choices:
    """Which value every max-pool takes and which values every ReLU lets through, call by call.

    Within it, whatever is computed makes its own choices, which it notes, or those ``given``.

    Attributes:
        taken: of every call, on the CPU, the places of the largest values, or a mask; a pool and its ReLU in turns.
    """

    def __init__(self, given: "Choices | None" = None):
        self.taken, self.given, self.patches = [], given and iter(given.taken), ExitStack()

    def __enter__(self) -> "Choices":
        for layer, way in ((nn.MaxPool3d, self.pool), (nn.ReLU, self.relu)):
            self.patches.enter_context(patch.object(layer, "forward", lambda own, x, way=way: way(own, x)))
        return self

    def __exit__(self, *_):
        self.patches.close()

    def note(self, own: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The choice to make where ``own`` is what would be chosen."""
        self.taken.append(next(self.given) if self.given else own.cpu())
        return self.taken[-1].to(device)

    def pool(self, layer: nn.MaxPool3d, x: torch.Tensor) -> torch.Tensor:
        places = self.note(max_pool3d(x.detach(), layer.kernel_size, return_indices=True)[1], x.device)
        return x.flatten(2).gather(2, places.flatten(2)).view(places.shape)

    def relu(self, _: nn.ReLU, x: torch.Tensor) -> torch.Tensor:
        return x * self.note(x.detach() > 0, x.device)

    def unlike(self, other: "Choices") -> int:
        """How many choices differ, of those that a gradient passes through in either."""
        pairs, found = list(zip(self.taken, other.taken, strict=True)), 0
        for (places, others), (kept, were) in zip(pairs[::2], pairs[1::2]):
            found += ((places != others) & kept & were).sum().item() + (kept != were).sum().item()
        return found

    def count(self) -> int:
        """How many there are."""
        return sum(own.numel() for own in self.taken[::2])


def noted(function, case: Case, given: Choices | None = None) -> tuple[torch.Tensor, Choices]:
    """What ``function`` computes without TF32, by the choices ``given`` or its own, and those."""
    with measure.numerics(tf32=False), Choices(given) as choices:
        return function(case), choices


def difference_with_choices(function, case: Case, device: torch.device) -> float:
    """As ``difference``, where the device makes the CPU's choices."""
    wanted, choices = noted(function, case.on(measure.CPU))
    return relative(noted(function, case.on(device), choices)[0], wanted)


def yardstick(function, case: Case) -> dict:
    """float32 beside float64 on the device of the case: as it is, with the choices of float64, and how many differ."""
    wanted, choices = noted(function, replace(case, number=torch.float64))
    (found, own), (same, _) = noted(function, case), noted(function, case, choices)
    return {
        "difference": relative(found, wanted),
        "with the same choices": relative(same, wanted),
        "other choices": own.unlike(choices),
        "choices": choices.count(),
    }


def waited(run) -> str:
    """ "passed", or where and why torch had the host wait for the GPU within ``run``."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "david" in Path(frame.filename).parts]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
        return where + str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "passed"


def second_step(loop) -> str:
    """Whether a loop's second iteration waits; the first one may, for what later ones have."""
    loop.step()
    return waited(loop.step)


def student_steps(case: Case) -> str:
    """Whether a student's second and third step wait."""
    stored, calls, modes = case.stored_set(), count(), {1: "error", 3: "default"}

    def draw(random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if mode := modes.get(next(calls)):
            torch.cuda.set_sync_debug_mode(mode)
        return stored.batch(random, 8)

    def train_student() -> None:
        torch.cuda.set_sync_debug_mode("default")
        train_network(case.network().requires_grad_(), draw, steps=4, lr=0.01, optimizer="sgd", seed=0)

    return waited(train_student)


def repeated(case: Case, *, deterministic: bool) -> float:
    """The largest difference of any pixel between two runs of one seed, after three iterations; 0: the same bits."""
    with measure.numerics(tf32=True, deterministic=deterministic):
        runs = [Distiller(case.train, case.policy(), ipc=1, seed=0, settings=case.settings.distill) for _ in range(2)]
        for run in runs:
            run.run(3)
    return (runs[0].videos - runs[1].videos).abs().max().item()


def nccl(device: torch.device) -> str:
    """A group of one process sums a number."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        total = torch.ones(1, device=device)
        dist.all_reduce(total)
        return "passed" if total.item() == 1 else f"sum {total.item()}"
    finally:
        dist.destroy_process_group()


def compare(record: measure.Record, exact: Case, rounded: Case) -> None:
    """The device beside the CPU, and beside itself."""
    device, repeats = record.device, "two runs of one seed"
    for function in QUANTITIES:
        record.measure(COMPARED, function.__name__, difference, function, exact, device)
    for function in SLOPES:
        record.measure(SAME_CHOICES, function.__name__, difference_with_choices, function, exact, device)
    if found := record.content.get(COMPARED):
        worst = max(found, key=found.get)
        record.tell(f"exactness: {len(found)} results in float32, at most {found[worst]:.1e} from the CPU's: {worst}")
        record.tell(f"exactness: with the CPU's choices {record.content.get(SAME_CHOICES)}")
    for case in (exact.on(device), rounded.on(device)):
        precision = case.settings.distill_precision
        for deterministic in (False, True):
            name = precision + ", deterministic" * deterministic
            record.measure(repeats, name, lambda: repeated(case, deterministic=deterministic))  # noqa: B023
    record.tell(f"exactness: two runs of one seed differ by {record.content.get(repeats)}")
    for function in (embedding, gradient):  # for comparison: how far TF32 and bfloat16 are from that
        name = function.__name__
        tf32 = record.measure("in TF32", name, lambda: difference(function, exact, device, tf32=True))  # noqa: B023
        bfloat16 = record.measure("in bfloat16", name, difference, function, rounded, device)
        print(f"    {name}: TF32 {tf32}, bfloat16 {bfloat16} (each beside the CPU's float32 or bfloat16)")


def look_for_waits(record: measure.Record, exact: Case, rounded: Case) -> None:
    """What takes a GPU: that the host does not wait for it, and NCCL."""
    group, given = "does not wait", {"ipc": 1, "seed": 0}
    exact, rounded = exact.on(record.device), rounded.on(record.device)
    for case in (rounded, exact):
        loop = Distiller(case.train, case.policy(), **given, settings=case.settings.distill)
        record.measure(group, f"iteration, {case.settings.distill_precision}", second_step, loop)
    record.measure(
        group, "sweep", lambda: second_step(Sweep(rounded.train, **given, settings=rounded.settings.distill))
    )
    record.measure(group, "student", student_steps, exact)
    record.measure("NCCL", "all_reduce", nccl, record.device)
    record.tell(f"exactness: waiting: {record.content.get(group)}; NCCL: {record.content.get('NCCL')}")


def run(record: measure.Record, sizes, options) -> None:
    """Compare on a few clips of noise; see ``gpu.Sizes``. A CPU has itself to compare with in a dry run only."""
    device, on_gpu = record.device, record.device.type == "cuda"
    torch.manual_seed(0)
    train = measure.noise_clips(len(action_set(sizes.frames)), 4, sizes.frames, sizes.size)
    shape = {"frames": sizes.frames, "size": sizes.size, "width": sizes.width, "clips": 3}
    names = ("float32", "bfloat16")
    exact, rounded = (Case(train, measure.settings_of(**shape, precision=name)) for name in names)
    with torch.no_grad():  # what torch and its libraries take once
        exact.on(device).network().embed(train.to(device).batch([0]))
    if on_gpu or options.dry_run:
        compare(record, exact, rounded)
    if on_gpu:
        look_for_waits(record, exact, rounded)
    else:
        record.add("left out", "waiting and NCCL", "they take a GPU")
    for own, draws in ((device, sizes.draws), (measure.CPU, 1))[: 1 + on_gpu]:
        group = f"{YARDSTICK}, {own.type}"
        for function in (embedding, *SLOPES):
            cases = [replace(exact, seed=seed).on(own) for seed in range(draws)]
            record.measure(group, function.__name__, lambda: [yardstick(function, case) for case in cases])  # noqa: B023
        if found := record.content.get(group):
            worst = {name: f"{max(one['difference'] for one in each):.1e}" for name, each in found.items()}
            record.tell(f"exactness: {group}: at most {worst}")
