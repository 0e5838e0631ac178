"""What the benchmarks share: options, noise in place of videos, clocks that wait for the device, its best rates, peaks.

Only ratios within one run mean something, as a machine does other things at other times; every share is that of a
bound measured in the same run, in turns with what it bounds: the best rate that any turn has shown.
"""

import argparse
import os
import re
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

from david.data.clips import Clips
from david.partition import action_set
from david.runs.parameters import number
from david.runs.records import made_on
from david.runs.settings import Settings
from david.support.costs import peak_bytes, reset_peak
from david.support.files import write_json
from david.support.values import argument, known_device

RECORDS = Path(__file__).parent / "records"
CPU = torch.device("cpu")


def options(doc: str, arguments: list[str] | None, **numbers: int) -> argparse.Namespace:
    """The options of a benchmark: those of all, and ``numbers``, name -> default; a tuple takes several.

    ``device`` is a torch.device.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = argument(lambda name: torch.device(known_device(name)), "cpu")
    width = argument(lambda factor: number(factor, above=True), 0.25, float)
    parser.add_argument(
        "--out", type=Path, help="the JSON file to write (default: benchmarks/records/NAME-DEVICE.json)"
    )
    parser.add_argument("--device", type=place, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the real clips' pass (default: float32; bfloat16 on a GPU)",
    )
    parser.add_argument("--width", type=width, default=0.25, help="of the network (default: %(default)s)")
    for name, value in numbers.items():
        several = {"nargs": "+"} if isinstance(value, tuple) else {}
        shown = " ".join(map(str, value)) if several else value
        least = 0 if value == 0 else 1
        whole = argument(lambda count, least=least: number(count, least), shown, int)
        parser.add_argument(f"--{name}", type=whole, default=value, help=f"(default: {shown})", **several)
    found = parser.parse_args(arguments)
    # Few processors multiply bfloat16 faster than float32; GPUs do.
    found.precision = found.precision or ("bfloat16" if found.device.type == "cuda" else "float32")
    return found


def settings_of(*, frames: int, size: int, width: float, clips: int, precision: str, **changes) -> Settings:
    """Settings of the paper but for these; ``clips`` real ones a class and iteration."""
    shape = {"frames": frames, "size": size, "width": width}
    return Settings().replace(**shape, distill_batch_real=clips, distill_precision=precision, **changes)


def load() -> float:
    """The system's load now; that before all of them, if several benchmarks run in a row (``DAVID_LOAD``)."""
    return float(os.environ.get("DAVID_LOAD") or os.getloadavg()[0])


def noise_clips(classes: int, clips: int, frames: int, size: int, device: torch.device = CPU) -> Clips:
    """Random pixels in place of a training set: the arithmetic does not look at them."""
    pixels = torch.randint(256, (classes * clips, frames, size, size, 3), dtype=torch.uint8, device=device)
    labels = np.repeat(np.arange(classes), clips)
    names = np.array([f"clip {i}" for i in range(len(labels))])
    titles = [f"class {c}" for c in range(classes)]
    return Clips(pixels, np.arange(len(labels)), labels, titles, names, names, flip=True, fingerprint="noise")


def policy_of(method: str, classes: int, frames: int) -> torch.Tensor:
    """L of every class, int64 (classes,): "dm" has L = F; of "david" every L takes its turn, as it may learn any."""
    lengths = (frames,) if method == "dm" else action_set(frames)
    return torch.tensor([lengths[c % len(lengths)] for c in range(classes)])


def seconds(run, device: torch.device) -> float:
    """One call, until the device is done with it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def rates(device: torch.device, *precisions: str, size: int | None = None) -> dict[str, float]:
    """What the device can do at best: FLOP/s of matrix products by precision, bytes/s of a copy (read and written).

    On a GPU "float32" is TF32, the fastest in which convolutions of float32 numbers may multiply there.
    """
    size, found = size or (8192 if device.type == "cuda" else 2048), {}
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    for name in precisions:
        a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, name)) for _ in range(2))
        found[name] = 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(5))  # noqa: B023
    torch.backends.cuda.matmul.allow_tf32 = before
    # Written before it is timed: memory that was never written to is not there yet.
    block = torch.ones((1024 if device.type == "cuda" else 64) * 2**20, dtype=torch.uint8, device=device)
    target = block.clone()
    found["copy"] = 2 * block.numel() / min(seconds(lambda: target.copy_(block), device) for _ in range(5))
    return found


def best_of(found: list[dict[str, float]]) -> dict[str, float]:
    """The best of the ``rates`` found in a run, name by name: what the device has shown that it can do."""
    return {name: max(rate[name] for rate in found) for name in found[0]}


def least_seconds(work: dict[str, float], best: dict[str, float]) -> float:
    """How long ``work`` takes at the ``best`` rates, of the same names: FLOP by precision, or bytes copied."""
    return sum(amount / best[name] for name, amount in work.items())


def in_turns(runners: dict, repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every call: all ``runners`` take turns, so that other work strikes them alike; the first warms up."""
    times = {name: [] for name in runners}
    for turn in range(repeats + 1):
        for name, run in runners.items():
            spent = seconds(run, device)
            if turn:
                times[name].append(spent)
    return times


def ratio(some: list[float], other: list[float]) -> float:
    """The median over turns of one's seconds over the other's."""
    return median(a / b for a, b in zip(some, other, strict=True))


