"""Stage of ``gpu.py``: whether a GPU computes what a CPU does, in the same way twice, and without being waited for."""

import traceback
from itertools import count
from pathlib import Path

import measure
import torch
import torch.distributed as dist

from david.c3d import C3D
from david.clips import Clips
from david.distilled import DistilledSet
from david.evaluate import accuracy
from david.fast_embed import frozen_embed, round_weights
from david.matching import Distiller
from david.presets import Settings
from david.reward import TeacherReward
from david.seeds import generator
from david.sweep import Sweep
from david.temporal import action_set, partition
from david.training import train_network
from david.trajectories import Experts, TrajectoryLoss, flatten

COMPARED = "relative difference to the CPU"


def network(train: Clips, settings: Settings) -> C3D:
    """A network whose weights the host draws, so that they are the same on every device; without dropout."""
    net = C3D(len(train.classes), settings.frames, settings.size, settings.width)
    return net.reset(generator(0, "network")).to(train.device).eval().requires_grad_(False)


def stored_set(train: Clips, settings: Settings) -> DistilledSet:
    """One video a class, of noise that the host draws; every L takes its turn."""
    shape = (len(train.classes), 1, settings.frames, 3, settings.size, settings.size)
    videos = torch.randn(shape, generator=generator(0, "videos")).to(train.device)
    return DistilledSet(videos, measure.policy_of("david", len(train.classes), settings.frames), train.classes)


def embedding(train: Clips, settings: Settings) -> torch.Tensor:
    """Features of all clips, at the settings' precision, (N, D)."""
    net = network(train, settings)
    if settings.distill_precision == "bfloat16":
        round_weights(net)
    return frozen_embed(net, settings.distill_precision)(train.batch(range(len(train))))


def gradient(train: Clips, settings: Settings) -> torch.Tensor:
    """Of one iteration of distribution matching to all pixels: what momentum holds after the first."""
    policy = measure.policy_of("david", len(train.classes), settings.frames)
    distiller = Distiller(train, policy, ipc=1, seed=0, settings=settings)
    net = distiller.real.net
    net.load_state_dict(network(train, settings).state_dict())
    net.reset = lambda random: net  # keep them: every kind of device draws others of one seed
    distiller.step()
    states = [optimizer.state[leaf] for optimizer, leaf in zip(distiller.optimizers, distiller.leaves.values())]
    return torch.cat([state["momentum_buffer"].flatten() for state in states])


def partitions(train: Clips, settings: Settings) -> torch.Tensor:
    """The clips of a video for every L, and the adjoint of weighing them: copies and sums of copies."""
    videos, found = stored_set(train, settings).videos[0].requires_grad_(), []
    for length in action_set(settings.frames):
        clips = partition(videos, length)
        weights = torch.rand(clips.shape, generator=generator(length, "weights")).to(train.device)
        found += [clips, *torch.autograd.grad((clips * weights).sum(), videos)]
    return torch.cat([part.flatten() for part in found])


def distance(train: Clips, settings: Settings) -> torch.Tensor:
    """The teacher's, of every class (M,)."""
    stored = stored_set(train, settings)
    return TeacherReward(network(train, settings), train).distance(stored.videos, stored.policy)


def adjoint(train: Clips, settings: Settings) -> torch.Tensor:
    """MTT's gradient to all pixels and to the student's learning rate."""
    stored, net = stored_set(train, settings), network(train, settings).cpu()
    path = [flatten(net), flatten(net.reset(generator(1, "network")))]
    experts = Experts([torch.stack(path)])
    loss = TrajectoryLoss(train, experts, seed=0, settings=settings.replace(mtt_steps=2))
    loss.net.eval()  # dropout's masks are the device's own
    lr = torch.tensor(0.01, device=train.device)
    stored.videos.requires_grad_()
    loss.backward(lambda random: stored.batch(random, 2 * len(train.classes)), lr, iteration=0)
    return torch.cat([stored.videos.grad.flatten(), lr.grad[None]])


