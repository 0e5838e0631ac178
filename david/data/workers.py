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
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

from david.data import decode
from david.data.identity import images
from david.data.video import DecodeError
from david.support import files

WORKER = (sys.executable, "-m", "david.data.workers")


def decode_all(jobs: Iterable[dict], *, workers: int, timeout: float) -> Iterator[tuple[dict, dict]]:
    """Run every job in one of `workers` processes; yield (job, answer) as they end, in no particular order.

    A job is {"path", "frames", "stride", "size", "start", "out", "offset"}: the clip is written into the
    file `out` at byte `offset`. The answer is {"frames": n, "crc": crc32 of the clip's bytes} or {"error":
    why}, with {"damaged": True} where the file itself is at fault (see `judged`) and not just this try. A worker that
    dies, or takes more than `timeout` seconds over one clip, costs that clip ("error") and is replaced. OSError where
    `out` cannot be written. Leaving the generator early ends the workers.
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
                    answer = json.loads(line) if line else crash(worker)
                elif time.monotonic() >= end:
                    line, answer = "", {"error": f"timed out after {timeout:g} s"}
                else:
                    continue
                if "full" in answer:
                    with files.writing(job["out"]):
                        raise OSError(*answer["full"])
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


def crash(worker: subprocess.Popen) -> dict:
    """The answer of a worker that has closed its output; only an error within the decoder is one of the file."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(1)  # a process closes its files just before it is gone
    code = worker.poll()
    name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
    answer = {"error": f"the decoder crashed ({name})"}
    return answer | {"damaged": True} if name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL") else answer


def judged(decode: Callable, path: str | Path, *arguments):
    """`decode(path, *arguments)`, of a video or frame folder; DecodeError only where the file itself is at fault.

    A disk that is away for a moment, a file that may not be read, or too little memory look like damage to a decoder.
    So a file counts as damaged if all of its bytes can be read and it then fails once more. OSError or MemoryError
    otherwise.
    """
    try:
        return decode(path, *arguments)
    except DecodeError:
        for file in images(Path(path)) if os.path.isdir(path) else [path]:
            with open(file, "rb", buffering=0) as data:
                while data.read(1 << 24):
                    pass
    try:
        return decode(path, *arguments)
    except DecodeError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise


def work() -> None:
    """The worker: a JSON line in, a JSON line out, until its input ends, as it does when the parent dies."""
    for line in sys.stdin:
        job = json.loads(line)
        # A decoder that hangs holds Python's lock: if the parent is gone too, only the kernel can end it.
        signal.alarm(math.ceil(job["timeout"]) + 5)
        try:
            what = (job[name] for name in ("path", "frames", "stride", "size", "start"))
            clip, n = judged(decode.decode_clip, *what)
            data = clip.tobytes()
            answer = {"frames": n, "crc": zlib.crc32(data)}
        except decode.DecodeError as error:
            answer = {"error": error.reason, "damaged": True}
        except (OSError, MemoryError) as error:
            answer = {"error": f"unreadable ({getattr(error, 'strerror', None) or 'no memory'})"}
        else:
            try:
                with open(job["out"], "rb+") as out:
                    out.seek(job["offset"])
                    out.write(data)
            except OSError as error:
                answer = {"full": [error.errno, error.strerror]}
        signal.alarm(0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    work()
