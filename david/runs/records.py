"""Records: one small JSON file a result, everything needed to reprint a table row."""

import hashlib
import json
import math
import platform
import re
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch

from david.data.readers import digest
from david.fast_embed import compiling
from david.runs import sharding
from david.support.files import read_json, write_json

FORMAT = "david-record/1"
IDENTITY = ("format", "dataset", "fingerprint", "method", "ipc", "seed", "settings")

# What this process asked of its stores, so that a page can say so and be made again when it changes:
asked: set[Path] = set()  # where records were looked for, as patterns of files, found or not
used: dict[Path, str] = {}  # the records that were handed out: "published", "read" or "made"


def record_key(record: dict) -> str:
    """16 hex digits that depend on everything that decides a result, and on little else (IDENTITY)."""
    identity = {name: record[name] for name in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def own_version() -> str:
    """The version of this package, also where the repository is merely on Python's path, as on a borrowed machine."""
    try:
        return version("david")
    except PackageNotFoundError:
        return tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]


def made_on(device: torch.device) -> dict:
    """When, where and with what a record was made; no host names, no paths."""
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' * (threads != 1)}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    name += ", TF32" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else ""
    name += f", {sharding.size()} processes" if sharding.size() > 1 else ""
    name += ", compiled" if compiling() else ""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "david": own_version(),
    }


class Store:
    """Folders of records: ``folder`` receives new ones; ``published`` ones are only read.

    Args:
        folder: a reader's own runs; created when first written to. Intermediate results live in ``folder/work``.
        published: a folder of records to read as well, such as the repository's ``book/records``; or None.
    """

    def __init__(self, folder: str | Path, published: str | Path | None = None):
        self.folder = Path(folder).expanduser()
        self.published = None if published is None else Path(published).expanduser()

    def find(self, fits: Callable[[dict], bool] = lambda record: True, **identity) -> dict | None:
        """The record with these IDENTITY fields, a reader's own before a published one, or None.

        One that does not fit is passed over. A fingerprint of None means that the data is not at hand: a record of any
        data of that name will do.

        Raises:
            ValueError: there are records of more than one version of the data then.
        """
        wanted = {"format": FORMAT, **identity}
        if wanted["fingerprint"] is None:
            del wanted["fingerprint"]
        stem, found = self._stem(identity), []
        for path in self._paths(f"{stem}-*.json"):
            record = read_json(path)
            if all(record.get(name) == value for name, value in wanted.items()):
                record |= {"path": path, "published": path.parent == self.published}
                found += [record] if fits(record) else []
                if found and "fingerprint" in wanted:
                    break
        if not found:
            return None
        check_versions(found, identity["dataset"])
        used.setdefault(found[0]["path"], "published" if found[0]["published"] else "read")
        return found[0]

    def path(self, record: dict) -> Path:
        """Where the record is written; its distilled set lies beside it, with the suffix .safetensors."""
        return self.folder / f"{self._stem(record)}-{record_key(record)}.json"

    def add(self, record: dict) -> Path:
        """Write a record atomically and return its path."""
        path = self.path(record)
        write_json(path, record)
        used[path] = "made"
        return path

    def work(self, record: dict) -> Path:
        """The folder for intermediate results of the run that makes ``record``; another for each "data" that it has."""
        data = [digest(record["data"])] if "data" in record else []
        return self.folder / "work" / "-".join([self.path(record).stem, *data])

    def _paths(self, pattern: str) -> Iterable[Path]:
        for folder in (self.folder, self.published):
            if folder is not None:
                asked.add(folder / pattern)
                yield from sorted(folder.glob(pattern))

    @staticmethod
    def _stem(identity: dict) -> str:
        method = re.sub(r"\W", "-", identity["method"])[:40]  # a policy of 400 classes would not fit a file name
        return f"{identity['dataset']}-{method}-ipc{identity['ipc']}-seed{identity['seed']}"


