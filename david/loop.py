"""The loop around every distillation: step, check, checkpoint, continue."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from david.files import atomic
from david.progress import track


class Loop:
    """Iterations that move some leaf tensors; they can be interrupted and continued, to the same result.

    A subclass sets the attributes below and defines ``step`` and ``identity``. Its iteration i may depend on the
    leaves, their optimisers and i only, so that those are the whole checkpoint.

    Attributes:
        leaves: name -> the tensor that the optimisers move.
        optimizers: each moves some of the leaves.
        iteration: steps taken so far.
    """

    leaves: dict[str, torch.Tensor]
    optimizers: list[torch.optim.Optimizer]
    iteration = 0

    def step(self) -> None:
        """Take one step and count it in ``iteration``."""
        raise NotImplementedError

    def identity(self) -> str:
        """What decides the result: a checkpoint of another identity is refused."""
        raise NotImplementedError

    def run(self, iterations: int, *, checkpoint: Path | None = None, every: int = 100, desc: str = "distil") -> None:
        """Step until ``iterations`` are done.

        Args:
            iterations: total, those of a checkpoint included.
            checkpoint: file to resume from and to write every ``every`` iterations; removed by the caller.
            every: iterations between two checkpoints.
            desc: what the progress bar says.

        Raises:
            FloatingPointError: a leaf diverged.
            ValueError: the checkpoint is that of another run.
        """
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        for _ in track(range(self.iteration, iterations), desc=desc, unit="it"):
            self.step()
            if checkpoint is not None and self.iteration % every == 0:
                self._save(checkpoint)
        for name, leaf in self.leaves.items():
            if not torch.isfinite(leaf).all():
                raise FloatingPointError(f"{desc}: {name} diverged within {iterations} iterations; lower its step size")

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
        header = {"iteration": str(self.iteration), "identity": self.identity()}
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
            if state[name]:
                # Adam counts its steps in a CPU tensor, whatever device its moments are on.
                buffers = {k: v if k == "step" else v.to(leaf.device) for k, v in state[name].items()}
                owner[id(leaf)].state[leaf] = buffers
        self.iteration = int(header["iteration"])
