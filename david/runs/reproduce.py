"""``python -m david reproduce``: compute the published records anew and say how far the new ones are from them."""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs

from david.data.readers import base
from david.runs.experiment import Experiment
from david.runs.parallel import one_thread
from david.runs.parameters import known_dataset, there, writable
from david.runs.provenance import machine, versions
from david.runs.records import Store, percent, summary
from david.runs.settings import BEFORE, Settings, preset
from david.support.files import read_json, write_json
from david.support.values import argument, jobs


@lru_cache(maxsize=1)  # records of one dataset and settings follow each other: decode and open its clips once
def _experiment(dataset: str, settings: Settings, folder: Path, videos: str | None, device, swept: bool) -> Experiment:
    return Experiment(dataset, settings, Store(folder), root=videos, device=device, swept=swept)


def experiment_of(record: dict, folder: Path, videos: str | None = None) -> Experiment:
    """The experiment whose record this is, with a store of its own.

    The settings that a record names are those that decide it. The others are taken from the preset ``demo`` and do
    not matter; those that are younger than the record have the value from before (``presets.BEFORE``). What was
    computed on a CPU is so again: a GPU draws other weights from the same seed. A set out of a sweep is so again.
    """
    settings = preset("demo").replace(**(BEFORE | record["settings"]))
    device = "cpu" if record["made"]["device"].startswith("CPU") else None
    return _experiment(record["dataset"], settings, folder, videos, device, record.get("swept", False))


def remake(published: Path, folder: Path, videos: str | None = None) -> dict:
    """Compute the record of the file ``published`` into ``folder``, or read it back from there.

    Raises:
        ValueError: the data at hand are not those of the record.
    """
    record = read_json(published)
    if (folder / published.name).exists():
        return read_json(folder / published.name)
    experiment = experiment_of(record, folder, videos)
    if experiment.dataset.fingerprint != record["fingerprint"] or not experiment.is_of_these_clips(record):
        raise ValueError(f"the videos of {record['dataset']} are not those of {published.name}: files, lists or split")
    return experiment.run(record["method"], ipc=record["ipc"] or 1, seed=record["seed"])


def compare(published: Iterable[dict], again: Iterable[dict]) -> pd.DataFrame:
    """One row for the seeds of each dataset, method, IPC and settings.

    Args:
        published, again: records in the same order.

    Returns:
        columns dataset, method, ipc, settings (other than in the preset ``earlier``), n (records), published and again
        (percent, mean ± std over seeds), difference (points, again - published), identical (how many of the n have
        the same accuracies to the last digit), seconds published and seconds again (means; None if not timed alone).
    """
    groups: dict[tuple, list[tuple[dict, dict]]] = {}
    for pair in zip(published, again):
        identity = [pair[0][name] for name in ("dataset", "method", "ipc", "settings")]
        groups.setdefault(tuple(map(str, identity)), []).append(pair)
    rows = []
    for pairs in groups.values():
        (old,), (new,) = (summary(side).itertuples() for side in zip(*pairs))
        rows.append(
            {
                "dataset": old.dataset,
                "method": old.method,
                "ipc": old.ipc,
                "settings": _changes(pairs[0][0]["settings"]),
                "n": old.seeds,
                "published": percent(old.mean, old.std),
                "again": percent(new.mean, new.std),
                "difference": f"{100 * (new.mean - old.mean):+.1f}",
                "identical": sum(a["students"] == b["students"] for a, b in pairs),
                "seconds published": None if math.isnan(old.seconds) else round(old.seconds),
                "seconds again": None if math.isnan(new.seconds) else round(new.seconds),
            }
        )
    return pd.DataFrame(rows)


def added(rows: list[dict], earlier: dict, here: dict) -> list[dict]:
    """``rows`` and those of an earlier report whose dataset, method, IPC and settings they have not.

    Raises:
        ValueError: the earlier report is of another machine or of other versions than ``here``.
    """
    if other := [name for name, own in here.items() if earlier[name] != own]:
        raise ValueError(f"--add: that report is of another {other[0]}, {earlier[other[0]]} and not {here[other[0]]}")
    names = ("dataset", "method", "ipc", "settings")
    have = {tuple(row[name] for name in names) for row in rows}
    kept = [row for row in earlier["rows"] if tuple(row[name] for name in names) not in have]
    return sorted(rows + kept, key=lambda row: tuple(row[name] for name in names))


def _changes(settings: dict) -> str:
    """What a record's settings have that the preset ``earlier`` has not, "size 64, student_repeats 5"; "" for nothing.

    Of a record that is nearer to ``demo``: "preset demo", and what that has not.
    """

    def beside(name: str) -> list[str]:
        own = preset(name)
        return [f"{field} {value}" for field, value in settings.items() if value != getattr(own, field, None)]

    earlier, demo = beside("earlier"), beside("demo")
    return ", ".join(earlier if len(earlier) <= len(demo) else ["preset demo", *demo])


