"""Records: one small JSON file a result, everything needed to reprint a table row."""

import hashlib
import json
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from david.files import read_json, write_json

FORMAT = "david-record/1"
IDENTITY = ("format", "dataset", "fingerprint", "method", "ipc", "seed", "settings")


def record_key(record: dict) -> str:
    """16 hex digits that depend on everything that decides a result, and on nothing else (IDENTITY)."""
    identity = {name: record[name] for name in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def made_on(device: torch.device) -> dict:
    """When, where and with what a record was made; no host names, no paths."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "david": version("david"),
    }


class Store:
    """Folders of records: ``folder`` receives new ones; ``published`` ones are only read.

    Args:
        folder: a reader's own runs; created when first written to. Intermediate results live in ``folder/work``.
        published: a folder of records to read as well, such as the repository's ``book/records``; or None.
    """

    def __init__(self, folder: str | Path, published: str | Path | None = None):
        self.folder = Path(folder)
        self.published = None if published is None else Path(published)

    def find(self, **identity) -> dict | None:
        """The record with these IDENTITY fields, a reader's own before a published one, or None.

        A fingerprint of None means that the data is not at hand: a record of any data of that name will do.
        """
        wanted = {"format": FORMAT, **identity}
        if wanted["fingerprint"] is None:
            del wanted["fingerprint"]
        stem = self._stem(identity)
        for path in self._paths(f"{stem}-*.json"):
            record = read_json(path)
            if all(record.get(name) == value for name, value in wanted.items()):
                return {**record, "path": path, "published": path.parent == self.published}
        return None

    def add(self, record: dict) -> Path:
        """Write a record atomically and return its path."""
        path = self.folder / f"{self._stem(record)}-{record_key(record)}.json"
        write_json(path, record)
        return path

    def work(self, record: dict) -> Path:
        """The folder for intermediate results of the run that makes ``record``."""
        return self.folder / "work" / f"{self._stem(record)}-{record_key(record)}"

    def _paths(self, pattern: str) -> Iterable[Path]:
        for folder in (self.folder, self.published):
            if folder is not None and folder.is_dir():
                yield from sorted(folder.glob(pattern))

    @staticmethod
    def _stem(identity: dict) -> str:
        method = re.sub(r"\W", "-", identity["method"])
        return f"{identity['dataset']}-{method}-ipc{identity['ipc']}-seed{identity['seed']}"


def summary(records: Iterable[dict], classes: Iterable[str] | None = None) -> pd.DataFrame:
    """Accuracy over distillation seeds, one row for each method and IPC, in the order of the records.

    A seed's accuracy is the mean of its students. ``mean`` and ``std`` are those of the seeds' accuracies (sample
    standard deviation); with a single seed, as for full data, those of its students.

    Args:
        records: of one dataset.
        classes: average per-class accuracies over these classes only.

    Returns:
        columns dataset, method, ipc, mean, std (fractions of 1), seeds, students, stored_bytes, clips, seconds.
    """
    rows = []
    for record in records:
        wanted = range(len(record["classes"])) if classes is None else map(record["classes"].index, classes)
        wanted = list(wanted)
        top1 = [sum(student["per_class"][c] for c in wanted) / len(wanted) for student in record["students"]]
        if classes is None:
            top1 = [student["top1"] for student in record["students"]]
        rows.append(
            {
                **{name: record[name] for name in ("dataset", "method", "ipc", "stored_bytes")},
                "top1": top1,
                "clips": sum(record["clips_per_class"]) / len(record["classes"]),
                "seconds": sum(record["seconds"].values()),
            }
        )
    groups = pd.DataFrame(rows).groupby(["dataset", "method", "ipc"], sort=False, dropna=False)
    return groups.apply(_summarise, include_groups=False).reset_index()


def _summarise(rows: pd.DataFrame) -> pd.Series:
    values = pd.Series([pd.Series(top1).mean() for top1 in rows["top1"]] if len(rows) > 1 else rows["top1"].iloc[0])
    return pd.Series(
        {
            "mean": values.mean(),
            "std": values.std(),
            "seeds": len(rows),
            "students": len(rows["top1"].iloc[0]),
            "stored_bytes": rows["stored_bytes"].iloc[0],
            "clips": rows["clips"].mean(),
            "seconds": rows["seconds"].mean(),
        }
    )
