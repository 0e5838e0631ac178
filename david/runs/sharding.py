"""One run on several processes: each of the ranks that ``torchrun`` starts distils a share of the classes.

The losses of different classes touch different pixels, and one random network, drawn from seed and iteration, serves
them all. So ranks need not talk while they distil: only an episode's distances and the finished videos are put
together. Without torchrun there is one rank, which has all classes, and nothing here communicates.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain

import torch
import torch.distributed as dist

from david.sets import DistilledSet

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


def joined(part: DistilledSet, classes: list[str]) -> DistilledSet:
    """One distilled set, on the host of every rank, of the sets that the ranks have made of their shares of classes.

    Args:
        part: this rank's.
        classes: all names.
    """
    count = len(classes)
    # Ranks may differ in where their videos live; by way of the host they can be put together.
    videos, policy = gather(part.videos.cpu(), count), gather(part.policy, count)
    infos = spread(size(), lambda _: part.info)
    info = {}
    if "curve" in part.info:
        info["curve"] = [[look[0][0], sum(loss for _, loss in look)] for look in zip(*(own["curve"] for own in infos))]
    if "sweep" in part.info:
        looks = zip(*(own["sweep"] for own in infos))
        info["sweep"] = [{**look[0], "distance": _side_by_side([own["distance"] for own in look])} for look in looks]
    if "search" in part.info:
        episodes = [_episode(parts) for parts in zip(*(own["search"]["episodes"] for own in infos))]
        info["search"] = part.info["search"] | {"episodes": episodes}
    return DistilledSet(videos, policy, classes, info)


def _side_by_side(parts: tuple[list[list]]) -> list[list]:
    """Lists over L of lists over the ranks' classes -> over all classes."""
    return [list(chain.from_iterable(own)) for own in zip(*parts)]


def _episode(parts: tuple[dict]) -> dict:
    """An episode of all classes, from the ranks' episodes of theirs."""
    seconds = [part["seconds"] for part in parts]
    lists = ("frames_per_segment", "start", "distance", "reward")
    return {
        **{name: list(chain.from_iterable(part[name] for part in parts)) for name in lists},
        "iterations": parts[0]["iterations"],
        **{name: sum(part[name] for part in parts) for name in ("forward", "backward")},
        "seconds": None if None in seconds else max(seconds),
    }
