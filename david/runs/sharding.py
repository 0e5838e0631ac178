"""One run on several processes: each of the ranks that ``torchrun`` starts distils a share of the classes.

The losses of different classes touch different pixels, and one random network, drawn from seed and iteration, serves
them all. So ranks need not talk while they distil: only an episode's distances and the finished videos are put
together. Without torchrun there is one rank, which has all classes, and nothing here communicates.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# A rank may wait for another for as long as a method takes that is not sharded. When a rank dies, torchrun ends
# the others, so no time-out is needed for that.
PATIENCE = timedelta(days=30)


@contextmanager
def group(device: torch.device | str | None = None) -> Iterator[torch.device | str | None]:
    """Join the ranks that ``torchrun`` started for the time of a ``with`` block; without torchrun do nothing.

    What ranks exchange is small and on the host, so gloo's; tensors on GPUs would go by NCCL. Progress bars are
    the first rank's alone.

    Args:
        device: "cuda" is the GPU of this rank's number on its machine; by default that, if there are GPUs.

    Yields:
        the device.

    Raises:
        ValueError: more ranks on this machine than GPUs.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield device
        return
    backend, device = "gloo", torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise ValueError(f"rank {number} of this machine finds {gpus} GPUs; use torchrun --nproc-per-node={gpus}")
        backend, device = "cpu:gloo,cuda:nccl", torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=PATIENCE)
    if rank():
        os.environ["DAVID_PROGRESS"] = "0"
    yield device
    dist.destroy_process_group()  # not after an error: the other ranks may be waiting for this one


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if size() > 1 else 0


def share(count: int, of: int | None = None) -> range:
    """Which of ``count`` classes are this rank's, or those of rank ``of``: consecutive, and as many as of any other.

    Raises:
        ValueError: fewer classes than ranks.
    """
    if count < size():
        raise ValueError(f"{size()} processes have only {count} classes to share; start at most {count}")
    of = rank() if of is None else of
    return range(count * of // size(), count * (of + 1) // size())


def gather(part: torch.Tensor, count: int) -> torch.Tensor:
    """The classes of all ranks, in order, on every rank.

    Args:
        part: (len(share(count)), ...), this rank's.
        count: M.

    Returns:
        (count, ...), on the device of ``part``; with one rank ``part`` itself.
    """
    if size() == 1:
        return part
    whole = part.new_empty((count, *part.shape[1:]))
    for source in range(size()):
        classes = share(count, source)
        rows = whole[classes.start : classes.stop]
        if source == rank():
            rows.copy_(part)
        dist.broadcast(rows, source)
    return whole


def spread(count: int, function: Callable[[int], object]) -> list:
    """``[function(0), ..., function(count - 1)]`` on every rank, each called on one rank, in turn."""
    mine = {k: function(k) for k in range(rank(), count, size())}
    parts = [mine]
    if size() > 1:
        parts = [None] * size()
        dist.all_gather_object(parts, mine)
    return [parts[k % size()][k] for k in range(count)]


def first(function: Callable[[], object]):
    """``function()`` of the first rank, on every rank."""
    return spread(1, lambda _: function())[0]
