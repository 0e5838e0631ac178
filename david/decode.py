"""From a video file to a clip: which frames (protocol 2.3), exactly those, resized and cropped (2.1).

decord decodes. It opens a fresh reader for every clip, and is asked for frames out of order only where that
is known to be right: of MPEG-4 with B-frames decord 0.6 then returns wrong frames, without an error. Videos
that were unpacked into images are read by Pillow.

`python -m david.decode` is the worker that `decode_all` runs, one process a core: a file that crashes or
hangs the decoder takes only its worker with it. Nothing here imports torch, so that a worker starts in a
moment.
"""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

WORKER = (sys.executable, "-m", "david.decode")
SPARSE = (".mp4", ".webm", ".mkv")  # decord's random access is right in these containers
SPARSE_CODECS = ("h264", "hevc", "vp8", "vp9")  # with these codecs
IMAGE = re.compile(r"(?:img_|image_|frame_?)(\d+)\.(?:jpe?g|png)", re.IGNORECASE)  # of a frame folder


class DecodeError(Exception):
    """`path` cannot give a clip; `reason` says why, in a few words that do not depend on the decoder's."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


def frame_indices(n: int, frames: int, stride: int, start: float | str = "centre") -> np.ndarray:
    """Which of a video's `n` frames make its clip (protocol 2.3): int64 (frames,), not decreasing, in [0, n).

    Every `stride`-th frame; every (n // frames)-th where the video is too short for that; and where it has
    fewer than `frames`, each is repeated about equally often. `start` places the window: "centre", or u in
    [0, 1), which is uniform over the possible places for a uniform u.
    """
    if n < 1 or frames < 1 or stride < 1:
        raise ValueError(f"n={n}, frames={frames}, stride={stride}: each must be at least 1")
    if start != "centre" and not 0 <= float(start) < 1:
        raise ValueError(f"start={start!r}: 'centre' or a number in [0, 1)")
    if n < frames:
        return np.arange(frames, dtype=np.int64) * n // frames
    step = stride if n >= frames * stride else n // frames
    slack = n - 1 - (frames - 1) * step  # the last possible first frame
    first = slack // 2 if start == "centre" else int(float(start) * (slack + 1))
    return first + step * np.arange(frames, dtype=np.int64)


def scaled_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) before the centre crop to `size`: 160x120 for 112 (protocol 2.1), whatever the source.

    A square source becomes size x size directly: its borders were cut, or its sides squeezed, before it came
    here.
    """
    return (size, size) if width == height else (round(160 * size / 112), round(120 * size / 112))


def decode_clip(
    path: str | Path, frames: int, stride: int, size: int, start: float | str = "centre"
) -> tuple[np.ndarray, int]:
    """One clip of the video `path`: (uint8 (frames, size, size, 3) RGB, number of frames of the whole video).

    `path` may be a frame folder. DecodeError where it is absent, empty, not a video, damaged, or has fewer frames
    than it says.
    """
    clip, n = read_chosen(path, lambda n: frame_indices(n, frames, stride, start))
    return resize_and_crop(clip, size), n


def decode_frames(path: str | Path, size: int, most: int = 256) -> np.ndarray:
    """The whole video `path`: uint8 (min(n, most), size, size, 3) RGB, in order.

    Of a video of more than `most` frames, the middle frame of each of `most` equal parts: that bounds memory, as
    this many frames are held at their source's size. DecodeError as `decode_clip`.
    """

    def middles(n: int) -> np.ndarray:
        count = min(n, most)
        return (2 * np.arange(count, dtype=np.int64) + 1) * n // (2 * count)  # every frame if count = n

    return resize_and_crop(read_chosen(path, middles)[0], size)


def read_chosen(path: str | Path, choose: Callable[[int], np.ndarray]) -> tuple[np.ndarray, int]:
    """(the frames `choose(n)` of a video or frame folder, uint8 (k, H, W, 3) RGB; n, the number of its frames)."""
    if os.path.isdir(path):
        names = image_names(path)
        return read_images(path, names, choose(len(names))), len(names)
    reader, codec = open_whole(path)
    n = len(reader)
    return read_frames(reader, path, choose(n), codec), n


def image_names(folder: str | Path) -> list[str]:
    """The images of a frame folder in the order of their numbers, which start at 1 or 0 and have no gap."""
    numbered = sorted((int(m[1]), m[0]) for m in map(IMAGE.fullmatch, os.listdir(folder)) if m)
    if not numbered:
        raise DecodeError(folder, "a directory without images named like frame000001.jpg")
    for wanted, (number, name) in enumerate(numbered, min(numbered[0][0], 1)):
        if number != wanted:
            raise DecodeError(
                folder, f"image number {wanted} is missing" if number > wanted else f"{name} is there twice"
            )
    return [name for _, name in numbered]


def read_images(folder: str | Path, names: list[str], indices: np.ndarray) -> np.ndarray:
    """The images `names[i]` for i in `indices` (repeats allowed): uint8 (len(indices), H, W, 3)."""
    from PIL import Image

    pictures = {}
    for i in set(indices.tolist()):
        try:
            with Image.open(os.path.join(folder, names[i])) as image:
                pictures[i] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PNG's damage is a SyntaxError
            raise DecodeError(folder, f"damaged: {names[i]} cannot be read") from error
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise DecodeError(folder, "damaged: its images are not of one size")
    return np.stack([pictures[i] for i in indices.tolist()])


def open_whole(path: str | Path):
    """(fresh decord reader, codec) of a video that has all the frames that its header promises, or a DecodeError."""
    codec, promised = probe(path)
    with decoding(path):
        reader = open_reader(path)
        n = len(reader)
    if n == 0:
        raise DecodeError(path, "no frames")
    if n < promised:
        raise DecodeError(path, f"truncated: {n} frames where the header promises {promised} or more")
    return reader, codec


def probe(path: str | Path) -> tuple[str, int]:
    """(codec, fewest frames that a whole file would have), from the container's header alone."""
    import av

    try:
        if os.stat(path).st_size == 0:
            raise DecodeError(path, "empty file")
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise DecodeError(path, "no video stream")
            stream = container.streams.video[0]
            # AVI and MP4 state the number of frames; whole files may be one or two off.
            least = 0.98 * stream.frames - 1
            if not stream.frames:  # WebM and MKV say only how long, sound included
                least = 0.75 * (container.duration or 0) / av.time_base * (stream.average_rate or 0)
            return stream.codec_context.name, math.floor(least)
    except (OSError, av.FFmpegError) as error:
        raise DecodeError(path, f"unreadable ({error.strerror})") from error


@contextlib.contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Turn whatever decord raises into a DecodeError. (Its own error type derives from Exception alone.)"""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(path, "damaged: decord cannot decode it") from error


def open_reader(path: str | Path):
    """A fresh decord reader of whole frames, in one thread.

    decord does not scale here: at some widths (16, 24, 48, 72) it miscounts the channels of what it has
    scaled.
    """
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(os.fspath(path), num_threads=1)


def read_frames(reader, path: str | Path, indices: np.ndarray, codec: str = "") -> np.ndarray:
    """The frames `indices` (ascending, repeats allowed) of a fresh reader: uint8 (len(indices), H, W, 3)."""
    with decoding(path):
        if Path(path).suffix.lower() in SPARSE and codec in SPARSE_CODECS:
            return reader.get_batch(indices).asnumpy()
        wanted, kept = set(indices.tolist()), {}
        for i in range(int(indices[-1]) + 1):
            try:
                frame = reader.next()
            except StopIteration:
                raise DecodeError(path, f"truncated: frame {i} cannot be decoded") from None
            if i in wanted:
                kept[i] = frame.asnumpy()
        clip = np.stack([kept[i] for i in indices.tolist()])
    if clip.shape[-1] != 3:  # the miscount of open_reader, in a video that is itself so small
        raise DecodeError(path, f"decord cannot decode videos of {clip.shape[2]} pixels' width")
    return clip


def resize_and_crop(clip: np.ndarray, size: int) -> np.ndarray:
    """uint8 (F, h, w, 3) -> (F, size, size, 3): bicubic to `scaled_size`, then the centre. Protocol 2.1."""
    import av

    width, height = scaled_size(clip.shape[2], clip.shape[1], size)
    if clip.shape[1:3] != (height, width):
        scaler = av.video.reformatter.VideoReformatter()
        pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in clip)
        scaled = (scaler.reformat(p, width, height, "rgb24", interpolation="BICUBIC") for p in pictures)
        clip = np.stack([picture.to_ndarray() for picture in scaled])
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(clip[:, top : top + size, left : left + size])


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
    home = str(Path(__file__).resolve().parent.parent)
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
            clip, n = decode_clip(job["path"], job["frames"], job["stride"], job["size"], job["start"])
            data = clip.tobytes()
            answer = {"frames": n, "crc": zlib.crc32(data)}
        except DecodeError as error:
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
