"""The cache of decoded clips: one clip of every video of a split, decoded exactly once, whatever interrupts it.

It is one folder a split, `<cache>/clips/<dataset>-<split>-<key>/`; the key covers everything that changes a pixel. It
holds `clips.u8` (raw uint8, one row a video), `journal.jsonl` (one line a finished row, so that an interrupted build
goes on where it was), and at the end `report.json` and `report.txt` (what was left out and why) and `meta.json`, whose
presence says that the cache is complete. It can all be made again: delete it at will.

A run fills what it needs by itself. To do it before, say over night: `python -m david cache ucf101 ~/UCF-101`.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import time
import zlib
from pathlib import Path

import numpy as np

from david.data.identity import sources
from david.data.readers import Dataset, digest
from david.data.workers import decode_all
from david.support import files
from david.support.progress import about, track

FORMAT = 3  # raise it when the meaning of the files changes
FIRST = 8  # clips a worker, after which the time that the rest will take is told


def decoded(
    dataset: Dataset,
    split: str,
    sampling: dict,
    *,
    workers: int | None = None,
    timeout: float = 60.0,
    cache: str | Path | None = None,
) -> tuple[Path, list[dict]]:
    """(the folder of a split's cache; row, name, path and reason of each video left out of it, and whether damaged).

    sampling: frames, stride, size, and seed (None: centred windows). The rest as in `clips.open_clips`. What is not
    there yet is decoded first. That a file is damaged is kept; any other reason (it took too long, it may not be read,
    its disk was away) is none of the file's, so that the next call tries it again.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: at least 1")
    names = [video.name for video in getattr(dataset, split)]
    key = digest(FORMAT, decoder(), sampling, list(zip(names, sources(dataset, split, dated=True))))
    place = re.sub(r"[^\w.-]", "-", dataset.name)[:40]  # a name is anything, a folder is not
    folder = Path(cache or files.cache_folder()).expanduser() / "clips" / f"{place}-{split}-{key}"
    if not (folder / "meta.json").exists():
        with files.locked(folder / "building.lock"):
            if not (folder / "meta.json").exists():  # another process may just have finished it
                return folder, build(folder, dataset, split, sampling, workers or cores(), timeout)
    return folder, files.read_json(folder / "report.json")


def decode_report(
    dataset: Dataset, split: str, *, frames: int, stride: int, size: int, seed: int = 0, **options
) -> list[dict]:
    """What decoding found, for each video of the split: {"frames": n of the whole video}, or {"error": why it is out}.

    frames, stride, size, seed and options: those of `clips.open_clips`. What is not in the cache yet is decoded.
    """
    sampling = sampling_of(split, frames=frames, stride=stride, size=size, seed=seed)
    folder, _ = decoded(dataset, split, sampling, **options)
    entries = {}
    for line in (folder / "journal.jsonl").read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # half a line, of a process that was killed
            entries[json.loads(line)["row"]] = json.loads(line)
    return [entries[row] for row in range(len(getattr(dataset, split)))]


def decoder() -> str:
    """Name and version of what decodes and resizes."""
    return f"av {importlib.metadata.version('av')}"


def sampling_of(split: str, *, frames: int, stride: int, size: int, seed: int) -> dict:
    """What decides a clip's pixels, besides its file. Test clips are centred: no seed. ValueError for another split."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: 'train' or 'test'")
    return {"frames": frames, "stride": stride, "size": size, "seed": seed if split == "train" else None}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def window_start(seed: int | None, name: str) -> float | str:
    """Where a video's window starts: u in [0, 1), a hash of seed and name; "centre" without a seed."""
    return "centre" if seed is None else int(digest(seed, name)[:12], 16) / 16**12


def build(folder: Path, dataset: Dataset, split: str, sampling: dict, workers: int, timeout: float) -> list[dict]:
    """Decode what the journal of `folder` does not have yet; return what `decoded` says of those left out.

    Writes the report, and `meta.json` last, unless there is a video that another call may be able to read.
    """
    videos = getattr(dataset, split)
    clip_bytes = sampling["frames"] * sampling["size"] ** 2 * 3
    target = folder / "clips.u8"
    with files.writing(target), open(target, "ab") as data, open(folder / "journal.jsonl", "ab+") as journal:
        files.reserve(data, len(videos) * clip_bytes)
        done, errors = read_journal(journal, target, clip_bytes, len(videos))
        common = {name: sampling[name] for name in ("frames", "stride", "size")} | {"out": str(target)}
        jobs = (
            {
                "row": row,
                "path": str(video.path),
                "start": window_start(sampling["seed"], video.name),
                "offset": row * clip_bytes,
                **common,
            }
            for row, video in enumerate(videos)
            if not done[row]
        )
        todo = int((~done).sum())
        workers = min(workers, todo)
        answers = decode_all(jobs, workers=workers, timeout=timeout)
        # closing: after Ctrl-C a notebook keeps this frame for its traceback, and would keep the workers too.
        with track(total=len(videos), desc="decoding", unit="clip") as bar, contextlib.closing(answers):
            bar.update(len(videos) - todo)
            started = time.monotonic()
            for count, (job, answer) in enumerate(answers, 1):
                journal.write(json.dumps({"row": job["row"]} | answer).encode() + b"\n")
                journal.flush()
                if "error" in answer:
                    errors[job["row"]] = answer
                bar.update()
                if count == FIRST * workers and not bar.disable:
                    rate = count / (time.monotonic() - started)
                    what = f"{todo:,} clips of {dataset.name} {split} with {workers} worker{'s' * (workers > 1)}"
                    bar.write(f"decoding {what}: {about((todo - count) / rate)} at {rate:.1f} clips/s")
        files.flush(data)

    skipped = [
        {
            "row": row,
            "name": videos[row].name,
            "path": str(videos[row].path),
            "reason": errors[row]["error"],
            "damaged": errors[row].get("damaged", False),
        }
        for row in sorted(errors)
    ]
    lines = [f"{dataset.name} {split}: {len(skipped)} of {len(videos)} videos left out"]
    lines[0] += ": delete this folder to try them again" if any(video["damaged"] for video in skipped) else ""
    lines += [
        f"{video['path']}: {video['reason']}" + ("" if video["damaged"] else " (is tried again at the next call)")
        for video in skipped
    ]
    files.write_bytes(folder / "report.txt", ("\n".join(lines) + "\n").encode(errors="backslashreplace"))
    files.write_json(folder / "report.json", skipped)
    if all(video["damaged"] for video in skipped):
        names = [video.name for video in videos]
        files.write_json(folder / "meta.json", {"decoder": decoder(), **sampling, "names": names})
    return skipped


def read_journal(journal, target: Path, clip_bytes: int, rows: int) -> tuple[np.ndarray, dict[int, dict]]:
    """(bool (rows,): whose clip is in `target` as it was written, or is damaged; {row: its answer}) of an open journal.

    The others are done again: a process that is killed may leave half a line, a machine that loses power may leave
    lines without their pixels, and what failed for another reason than damage may succeed now.
    """
    journal.seek(0)
    text = journal.read()
    if text and not text.endswith(b"\n"):
        journal.write(b"\n")
    done, errors = np.zeros(rows, dtype=bool), {}
    with open(target, "rb") as data:
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                row = entry["row"]
                if not 0 <= row < rows:
                    continue
                data.seek(row * clip_bytes)
                whole = entry["damaged"] if "error" in entry else zlib.crc32(data.read(clip_bytes)) == entry["crc"]
            except (ValueError, TypeError, KeyError):
                continue
            if whole:
                done[row] = True
                if "error" in entry:
                    errors[row] = entry
    return done, errors