def _attempt(published: Path, folder: Path, videos: str | None, silent: bool) -> tuple[str, float, str]:
    """The record's name, the seconds it took, and what went wrong, if anything did."""
    started = time.perf_counter()
    try:
        with one_thread(silent):  # as for the published records: the last digits of sums depend on it
            remake(published, folder, videos)
    except Exception as error:  # one record that cannot be made must not cost the others
        return published.stem, time.perf_counter() - started, f"{type(error).__name__}: {error}"
    return published.stem, time.perf_counter() - started, ""


def _folder(pair: str) -> tuple[str, str]:
    """The dataset and folder of an argument ``dataset=folder``."""
    name, separator, folder = pair.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"--videos takes dataset=folder, got {pair!r}")
    return argument(known_dataset, "ucf12=/data")(name), argument(there, f"{name}=/data")(folder)


def main(arguments: list[str] | None = None) -> int:
    """Compute what is missing, compare all that is there, and write ``reproduction.json`` into the folder."""
    parser = argparse.ArgumentParser(prog="python -m david reproduce", description=__doc__)
    repository = argument(there, ".", Path)
    parser.add_argument("--root", type=repository, default=Path.cwd(), help="the repository (default: this folder)")
    into = argument(writable, "runs/reproduced", Path)
    parser.add_argument("--into", type=into, help="where the new records go (default: runs/reproduced)")
    report = argument(lambda path: there(path, Path.is_file), "book/reproduction.json", Path)
    parser.add_argument("--add", type=report, help="one of this machine and these versions, to keep other rows of")
    parser.add_argument("--dataset", help="only the records of this dataset")
    parser.add_argument("--only", default="*", help="compute only records whose names match, such as '*-dm-ipc1-*'")
    parser.add_argument("--videos", type=_folder, action="append", default=[], help="dataset=folder of its videos")
    processes = "processes, of one thread each; -1: one a core"
    parser.add_argument("--jobs", type=argument(jobs, 2, int), default=1, help=processes)
    options = parser.parse_args(arguments)
    root, videos, count = options.root.resolve(), dict(options.videos), effective_n_jobs(options.jobs)
    folder = (options.into or root / "runs" / "reproduced").resolve()
    published = {path: read_json(path) for path in sorted((root / "book" / "records").glob("*.json"))}
    reader = {path: base(record["dataset"]) for path, record in published.items()}  # "motions" of "heldout-motions"
    chosen = {p: r for p, r in published.items() if options.dataset in (None, r["dataset"], reader[p])}
    if not chosen:
        parser.error(f"no published record of {options.dataset or 'any dataset'} in {root / 'book' / 'records'}")
    if not any(fnmatchcase(path.stem, options.only) for path in chosen):
        parser.error(f"no published record is named {options.only!r}; a name is such as {next(iter(chosen)).stem}")
    for name in sorted({reader[path] for path in chosen} - {"motions", *videos}):
        count = sum(reader[path] == name for path in chosen)
        print(f"{count} records of {name} need its videos: --videos {name}=FOLDER")
    able = [path for path in chosen if reader[path] in ("motions", *videos)]
    todo = [path for path in able if not (folder / path.name).exists() and fnmatchcase(path.stem, options.only)]
    print(f"{len(able)} records to compare, {len(todo)} of them to compute, into {folder}")
    failed = _compute(todo, folder, {path: videos.get(reader[path]) for path in todo}, count)
    made = [path for path in able if (folder / path.name).exists()]
    if made:
        table = compare([chosen[path] for path in made], [read_json(folder / path.name) for path in made])
        print(table.to_string(index=False))
        here = {"machine": machine(), "versions": versions()}
        rows = (
            added(table.to_dict("records"), read_json(options.add), here) if options.add else table.to_dict("records")
        )
        report = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **here, "rows": rows}
        write_json(folder / "reproduction.json", report)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _compute(todo: list[Path], folder: Path, videos: dict[Path, str | None], count: int) -> list[str]:
    """Make the records in ``count`` processes and return a line for each that failed."""
    if not todo:
        return []
    silent = count > 1  # bars of several processes would overwrite each other
    calls, failed = (delayed(_attempt)(path, folder, videos[path], silent) for path in todo), []
    results = Parallel(n_jobs=count, return_as="generator_unordered")(calls)
    for number, (name, seconds, error) in enumerate(results, 1):
        print(f"[{number}/{len(todo)}] {name}: {'failed' if error else f'{seconds:.0f} s'}", flush=True)
        failed += [f"{name}: {error}"] if error else []
    return failed