def check_versions(records: list[dict], dataset: str) -> None:
    """ValueError where the records are of more than one version of a dataset: of another split, say."""
    versions = {record["fingerprint"]: record["path"] for record in records}
    if len(versions) > 1:
        one, other, *_ = versions.values()
        what = f"{one} and {other} are of two versions of {dataset}, of different splits or files"
        raise ValueError(f"{what}: give root, and with it the options that say which, or another folder of records")


def summary(records: Iterable[dict], classes: Iterable[str] | None = None, metric: str = "top1") -> pd.DataFrame:
    """Accuracy over distillation seeds, one row for each method and IPC, in the order of the records.

    A seed's accuracy is the mean of its students. ``mean`` and ``std`` are those of the seeds' accuracies (sample
    standard deviation); with a single seed, as for full data, those of its students.

    Args:
        records: of one dataset.
        classes: average per-class accuracies over these classes only.
        metric: "top1" or "top5"; with ``classes``, top-1.

    Returns:
        columns dataset, method, ipc, mean, std (fractions of 1), seeds, students, stored_bytes, clips (a class),
        seconds and peak_bytes (means over the records; NaN where one was not measured, or not timed alone).

    Raises:
        ValueError: the records of one row are not of the same settings and clips.
    """
    classes = None if classes is None else list(classes)
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault((record["dataset"], record["method"], record["ipc"]), []).append(record)
    rows = []
    for (dataset, method, ipc), group in groups.items():
        check_alike(group)
        accuracies = [_student_accuracies(record, classes, metric) for record in group]
        sample = pd.Series([sum(a) / len(a) for a in accuracies] if len(group) > 1 else accuracies[0])
        rows.append(
            {
                "dataset": dataset,
                "method": method,
                "ipc": ipc,
                "mean": sample.mean(),
                "std": sample.std(),
                "seeds": len(group),
                "students": len(accuracies[0]),
                "stored_bytes": group[0]["stored_bytes"],
                "clips": sum(sum(r["clips_per_class"]) / len(r["classes"]) for r in group) / len(group),
                "seconds": sum(math.nan if s is None else s for r in group for s in r["seconds"].values()) / len(group),
                "peak_bytes": sum(r.get("peak_bytes", math.nan) for r in group) / len(group),
            }
        )
    return pd.DataFrame(rows)


def check_alike(records: list[dict]) -> None:
    """ValueError where records of one method and IPC differ in more than their seeds."""
    first = records[0]
    what = f"records of {first['method']} at IPC {first['ipc']} on {first['dataset']}"
    for record in records:
        if record.get("fingerprint") != first.get("fingerprint"):
            raise ValueError(f"{what} are of different splits or files: make a table of each")
        one, other = (r.get("settings", {}) for r in (first, record))
        for name in sorted({**one, **other}):
            if one.get(name) != other.get(name):
                values = " and ".join(str(side.get(name, "another")) for side in (one, other))
                raise ValueError(f"{what} have different settings, {name} {values}: make a table of each")


def _student_accuracies(record: dict, classes: Iterable[str] | None, metric: str) -> list[float]:
    """Accuracy of each student, or the mean of its per-class accuracies over ``classes``."""
    if classes is None:
        return [student[metric] for student in record["students"]]
    wanted = [record["classes"].index(name) for name in classes]
    return [sum(student["per_class"][c] for c in wanted) / len(wanted) for student in record["students"]]


def percent(mean: float, std: float) -> str:
    """Mean and deviation, fractions of 1, as tables print them."""
    return f"{100 * mean:.1f} ± {100 * std:.1f}"


def by_class(records: Iterable[dict]) -> pd.DataFrame:
    """Accuracy on every class, the mean of the students: rows of method, ipc, seed, class and accuracy."""
    return pd.DataFrame(
        {
            "method": record["method"],
            "ipc": record["ipc"],
            "seed": record["seed"],
            "class": name,
            "accuracy": sum(student["per_class"][c] for student in record["students"]) / len(record["students"]),
        }
        for record in records
        for c, name in enumerate(record["classes"])
    )
