"""The records of a table made by several processes at once: joblib's on this machine, or the workers of a Dask cluster.

One task is one record, and both engines schedule the tasks. What several runs need (decoded clips, a teacher, experts)
is made by the first that gets to it, under a lock, while the others wait. A run whose worker is lost is given to
another worker by Dask; it continues where the lost one was if both see the store's folder.
"""

import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path

import joblib
import torch

from david.support.files import lock_one, make_folder, write_bytes
from david.support.progress import track

# Dropout draws from a random state that all threads of a process share (a Dask worker may be such a thread).
ALONE = threading.Lock()


def make_records(experiment, runs: list[tuple[str, int, int]], *, jobs: int | None = None, client=None) -> None:
    """Make records and put them into the experiment's store.

    Args:
        experiment: a ``david.Experiment``; every worker makes its own of the same arguments, so data and
            caches have to be found under the same paths. The store's folder may be the worker's alone: then the
            record and its distilled set are sent here.
        runs: method, IPC and seed of each.
        jobs: how many processes of this machine, as joblib counts them: -1 is one a core.
        client: a ``dask.distributed.Client`` instead; its workers have one thread each.

    Raises:
        ValueError: a worker of several threads.
        dask.distributed.KilledWorker: a run that lost several workers (Dask's ``allowed-failures``).
    """
    folder = make_folder(experiment.store.folder.absolute() / "work")
    # Whoever sees this file has the store before it and need not send what it made.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".here-") as here:
        arguments = [(experiment, *run, here.name) for run in runs]
        done = _on_cluster(client, arguments) if client else _on_this_machine(jobs, arguments)
        with closing(done):  # after Ctrl-C a notebook keeps this frame for its traceback, and would keep the runs too
            for record, distilled in track(done, total=len(runs), desc="records", unit="record"):
                path = experiment.store.path(record)
                if distilled is not None:
                    write_bytes(path.with_suffix(".safetensors"), distilled)
                if not path.exists():
                    experiment.store.add({k: v for k, v in record.items() if k not in ("path", "published")})


def _on_this_machine(jobs: int, arguments: list[tuple]) -> Iterator[tuple[dict, bytes | None]]:
    run = joblib.Parallel(jobs, backend="loky", batch_size=1, pre_dispatch="all", return_as="generator_unordered")
    return run(joblib.delayed(make_record)(*these) for these in arguments)


def _on_cluster(client, arguments: list[tuple]) -> Iterator[tuple[dict, bytes | None]]:
    from dask.distributed import as_completed  # optional: the extra "cluster"

    token = secrets.token_hex(4)  # else Dask would take a later run of the same name for this one
    futures = []
    for experiment, method, ipc, seed, here in arguments:
        key = f"{method} IPC {ipc} seed {seed} {token}"  # what Dask's dashboard shows
        futures.append(client.submit(_on_worker, experiment, method, ipc, seed, here, key=key))
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        client.cancel(futures)  # after an error or Ctrl-C: those that have not begun


def _on_worker(*arguments) -> tuple[dict, bytes | None]:
    from dask.distributed import get_worker

    threads = get_worker().state.nthreads
    if threads > 1:
        raise ValueError(f"a Dask worker has {threads} threads, but makes one record at a time: threads_per_worker=1")
    return make_record(*arguments)


def make_record(experiment, method: str, ipc: int, seed: int, here: str) -> tuple[dict, bytes | None]:
    """One record, in a process of its own, which computes on one thread or on one GPU.

    Returns:
        the record, and the file of its distilled set where there is one and the file ``here`` is not seen.
    """
    experiment = copy(experiment)  # which is to compute elsewhere than the original
    with ALONE, one_thread(), own_device(experiment.device) as experiment.device:
        record = experiment.run(method, ipc=ipc, seed=seed)
    distilled = record["path"].with_suffix(".safetensors")
    return record, None if Path(here).exists() or not distilled.exists() else distilled.read_bytes()


@contextmanager
def one_thread(silent: bool = True) -> Iterator[None]:
    """Compute on one thread and, if ``silent``, show no bars, as one of several processes; then all is as before."""
    threads, bars = torch.get_num_threads(), os.environ.get("DAVID_PROGRESS")
    torch.set_num_threads(1)
    if silent:
        os.environ["DAVID_PROGRESS"] = "0"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars is None:
            os.environ.pop("DAVID_PROGRESS", None)
        else:
            os.environ["DAVID_PROGRESS"] = bars


@contextmanager
def own_device(device: torch.device) -> Iterator[torch.device]:
    """The device itself, or for "cuda" a GPU of this machine on which no other such block computes; waits for one."""
    if device != torch.device("cuda"):
        yield device
        return
    gpus = [torch.cuda.get_device_properties(number).uuid for number in range(torch.cuda.device_count())]
    if not gpus:
        raise ValueError("device 'cuda' was asked for, but no GPU is to be seen here; ask for 'cpu'")
    folder = Path(tempfile.gettempdir())
    with lock_one([folder / f"david-{os.getuid()}-{gpu}.lock" for gpu in gpus]) as number, torch.cuda.device(number):
        yield torch.device("cuda", number)
