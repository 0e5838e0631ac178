"""How fast videos become a cache of clips, and what memory building and reading one takes.

    python benchmarks/decode.py --data FOLDER

Speed: the videos under `--data` (UCF101's AVIs, say) are repeated under other names until there are `--clips`, and
become clips in three ways: by PyAV alone in this process, each video decoded in order up to the last frame that is
needed; and by the cache with one worker and with two. Every round runs all three, so that what else the machine does
strikes them alike; ratios are taken within a round, and the median round is reported. The time of UCF101 and
Kinetics-400 is that of as many videos like those under `--data`.

Memory: caches of two sizes are built of small videos, and read in random batches, each in a process of its own. What
counts is anonymous memory, over what the process held before, as Linux tells it in /proc. The cache's own pages do not
count: they are the system's copy of the file, and given up when memory is wanted.
"""

import argparse
import itertools
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import measure
import numpy as np
from av.video.reformatter import VideoReformatter

from david.data.cache import cores, decoded, sampling_of, window_start
from david.data.clips import open_clips
from david.data.decode import frame_indices, resize_and_crop
from david.data.readers import Dataset, Video
from david.data.readers.core import SUFFIXES
from david.data.readers.motions import encode
from david.data.video import survey
from david.runs.parameters import number, there
from david.support.progress import about
from david.support.values import argument

FULL = {"ucf101": 13_320, "kinetics400": 241_000 + 20_000}  # training and test videos
BATCHES, BATCH = 100, 64  # read from a cache


def repeated(paths: list[Path], count: int) -> Dataset:
    """A dataset of `count` videos, which are those of `paths` under one name after another."""
    videos = [Video(path, f"{path.stem}-{i}", 0, str(i)) for i, path in zip(range(count), itertools.cycle(paths))]
    return Dataset("benchmark", ("any",), tuple(videos), (), flip=False)


def plain(jobs: list[tuple[Path, np.ndarray]], size: int) -> None:
    """Decode with PyAV as its documentation does, in order, up to the last frame wanted; resize and crop as we do."""
    for path, wanted in jobs:
        chosen, converter, pictures = set(wanted.tolist()), VideoReformatter(), []
        with av.open(str(path)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i in chosen:
                    pictures.append(converter.reformat(frame, format="rgb24").to_ndarray())
                if i == wanted[-1]:
                    break
        resize_and_crop(pictures, size)


def speed(dataset: Dataset, shape: dict, rounds: int) -> dict:
    """Clips a second of every round, in the three ways, and the ratios of the median round."""
    counts = {path: len(survey(path).times) for path in {video.path for video in dataset.train}}
    shapes = shape["frames"], shape["stride"]
    jobs = [(v.path, frame_indices(counts[v.path], *shapes, window_start(0, v.name))) for v in dataset.train]

    def build(workers: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _, skipped = decoded(dataset, "train", sampling_of("train", **shape, seed=0), workers=workers, cache=folder)
        if skipped:
            raise SystemExit(f"{skipped[0]['path']}: {skipped[0]['reason']}: benchmark whole videos only")

    ways = {"plain": lambda: plain(jobs, shape["size"]), "1 worker": lambda: build(1), "2 workers": lambda: build(2)}
    rates, seconds = {way: [] for way in ways}, {way: [] for way in ways}
    for turn in range(rounds):
        for way in np.roll(list(ways), turn):
            started, processor = time.perf_counter(), sum(os.times()[:4])
            ways[way]()
            rates[way].append(len(jobs) / (time.perf_counter() - started))
            seconds[way].append((sum(os.times()[:4]) - processor) / len(jobs))
    return {
        "clips": len(jobs),
        "videos": len(counts),
        "frames_of_a_video": median(counts.values()),
        "clips_per_second": rates,
        "processor_seconds_per_clip": seconds,
        "ratio_to_plain": {
            way: median(a / b for a, b in zip(rates[way], rates["plain"])) for way in ways if way != "plain"
        },
        "clips_per_second_and_core": {
            "1 worker": median(rates["1 worker"]),
            "2 workers": median(rates["2 workers"]) / 2,
        },
        "projected_seconds_with_2_workers": {name: n / median(rates["2 workers"]) for name, n in FULL.items()},
    }


def memory(count: int, shape: dict) -> dict:
    """Peak memory of building a cache of `count` clips, and of reading random batches of it."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = np.random.default_rng(0).integers(0, 256, (40, 72, 96, 3), dtype=np.uint8)
        paths = [Path(folder) / f"{i}.avi" for i in range(4)]
        for i, path in enumerate(paths):
            encode(path, np.roll(pictures, i, axis=0))
        dataset, rng = repeated(paths, count), np.random.default_rng(0)
        with measure.Peak() as build:
            clips = open_clips(dataset, "train", **shape, workers=2, cache=folder)
        clips.batch(np.arange(BATCH) % count)  # what torch takes once
        with measure.Peak() as read:
            for _ in range(BATCHES):
                clips.batch(rng.integers(0, count, BATCH))
        return {
            "clips": count,
            "cache_bytes": clips.videos.nbytes,
            "build_peak_bytes": build.own,
            "worker_peak_bytes": build.child,
            "read_peak_bytes": read.own,
        }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a small table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data, whole = argument(there, "/data", Path), argument(lambda count: number(count, 1), 8, int)
    parser.add_argument("--data", type=data, required=True, help="a folder of videos, searched to any depth")
    parser.add_argument("--out", type=Path, help="the JSON file to write (default: benchmarks/records/decode-cpu.json)")
    parser.add_argument("--clips", type=whole, default=480, help="of the speed test (default: %(default)s)")
    parser.add_argument("--rounds", type=whole, default=5, help="of the speed test (default: %(default)s)")
    parser.add_argument("--sizes", type=whole, nargs=2, default=(200, 2000), help="of the caches (default: 200 2000)")
    for name, value in (("frames", 8), ("stride", 4), ("size", 64)):
        parser.add_argument(f"--{name}", type=whole, default=value, help="of a clip (default: %(default)s)")
    options = parser.parse_args(arguments)
    shape = {name: getattr(options, name) for name in ("frames", "stride", "size")}
    paths = sorted(path for path in options.data.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"no videos under {options.data}")
    load = measure.load()
    fast = speed(repeated(paths, options.clips), shape, options.rounds)
    held = [measure.apart(memory, size, shape) for size in options.sizes]
    fixed = {"processor": platform.machine(), "cores": cores(), "av": av.__version__}
    result = {"what": "videos become a cache of clips", **fixed, "shape": shape, "speed": fast, "memory": held}
    measure.write("decode", options.out, measure.CPU, load, result)

    print(f"{fast['clips']} clips, {shape['frames']} frames, {shape['size']} pixels; median of {options.rounds} rounds")
    for way, rates in fast["clips_per_second"].items():
        busy = 1000 * median(fast["processor_seconds_per_clip"][way])
        ratio = fast["ratio_to_plain"].get(way, 1)
        print(f"  {way:9} {median(rates):7.1f} clips/s, {ratio:4.2f} x plain, {busy:5.1f} ms of a processor a clip")
    for name, seconds in fast["projected_seconds_with_2_workers"].items():
        print(f"  {name}, {FULL[name]:,} videos like these, 2 workers: {about(seconds)}")
    for row in held:
        parts = ", ".join(f"{part} {row[f'{part}_peak_bytes'] / 1e6:.1f}" for part in ("build", "worker", "read"))
        print(f"  {row['clips']:5} clips, {row['cache_bytes'] / 1e6:.0f} MB on disk: peak MB of memory: {parts}")


if __name__ == "__main__":
    main()
