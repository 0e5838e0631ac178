"""The loop around every distillation: step, keep within range, average, check, checkpoint, continue."""

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from david.support.files import atomic
from david.support.pixels import keep_in_range
from david.support.progress import track

WORSE = 4  # a held-out loss of so many times what it was at the start ends a run,
NEAR = 1  # but not one of less than this: a set of real clips may start with a loss of 0


class Loop:
    """Iterations that move some leaf tensors; they can be interrupted and continued, to the same result.

    A subclass sets the attributes below and defines ``step`` and ``identity``. Its iteration i may depend on the
    leaves, their optimisers and i only, so that those are the whole checkpoint.

    Attributes:
        leaves: name -> the tensor that the optimisers move.
        optimizers: each moves some of the leaves.
        iteration: steps taken so far.
        average: k; 0 for none. Else iterate i counts k / (k + i - 1) in a running average, so that about the last
            1 / k of the iterates make it, however many there are: it needs no horizon, and a run of N iterations is
            the first part of one of 2 N (polynomial-decay averaging; Shamir and Zhang 2013, with eta = k - 1).
        averages: name -> the average of a leaf, for those that have one.
        curve: [iteration, ``held_out()``] of every look at it.
        notes: what ``note()`` said at each look.
        step_setting: the setting that is the size of steps, for errors.
    """

    leaves: dict[str, torch.Tensor]
    optimizers: list[torch.optim.Optimizer]
    iteration = 0
    average = 0.0
    averages: dict[str, torch.Tensor] = {}
    step_setting = "its step size"
    curve: list[list[float]]
    notes: list[dict]

    def step(self) -> None:
        """Take one step and count it in ``iteration``."""
        raise NotImplementedError

    def held_out(self) -> float | None:
        """How bad the leaves are by something that no step has used; None where there is no such thing.

        In such units that noise has far more than NEAR.
        """
        return None

    def note(self) -> dict | None:
        """Whatever else is worth keeping of a look, as JSON has it; it goes with the checkpoint."""
        return None

    def begin_averages(self, names: list[str]) -> None:
        """Average these leaves from here on, if ``average`` says so."""
        self.averages = {name: self.leaves[name].detach().clone() for name in names} if self.average else {}

    @torch.no_grad()
    def settle(self, name: str, bounded: bool) -> None:
        """What follows a step of the leaf ``name``: its pixels are kept in range if ``bounded``, and averaged.

        To be called before the step is counted.
        """
        leaf = self.leaves[name]
        if bounded:
            keep_in_range(leaf)
        if name in self.averages:
            self.averages[name].lerp_(leaf, self.average / (self.average + self.iteration))

    def result(self, name: str) -> torch.Tensor:
        """The average of a leaf, or the leaf itself if it has none."""
        return self.averages.get(name, self.leaves[name].detach())

    def identity(self) -> str:
        """What decides the result: a checkpoint of another identity is refused."""
        raise NotImplementedError

    def run(
        self,
        iterations: int,
        *,
        checkpoint: Path | None = None,
        every: int = 100,
        looks: int = 10,
        also: Collection[int] = (),
        desc: str = "distil",
    ) -> None:
        """Step until ``iterations`` are done.

        Args:
            iterations: total, those of a checkpoint included.
            checkpoint: file to resume from and to write every ``every`` iterations; removed by the caller.
            every: iterations between two checkpoints.
            looks: about how many times to look at ``held_out`` after the start, and whether something diverged.
            also: iterations after which to look as well.
            desc: what the progress bar says.

        Raises:
            FloatingPointError: a leaf diverged; said at the look after it, not at the end.
            ValueError: the checkpoint is that of another run.
        """
        self.curve, self.notes = [], []
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        between = max(1, iterations // looks)
        if not (self.curve or self.notes):
            self._look(desc)
        for _ in track(range(self.iteration, iterations), desc=desc, unit="it"):
            self.step()
            if self.iteration % between == 0 or self.iteration == iterations or self.iteration in also:
                self._look(desc)
            if checkpoint is not None and self.iteration % every == 0:
                self._save(checkpoint)

    def _look(self, desc: str) -> None:
        """Add to ``curve``; FloatingPointError where a leaf has diverged, or what is held out got far worse."""
        for name, leaf in self.leaves.items():
            if not torch.isfinite(leaf).all():
                raise FloatingPointError(
                    f"{desc}: {name} diverged within {self.iteration} iterations; lower {self.step_setting}"
                )
        found = self.held_out()
        if found is not None:
            self.curve.append([self.iteration, found])
            if not found <= max(NEAR, WORSE * self.curve[0][1]):
                raise FloatingPointError(
                    f"{desc}: the loss under networks that no step has used went from {self.curve[0][1]:.3g} to "
                    f"{found:.3g} within {self.iteration} iterations, so steps make noise; lower {self.step_setting}"
                )
        if found := self.note():
            self.notes.append(found)

    def _buffers(self, leaf: torch.Tensor) -> dict[str, torch.Tensor]:
        for optimizer in self.optimizers:
            if leaf in optimizer.state:
                return {name: value for name, value in optimizer.state[leaf].items() if torch.is_tensor(value)}
        return {}

    def _save(self, path: Path) -> None:
        state = {}
        for name, leaf in self.leaves.items():
            state[f"{name}/value"] = leaf.detach()
            state |= {f"{name}/{key}": value for key, value in self._buffers(leaf).items()}
        state = {key: value.cpu().contiguous() for key, value in state.items()}
        state |= {f"{name}/average": value.cpu().contiguous() for name, value in self.averages.items()}
        header = {"iteration": str(self.iteration), "identity": self.identity()}
        header |= {"curve": json.dumps(self.curve), "notes": json.dumps(self.notes)}
        with atomic(path) as temporary:
            save_file(state, temporary, metadata=header)

    def _load(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        if header.get("identity") != self.identity():
            raise ValueError(f"{path} is the checkpoint of another distillation; delete it to start over")
        owner = {id(leaf): opt for opt in self.optimizers for group in opt.param_groups for leaf in group["params"]}
        state: dict[str, dict[str, torch.Tensor]] = {name: {} for name in self.leaves}
        for key, value in load_file(path).items():
            name, _, field = key.rpartition("/")
            state[name][field] = value
        for name, leaf in self.leaves.items():
            leaf.data.copy_(state[name].pop("value"))
            if name in self.averages:
                self.averages[name].copy_(state[name].pop("average"))
            if state[name]:
                # Adam counts its steps in a CPU tensor, whatever device its moments are on.
                buffers = {k: v if k == "step" else v.to(leaf.device) for k, v in state[name].items()}
                owner[id(leaf)].state[leaf] = buffers
        self.iteration = int(header["iteration"])
        self.curve, self.notes = (json.loads(header.get(name, "[]")) for name in ("curve", "notes"))
