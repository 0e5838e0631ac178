"""Distil under every temporal resolution at once: one pass over the real clips serves the videos of all L."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from david.matching import Distiller, Features, Settings
from david.partition import action_set
from david.reward import TeacherReward
from david.support.costs import shared
from david.support.files import atomic, locked
from david.support.loop import Loop
from david.support.pixels import denormalise, normalise
from david.support.seeds import derive

if TYPE_CHECKING:
    from david.data.clips import Clips


class Sweep(Loop):
    """Distribution matching under every fixed L of the action set at once, from which any policy's set can be taken.

    The losses of distribution matching are separate by class and by L, and one iteration's network and mean features
    of real clips serve them all. So an iteration costs the real pass once and F / L synthetic clips for each L, and
    the videos of a class at some L are those that a run of its own would give.

    Args:
        train: real clips, on the device to compute on.
        ipc: I, stored videos a class.
        seed: fixes everything random.
        settings: how.
        actions: some of the L; by default the whole action set.
        experts: MTT's, whose snapshots are the networks; None draws networks at random.
        reward: whose distances are noted at every look, if any.
        classes: only these of the M.
        watched: whether looks have the held-out loss, which takes a pass over real clips of its own.

    Attributes:
        actions: the L, ascending.
        runs: L -> the distiller whose classes all have this L.
    """

    step_setting = "distill_lr"

    def __init__(
        self,
        train: "Clips",
        *,
        ipc: int,
        seed: int,
        settings: Settings,
        actions: tuple[int, ...] | None = None,
        experts=None,
        reward: TeacherReward | None = None,
        classes: range | None = None,
        watched: bool = True,
    ):
        self.reward, self.bounded, self.watched = reward, settings.bounded, watched
        self.actions, count = actions or action_set(train.frames), len(train.classes if classes is None else classes)
        self.real = Features(train, seed=seed, settings=settings, classes=classes, experts=experts)
        same = {"ipc": ipc, "seed": seed, "settings": settings, "classes": classes, "real": self.real}
        self.runs = {length: Distiller(train, torch.full((count,), length), **same) for length in self.actions}
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
            policy: int64, L of each class.
        """
        found = {length: self.runs[length].distilled() for length in set(policy.tolist())}
        return torch.stack([found[length][c] for c, length in enumerate(policy.tolist())])

    def held_out(self) -> float | None:
        """The mean over L of ``Distiller.held_out``."""
        losses = [run.held_out_losses() for run in self.runs.values()] if self.bounded and self.watched else []
        self._losses = {length: own.tolist() for length, own in zip(self.runs, losses)}
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


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of one dataset, each made once, with what the teacher sees, and kept in a folder for all that read it.

    Of several processes that need one at once, one makes it and the others wait; one that was interrupted continues.

    Attributes:
        train: real clips, on the device to compute on.
        settings: how they are distilled.
        reward: what the teacher sees.
        folder: where they are kept.
        experts, classes: as ``Sweep`` has them.
        early: an iteration to look at beside the others, if it is reached.
    """

    train: "Clips"
    settings: Settings
    reward: TeacherReward
    folder: Path
    experts: object = None
    classes: range | None = None
    early: int = 0

    def get(self, *, ipc: int, seed: int, iterations: int, keep: bool = True) -> Swept:
        """A sweep of ``iterations`` iterations, read back or made.

        Without ``keep`` of an early stage that is to be rewarded: neither videos nor the held-out loss, and the
        teacher's distances at the start and at the end alone.

        Raises:
            ValueError: its file is damaged.
        """
        networks, settings = self.experts and self.experts.identity, replace(self.settings, iterations=iterations)
        parts = (settings, networks, self.reward.identity, self.classes, ipc, keep)
        key = derive(seed, self.train.fingerprint, *map(str, parts))
        path = self.folder / f"sweep-{key:016x}.safetensors"
        if not path.exists():  # a folder that has it may be read-only
            with shared(), locked(path.with_suffix(".lock")):
                if not path.exists():
                    self._make(path, ipc, seed, settings, keep)
        try:
            with safe_open(path, "pt") as file:
                notes = json.loads(file.metadata()["notes"])
            return Swept({int(length): videos for length, videos in load_file(path).items()}, notes)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a whole sweep ({error}); delete it to make one anew") from error

    def _make(self, path: Path, ipc: int, seed: int, settings: Settings, keep: bool) -> None:
        same = {"experts": self.experts, "reward": self.reward, "classes": self.classes}
        made = Sweep(self.train, ipc=ipc, seed=seed, settings=settings, watched=keep, **same)
        looks = {"looks": 10, "also": {self.early}} if keep else {"looks": 1}
        checkpoint = path.with_name(f"{path.stem}-checkpoint.safetensors")
        made.run(settings.iterations, checkpoint=checkpoint, **looks, desc=f"sweep over {len(made.actions)} L")
        stored = {}
        for length, run in made.runs.items() if keep else ():
            videos = denormalise(run.distilled()) if made.bounded else run.distilled()
            stored[str(length)] = videos.cpu().contiguous()
        with atomic(path) as temporary:
            # safetensors takes no file without tensors.
            save_file(stored or {"0": torch.empty(0)}, temporary, metadata={"notes": json.dumps(made.notes)})
        checkpoint.unlink(missing_ok=True)