def anonymous(pid: int | str = "self") -> int:
    """Bytes of anonymous memory that a process holds now; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


class Peak:
    """Within it, the most memory over what was held before: on a GPU what torch allocates, else what Linux tells.

    Attributes:
        own: bytes; of this process, anonymous memory alone: file pages are given up when memory is wanted.
        child: bytes, of the greatest of its decoding workers.
    """

    def __init__(self, device: torch.device = CPU):
        self.device, self.own, self.child, self.over = device, 0, 0, threading.Event()

    def __enter__(self):
        if self.device.type == "cuda":
            reset_peak(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.before = anonymous()
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
        return self

    def watch(self) -> None:
        """Look every few milliseconds."""
        while not self.over.wait(0.005):
            self.own = max(self.own, anonymous() - self.before)
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with suppress(OSError):
                    if b"david.data.workers" in Path(f"/proc/{child}/cmdline").read_bytes():
                        self.child = max(self.child, anonymous(child))

    def __exit__(self, *_):
        if self.device.type == "cuda":
            self.own = peak_bytes(self.device) - self.before
        else:
            self.over.set()
            self.thread.join()


def apart(function, *arguments, environment: dict[str, str] | None = None, **named):
    """What `function` returns in a new process, with some more environment variables."""
    before = dict(os.environ)
    os.environ |= environment or {}
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(function, *arguments, **named).result()
    finally:
        os.environ.clear()
        os.environ |= before


def short_name(device: torch.device | str) -> str:
    """ "cpu", or a GPU's model, lower case: "NVIDIA H100 80GB HBM3" is "h100". A string is a GPU's full name."""
    if isinstance(device, torch.device):
        if device.type != "cuda":
            return device.type
        device = torch.cuda.get_device_name(device)
    words = [word for word in re.split(r"[ -]", device.lower()) if word not in ("nvidia", "geforce", "tesla")]
    return "-".join(takewhile(lambda word: not re.search(r"gb|hbm|pcie|sxm|nvl", word), words))


@contextmanager
def numerics(*, tf32: bool, benchmark: bool = False, compiled: bool = False, deterministic: bool = False):
    """Within it a GPU multiplies float32 in TF32 or not, cuDNN tries its algorithms or not, torch compiles or not.

    Args:
        deterministic: cuDNN takes no algorithm whose sums may come in another order from one call to the next.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = tf32, tf32, benchmark, deterministic
    try:
        with patch.dict(os.environ, DAVID_COMPILE=str(int(compiled))):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def write(name: str, out: Path | None, device: torch.device, load: float, content: dict) -> Path:
    """Write a benchmark's record, to ``out`` or among ``RECORDS``, with how and on what it was made.

    Args:
        load: the system's load before the run: 0 is an idle machine, and the figures of another are worth less.
    """
    path = out or RECORDS / f"{name}-{short_name(device)}.json"
    write_json(path, {"benchmark": name, **content, "load_before": load, "made": made_on(device)})
    return path


class Record:
    """A record that is written again after every measurement, so that a run cut short keeps what it has.

    Args:
        name, device: as ``write`` takes them.
        what: says what is measured.
        folder: where to write it.
        limit: seconds; later than that no measurement begins.

    Attributes:
        content: group -> name -> what was measured; "left out" names what there was no time for, "failed" the errors.
        lines: the result in words.
    """

    def __init__(self, name: str, what: str, *, folder: Path, device: torch.device, limit: float):
        self.name, self.device, self.load = name, device, load()
        self.path = folder / f"{name}-{short_name(device)}.json"
        self.started, self.limit, self.lines = time.perf_counter(), limit, []
        self.content = {"what": what, "limit_seconds": limit}

    def left(self) -> float:
        """Seconds until the limit."""
        return self.started + self.limit - time.perf_counter()

    def add(self, group: str, name: str, found) -> None:
        """Write the record with one more measurement; ValueError for NaN, which then is not in it."""
        self.content.setdefault(group, {})[name] = found
        self.content["seconds"] = round(time.perf_counter() - self.started, 1)
        try:
            write(self.name, self.path, self.device, self.load, self.content)
        except ValueError:
            del self.content[group][name]
            raise

    def measure(self, group: str, name: str, function, *arguments, needs: float = 0.0):
        """What ``function`` returns, now also in the record; None if it failed or fewer seconds than it needs are left.

        Whatever goes wrong, a machine lent for minutes is to measure the rest.
        """
        if self.left() <= needs:
            self.add("left out", f"{group}: {name}", f"{max(self.left(), 0):.0f} s were left, {needs:.0f} s needed")
            return None
        try:
            found = function(*arguments)
            self.add(group, name, found)
        except Exception as error:
            self.fail(f"{group}: {name}", error)
            return None
        return found

    def fail(self, name: str, error: Exception) -> None:
        """Write down an error and where it arose."""
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        text = f"{type(error).__name__}: {str(error)[:500]} ({', '.join(places[-6:])})"
        print(f"{self.name}: {name} failed: {text}", flush=True)
        self.add("failed", name, text)

    def tell(self, line: str) -> None:
        """Print a line of the result, and keep it for the end."""
        print(f"[{time.perf_counter() - self.started:4.0f} s] {line}", flush=True)
        self.lines.append(line)
