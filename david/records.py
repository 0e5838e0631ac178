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

    def path(self, record: dict) -> Path:
        """Where the record is written; its distilled set lies beside it, with the suffix .safetensors."""
        return self.folder / f"{self._stem(record)}-{record_key(record)}.json"

    def add(self, record: dict) -> Path:
        """Write a record atomically and return its path."""
        write_json(self.path(record), record)
        return self.path(record)

    def work(self, record: dict) -> Path:
        """The folder for intermediate results of the run that makes ``record``."""
        return self.folder / "work" / self.path(record).stem

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
    classes = None if classes is None else list(classes)
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault((record["dataset"], record["method"], record["ipc"]), []).append(record)
    rows = []
    for (dataset, method, ipc), group in groups.items():
        accuracies = [_student_accuracies(record, classes) for record in group]
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
                "seconds": sum(sum(r["seconds"].values()) for r in group) / len(group),
            }
        )
    return pd.DataFrame(rows)


def _student_accuracies(record: dict, classes: Iterable[str] | None) -> list[float]:
    """Top-1 of each student, or the mean of its per-class accuracies over ``classes``."""
    if classes is None:
        return [student["top1"] for student in record["students"]]
    wanted = [record["classes"].index(name) for name in classes]
    return [sum(student["per_class"][c] for c in wanted) / len(wanted) for student in record["students"]]


def paper_tables() -> pd.DataFrame:
    """The numbers that the paper reports in its Tables 1, 2 and 4.

    Returns:
        columns table, row, dataset, ipc (NaN for full data), mean and std (percent), quoted_from ("VDSD" where
        the paper copied the number, NaN otherwise).
    """
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv"))


def paper_value(row: str | None, dataset: str, ipc: int) -> str:
    """What Table 1 or 2 of the paper prints for a method, dataset and IPC, or "" where it has no such number."""
    table = paper_tables()
    found = table[(table["row"] == row) & (table["dataset"] == dataset) & table["table"].isin([1, 2])]
    found = found[(found["ipc"] == ipc) | found["ipc"].isna()]
    return "" if found.empty else f"{found['mean'].iloc[0]} ± {found['std'].iloc[0]}"


def published_table(records: Iterable[dict], titles: dict[str, tuple[str, str | None]], beside: str | None = None):
    """A table as the book prints it: the paper's number for the dataset ``beside``, if one is named, then ours.

    Args:
        records: of one dataset.
        titles: method name -> (title, row of the paper or None).
        beside: the paper's dataset to show; its numbers are for that dataset only, not for ours.

    Returns:
        pandas.DataFrame of strings, indexed by method title.
    """
    rows = {}
    for row in summary(records).itertuples():
        title, paper = titles[row.method]
        cells = {"IPC": row.ipc or "all"}
        if beside is not None:
            cells[f"paper, {beside}, %"] = paper_value(paper, beside, row.ipc)
        rows[title, row.ipc] = cells | {
            f"ours, {row.dataset}, %": f"{100 * row.mean:.1f} ± {100 * row.std:.1f}",
            "n": f"{row.seeds} × {row.students}",
            "clips / class": f"{row.clips:.1f}",
            "stored MiB": f"{row.stored_bytes / 2**20:.2f}",
            "seconds": f"{row.seconds:.0f}",
        }
        # Numbers do not break over lines in a narrow page.
        rows[title, row.ipc] = {k: str(v).replace(" ", "\u00a0") for k, v in rows[title, row.ipc].items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.Index([title for title, _ in rows])
    return table.rename_axis("method", axis=1)