def accuracies(train: Clips, settings: Settings) -> torch.Tensor:
    """Of every class, (M,)."""
    return torch.tensor(accuracy(network(train, settings), train)["per_class"])


QUANTITIES = (embedding, gradient, partitions, distance, adjoint, accuracies)


def difference(function, train: Clips, device: torch.device, settings: Settings, *, tf32: bool = False) -> float:
    """|GPU - CPU| / |CPU| of what ``function`` computes, by the Euclidean norm; the CPU's is never TF32."""
    with measure.numerics(tf32=tf32):
        found, wanted = (function(train.to(own), settings).detach().cpu().double() for own in (device, measure.CPU))
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


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


def student_steps(train: Clips, settings: Settings) -> str:
    """Whether a student's second and third step wait."""
    stored, calls, modes = stored_set(train, settings), count(), {1: "error", 3: "default"}

    def draw(random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if mode := modes.get(next(calls)):
            torch.cuda.set_sync_debug_mode(mode)
        return stored.batch(random, 8)

    def train_student() -> None:
        torch.cuda.set_sync_debug_mode("default")
        train_network(network(train, settings).requires_grad_(), draw, steps=4, lr=0.01, optimizer="sgd", seed=0)

    return waited(train_student)


def repeated(train: Clips, settings: Settings) -> float:
    """The largest difference of any pixel between two runs of one seed, after three iterations; 0: the same bits."""
    policy = measure.policy_of("david", len(train.classes), settings.frames)
    runs = [Distiller(train, policy, ipc=1, seed=0, settings=settings) for _ in range(2)]
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


def run(record: measure.Record, sizes, _) -> None:
    """Compare on a few clips of noise; see ``gpu.Sizes``."""
    device, actions = record.device, len(action_set(sizes.frames))
    host = measure.noise_clips(actions, 4, sizes.frames, sizes.size)
    train, on_gpu = host.to(device), device.type == "cuda"
    shape = {"frames": sizes.frames, "size": sizes.size, "width": sizes.width, "clips": 3}
    exact, rounded = (measure.settings_of(**shape, precision=name) for name in ("float32", "bfloat16"))
    with torch.no_grad():  # what torch and its libraries take once
        network(train, exact).embed(train.batch([0]))
    for function in QUANTITIES:
        record.measure(COMPARED, function.__name__, difference, function, host, device, exact)
    if found := record.content.get(COMPARED):
        worst = max(found, key=found.get)
        record.tell(f"exactness: {len(found)} results in float32, at most {found[worst]:.1e} from the CPU's: {worst}")
    if on_gpu:
        group = "does not wait"
        policy, given = measure.policy_of("david", actions, sizes.frames), {"ipc": 1, "seed": 0}
        for settings in (rounded, exact):
            name = f"iteration, {settings.distill_precision}"
            loop = Distiller(train, policy, **given, settings=settings)
            record.measure(group, name, second_step, loop)
        record.measure(group, "sweep", lambda: second_step(Sweep(train, **given, settings=rounded)))
        record.measure(group, "student", student_steps, train, exact)
        record.measure("NCCL", "all_reduce", nccl, device)
        record.tell(f"exactness: waiting: {record.content.get(group)}; NCCL: {record.content.get('NCCL')}")
    else:
        record.add("left out", "waiting and NCCL", "they take a GPU")
    for settings in (exact, rounded):
        record.measure("two runs of one seed", settings.distill_precision, repeated, train, settings)
    record.tell(f"exactness: two runs of one seed differ by {record.content.get('two runs of one seed')}")
    for function in (embedding, gradient):  # for comparison: how far TF32 and bfloat16 are from that
        name = function.__name__
        tf32 = record.measure("in TF32", name, lambda: difference(function, host, device, exact, tf32=True))  # noqa: B023
        bfloat16 = record.measure("in bfloat16", name, difference, function, host, device, rounded)
        print(f"    {name}: TF32 {tf32}, bfloat16 {bfloat16} (each beside the CPU's float32 or bfloat16)")
