"""One pass over the real clips for every temporal resolution: the videos of all L are distilled side by side."""

from pathlib import Path

import torch

from david import sharding
from david.clips import Clips
from david.loop import Loop
from david.matching import Distiller, Features
from david.presets import Settings
from david.seeds import derive
from david.temporal import action_set


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
    ):
        self.actions, count = actions or action_set(settings.frames), len(train.classes)
        self.real = Features(train, seed=seed, settings=settings, classes=sharding.share(count), folder=folder)
        shared = {"ipc": ipc, "seed": seed, "settings": settings, "real": self.real}
        self.runs = {length: Distiller(train, torch.full((count,), length), **shared) for length in self.actions}
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

    def identity(self) -> str:
        return str(derive(0, "sweep", *(run.identity() for run in self.runs.values())))

    def _load(self, path: Path) -> None:
        super()._load(path)
        for run in self.runs.values():
            run.iteration = self.iteration
