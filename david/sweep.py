"""One pass over the real clips for every temporal resolution: the videos of all L are distilled side by side."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from david.data.clips import Clips, denormalise, normalise
from david.matching import Distiller, Features, matching_stages
from david.partition import action_set
from david.reward import TeacherReward
from david.runs import sharding
from david.runs.settings import Settings
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.loop import Loop
from david.support.seeds import derive
from david.training import load_teacher


class Sweep(Loop):
    """Distribution matching under every fixed L of the action set at once, from which any policy's set can be taken.

    The losses of distribution matching are separate by class and by L, and one iteration's network and mean features
    of real clips serve them all. So an iteration costs the real pass once and F / L synthetic clips for each L, and
    the videos of a class at some L are those that a run of its own would give.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: its ``distill_`` fields.
        actions: some of the L; by default the whole action set.
        folder: where experts are kept, if they are the networks.
        reward: whose distances are noted at every look, if any.

    Attributes:
        actions: the L, ascending.
        runs: L -> the distiller whose classes all have this L.
    """

    step_setting = "distill_lr"

    def __init__(
        self,
        train: Clips,
        *,
        ipc: int,
        seed: int,
        settings: Settings,
        actions: tuple[int, ...] | None = None,
        folder: Path | None = None,
        reward: TeacherReward | None = None,
    ):
        self.reward, self.bounded = reward, settings.distill_range == "8-bit"
        self.actions, self.count = actions or action_set(settings.frames), len(train.classes)
        self.real = Features(train, seed=seed, settings=settings, classes=sharding.share(self.count), folder=folder)
        shared = {"ipc": ipc, "seed": seed, "settings": settings, "real": self.real}
        self.runs = {length: Distiller(train, torch.full((self.count,), length), **shared) for length in self.actions}
        self.leaves = self._of_all("leaves")
        self.averages = self._of_all("averages")
        self.optimizers = [optimizer for run in self.runs.values() for optimizer in run.optimizers]

    def _of_all(self, kind: str) -> dict[str, torch.Tensor]:
        """The leaves or averages of all runs, by L and name."""
        return {f"L = {n} {name}": own for n, run in self.runs.items() for name, own in getattr(run, kind).items()}

    def step(self) -> None:
        """One iteration: new weights and new real clips, once; one step on the videos of every L."""
        real = self.real.draw(self.iteration)
        for run in self.runs.values():
            run.move(real)
        self.iteration += 1

    def videos(self, policy: torch.Tensor) -> torch.Tensor:
        """The videos of a policy so far, float (M, I, F, 3, H, W).

        Args:
            policy: int64 (M,), L of each class (of this rank's, where several share the classes).
        """
        found = {length: self.runs[length].distilled() for length in set(policy.tolist())}
        return torch.stack([found[length][c] for c, length in enumerate(policy.tolist())])

    def held_out(self) -> float | None:
        """The mean over L of ``Distiller.held_out``."""
        losses = [run.held_out_losses() for run in self.runs.values()] if self.bounded else []
        self._losses = {length: sharding.gather(own, self.count).tolist() for length, own in zip(self.runs, losses)}
        return sum(map(sum, self._losses.values())) / len(self.runs) if losses else None

    def note(self) -> dict | None:
        """ "iteration", and by L for every class the "held_out" loss and the teacher's "distance"."""
        found = {"iteration": self.iteration, "held_out": self._losses}
        if self.reward is not None:
            distances = {length: self.reward.distance(run.distilled(), run.policy) for length, run in self.runs.items()}
            found["distance"] = {length: own.tolist() for length, own in distances.items()}
        return found

    def identity(self) -> str:
        return str(derive(0, "sweep", *(run.identity() for run in self.runs.values())))

    def _load(self, path: Path) -> None:
        super()._load(path)
        for run in self.runs.values():
            run.iteration = self.iteration


@dataclass(frozen=True)
class Swept:
    """What a sweep left.

    Attributes:
        stored: L -> the videos of all classes, (M, I, F, 3, H, W) on the host: bytes in channels-last order, uint8
            (M, I, F, H, W, 3), where pixels are those that 8 bits can show, else float32; empty if they were not kept.
        notes: of every look, "iteration", and by L, as text, for every class the "held_out" loss and the teacher's
            "distance".
    """

    stored: dict[int, torch.Tensor]
    notes: list[dict]

    def videos(self, policy: torch.Tensor) -> torch.Tensor:
        """The videos of a policy, int64 (M,), float32 (M, I, F, 3, H, W), on the host."""
        videos = torch.stack([self.stored[length][c] for c, length in enumerate(policy.tolist())])
        return normalise(videos).contiguous() if videos.dtype == torch.uint8 else videos

    def along(self, kind: str, policy: torch.Tensor) -> list[tuple[int, list[float]]]:
        """(iteration, "held_out" or "distance" of every class under a policy, int64 (M,)) of every look that has it."""
        lengths = list(map(str, policy.tolist()))
        return [
            (note["iteration"], [note[kind][length][c] for c, length in enumerate(lengths)])
            for note in self.notes
            if note.get(kind)
        ]


def sweep(
    train: Clips,
    *,
    ipc: int,
    seed: int,
    settings: Settings,
    iterations: int,
    folder: Path,
    keep: bool = True,
) -> Swept:
    """A sweep of ``iterations`` iterations, read from ``folder``, or made, with what the teacher sees, and kept there.

    A prerequisite that runs share, as the teacher and the experts are: of several processes that need it at once, one
    makes it and the others wait; on several ranks, all make it together. One that was interrupted continues.

    Args:
        train: real clips, on the device to compute on.
        ipc: I.
        seed: fixes everything random but the teacher.
        settings: its ``distill_`` and ``teacher_`` fields, and ``expert_`` where these are the networks.
        iterations: how many; ``settings.distill_iterations`` for sets, fewer for an early stage.
        folder: also where teacher and experts are kept.
        keep: whether the videos are kept beside the notes.

    Raises:
        ValueError: a file in ``folder`` is damaged.
    """
    recipe = settings.replace(distill_iterations=iterations).subset(*matching_stages(settings), "teacher")
    key = derive(seed, train.fingerprint, str(recipe), ipc, keep)
    path = folder / f"sweep-{key:016x}.safetensors"
    shard = "" if sharding.size() == 1 else f"-{sharding.rank()}-of-{sharding.size()}"
    checkpoint = path.with_name(f"{path.stem}-checkpoint{shard}.safetensors")
    with shared(), locked(path.with_suffix(".lock")) if sharding.rank() == 0 else nullcontext():
        if not sharding.first(path.exists):
            reward = TeacherReward(load_teacher(train, settings=settings, folder=folder), train)
            made = Sweep(train, ipc=ipc, seed=seed, settings=settings, folder=folder, reward=reward)
            early = {settings.early_iterations} if iterations == settings.distill_iterations else ()
            made.run(iterations, checkpoint=checkpoint, also=early, desc=f"sweep over {len(made.actions)} L")
            stored = {}
            for length, run in made.runs.items() if keep else ():
                videos = denormalise(run.distilled()) if made.bounded else run.distilled()
                stored[str(length)] = sharding.gather(videos.cpu(), made.count).contiguous()
            if sharding.rank() == 0:
                with atomic(path) as temporary:
                    # safetensors takes no file without tensors.
                    save_file(stored or {"0": torch.empty(0)}, temporary, metadata={"notes": json.dumps(made.notes)})
            checkpoint.unlink(missing_ok=True)
    sharding.first(lambda: None)  # the first rank writes last
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
        return Swept({int(length): videos for length, videos in load_file(path).items()}, notes)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole sweep ({error}); delete it to make one anew") from error
