"""Many clips at once: decoder processes, one a core, and what becomes of the videos that they fail on.

`python -m david.data.workers` is the worker that `decode_all` runs: a file that crashes or hangs the decoder takes only
its worker with it. Nothing that it imports imports torch, so that it starts in a moment.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

from david.data import decode

WORKER = (sys.executable, "-m", "david.data.workers")


def decode_all(jobs: Iterable[dict], *, workers: int, timeout: float) -> Iterator[tuple[dict, dict]]:
    """Run every job in one of `workers` processes; yield (job, answer) as they end, in no particular order.

    A job is {"path", "frames", "stride", "size", "start", "out", "offset"}: the clip is written into the
    file `out` at byte `offset`. The answer is {"frames": n, "crc": crc32 of the clip's bytes} or {"error":
    why}. A worker that dies, or takes more than `timeout` seconds over one clip, costs that clip ("error")
    and is replaced. OSError where `out` cannot be written. Leaving the generator early ends the workers.
    """
    queue = iter(jobs)
    busy: dict[subprocess.Popen, tuple[dict, float]] = {}  # worker -> its job, and when its time is up

    def feed(worker: subprocess.Popen | None = None) -> None:
        job = next(queue, None)
        if job is not None:
            worker = worker or start_worker()
            busy[worker] = job, time.monotonic() + timeout
            with contextlib.suppress(BrokenPipeError):  # it has died, as the end of its answers will tell
                worker.stdin.write(json.dumps(job | {"timeout": timeout}) + "\n")
                worker.stdin.flush()
        elif worker:
            stop_worker(worker)

    try:
        for _ in range(workers):
            feed()
        while busy:
            patience = min(end for _, end in busy.values()) - time.monotonic()
            ready = wait([worker.stdout for worker in busy], max(0.0, patience))
            for worker, (job, end) in list(busy.items()):
                if worker.stdout in ready:
                    line = worker.stdout.readline()
                    answer = json.loads(line) if line else {"error": f"the decoder crashed ({cause(worker)})"}
                elif time.monotonic() >= end:
                    line, answer = "", {"error": f"timed out after {timeout:g} s"}
                else:
                    continue
                if "fatal" in answer:
                    raise OSError(f"cannot write {job['out']}: {answer['fatal']}")
                del busy[worker]
                if line:
                    feed(worker)
                else:
                    stop_worker(worker)
                    feed()
                yield job, answer
    finally:
        for worker in busy:
            stop_worker(worker)


def start_worker() -> subprocess.Popen:
    """A worker in a session of its own, so that Ctrl-C reaches only the parent, which then ends it."""
    home = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        WORKER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def stop_worker(worker: subprocess.Popen) -> None:
    """End a worker now, whatever it is doing: what it writes counts for nothing before its answer is read."""
    worker.kill()
    worker.wait()
    worker.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()


def cause(worker: subprocess.Popen) -> str:
    """What ended a worker that has closed its output, in words."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(1)  # a process closes its files just before it is gone
    code = worker.poll()
    return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"


def work() -> None:
    """The worker: a JSON line in, a JSON line out, until its input ends, as it does when the parent dies."""
    for line in sys.stdin:
        job = json.loads(line)
        # A decoder that hangs holds Python's lock: if the parent is gone too, only the kernel can end it.
        signal.alarm(math.ceil(job["timeout"]) + 5)
        try:
            clip, n = decode.decode_clip(job["path"], job["frames"], job["stride"], job["size"], job["start"])
            data = clip.tobytes()
            answer = {"frames": n, "crc": zlib.crc32(data)}
        except decode.DecodeError as error:
            answer = {"error": error.reason}
        else:
            try:
                with open(job["out"], "rb+", buffering=0) as out:
                    if os.pwrite(out.fileno(), data, job["offset"]) != len(data):
                        raise OSError("the disk is full")
            except OSError as error:
                answer = {"fatal": str(error)}
        signal.alarm(0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    work()
