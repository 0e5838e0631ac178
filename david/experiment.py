"""Settings in, record out: every number of the book passes through here."""

import shutil
import time
from functools import cached_property, partial
from pathlib import Path

import torch

from david import sharding
from david.clips import Clips, open_clips
from david.costs import free_bytes, peak_bytes, reset_peak, shared_seconds
from david.datasets import base, check_name, load
from david.distilled import RealSet, StoredSet
from david.evaluate import evaluate
from david.files import read_json, write_json
from david.methods import REAL
from david.methods import method as find_method
from david.parallel import make_records
from david.presets import Settings
from david.progress import track
from david.records import FORMAT, Store, made_on
from david.seeds import derive
from david.static_dynamic import load_set


class Experiment:
    """One dataset under one set of settings; runs methods on it, or reads their records back.

    Clips are decoded and networks trained only when a record is missing, so a table whose records exist needs
    neither the data nor time.

    Args:
        dataset: name of a reader, e.g. "motions", "ucf101".
        settings: all settings.
        store: where records are read and written.
        root: the dataset's folder; None for "motions", or to work from records alone.
        options: options of the dataset's reader, e.g. {"split": 2, "flip": False}.
        device: where to compute; a CUDA device if there is one.
    """

    def __init__(self, dataset: str, settings: Settings, store: Store, *, root=None, options=None, device=None):
        check_name(dataset)
        self.name, self.settings, self.store = dataset, settings, store
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.wanted = device
        self.at_hand = root is not None or base(dataset) == "motions"
        self.root, self.options = root, options or {}

    def __reduce__(self):
        """What another process, in another folder or on another machine, makes the same experiment from."""
        store = Store(*(path and path.absolute() for path in (self.store.folder, self.store.published)))
        root = self.root and Path(self.root).expanduser().absolute()
        options = {"root": root, "options": self.options, "device": self.wanted}
        return partial(Experiment, self.name, self.settings, store, **options), ()

    @cached_property
    def dataset(self):
        """The dataset's listing: classes, train and test videos."""
        return load(self.name, self.root, **self.options)

    def _clips(self, split: str) -> Clips:
        s = self.settings
        count = len(getattr(self.dataset, split)) * s.frames * s.size**2 * 3
        if self.device.type == "cuda" and count > (free := free_bytes(self.device)):
            raise ValueError(
                f"the {split} clips of {self.name} take {count / 2**30:.1f} GiB and this GPU has {free / 2**30:.1f} "
                f"free, but they live there; lower frames or size, take fewer classes, a larger GPU, or device='cpu'"
            )
        clips = open_clips(self.dataset, split, frames=s.frames, stride=s.stride, size=s.size)
        return clips.to(self.device)

    @cached_property
    def train(self) -> Clips:
        return self._clips("train")

    @cached_property
    def test(self) -> Clips:
        return self._clips("test")

    def identity(self, method: str, *, ipc: int, seed: int) -> dict:
        """The fields of a record's key: what decides a result. Real data has no IPC and no distillation seed: 0."""
        found = find_method(method)
        settings = found.settings(self.settings)
        return {
            "format": FORMAT,
            "dataset": self.name,
            "fingerprint": self.dataset.fingerprint if self.at_hand else None,
            "method": method,
            "ipc": 0 if method in REAL else ipc,
            "seed": 0 if method in REAL else seed,
            "settings": settings.subset(*found.stages)
            | ({"student_repeats": self.settings.student_repeats} if method in REAL else {}),
        }

    def run(self, method: str, *, ipc: int = 1, seed: int = 0) -> dict:
        """The record of one method, IPC and distillation seed: read back if there is one, made otherwise.

        A run that is interrupted continues where it was: the search from its last episode, the
        distillation from its last checkpoint, the evaluation from its last student.

        Raises:
            ValueError: unknown method; or no such record, and no data to make it from.
        """
        if record := sharding.first(lambda: self._find(method, ipc=ipc, seed=seed)):
            return record
        identity = self.identity(method, ipc=ipc, seed=seed)
        if not self.at_hand:
            raise ValueError(
                f"no record of {method} at IPC {ipc}, seed {seed} on {self.name} with these settings; "
                f"give the dataset's folder as root to make one"
            )
        work = self.store.work(identity)
        reset_peak(self.device)
        distilled, distilling = self._distill(identity, work)
        repeats = self.settings.student_repeats
        students = sharding.spread(repeats, lambda k: self._student(identity, distilled, k, work))
        record = {
            **identity,
            "students": [result for result, _ in students],
            "classes": distilled.classes,
            "frames_per_segment": distilled.policy.tolist(),
            "clips_per_class": distilled.clips_per_class.tolist(),
            "stored_bytes": distilled.stored_bytes,
            "search": distilled.info.get("search"),
            "seconds": {"distill": distilling, "evaluate": sum(seconds for _, seconds in students)},
            "peak_bytes": max(sharding.spread(sharding.size(), lambda _: peak_bytes(self.device))),
            "made": made_on(self.device),
        }
        return sharding.first(lambda: self._keep(record, work))

    def _find(self, method: str, *, ipc: int, seed: int) -> dict | None:
        return self.store.find(**self.identity(method, ipc=ipc, seed=seed))

    def _keep(self, record: dict, work: Path) -> dict:
        path = self.store.add(record)
        shutil.rmtree(work, ignore_errors=True)
        return {**record, "path": path, "published": False}

    def _distill(self, identity: dict, work: Path) -> tuple[StoredSet | RealSet, float]:
        """The set of a run and the seconds it took, read back if an interrupted run had got that far.

        Time spent on teachers, experts and whatever else other runs share does not count.
        """
        path, timing = self.store.path(identity).with_suffix(".safetensors"), work / "distill.json"
        if sharding.first(lambda: path.exists() and timing.exists()):
            return load_set(path, self.device), read_json(timing)
        found, distilled, seconds = find_method(identity["method"]), None, None
        if found.sharded or sharding.rank() == 0:
            train, before, started = self.train, shared_seconds(), time.perf_counter()
            distilled = found.distill(
                train, ipc=identity["ipc"], seed=identity["seed"], settings=self.settings, work=work
            )
            seconds = time.perf_counter() - started - (shared_seconds() - before)
            if isinstance(distilled, StoredSet) and sharding.rank() == 0:
                distilled.save(path)
                write_json(timing, seconds)
        seconds = sharding.first(lambda: seconds)
        return load_set(path, self.device) if distilled is None else distilled, seconds

    def _student(self, identity: dict, distilled, k: int, work: Path) -> tuple[dict, float]:
        """Accuracies of student k and the seconds it took, likewise."""
        path = work / f"student-{k}.json"
        if not path.exists():
            test, seed = self.test, derive(identity["seed"], "student", k)
            started = time.perf_counter()
            result = evaluate(distilled, test, seed=seed, settings=self.settings)
            write_json(path, [result, time.perf_counter() - started])
        return tuple(read_json(path))

    def distilled(self, record: dict) -> StoredSet:
        """The distilled set of a record, from the file beside it.

        Raises:
            ValueError: a record of full data, which has no set.
            FileNotFoundError: no such file; published records are JSON alone.
        """
        if record["method"] in REAL:
            raise ValueError("real data has no distilled set; ask for that of another method")
        path = record["path"].with_suffix(".safetensors")
        if not path.exists():
            remedy = "work without published records" if record["published"] else f"delete {record['path']}"
            raise FileNotFoundError(f"no distilled set at {path}; to make one, {remedy} and run again")
        return load_set(path)

    def table(
        self,
        methods: list[str],
        *,
        ipcs: list[int] = (1,),
        seeds: list[int] = (0, 1, 2),
        make: bool = True,
        jobs: int | None = None,
        client=None,
    ) -> list[dict]:
        """The records of every method, IPC and seed; real data once. All names are checked before any work.

        Args:
            methods, ipcs, seeds: what to combine.
            make: False leaves out what has no record yet, instead of making it.
            jobs: make that many records at once, each in a process of its own; -1: one a core.
            client: make them on the workers of this ``dask.distributed.Client``; see ``david.parallel``.
        """
        todo = {}
        for name in methods:
            find_method(name)
            for ipc in ipcs:
                for seed in seeds:
                    key = (name, 0, 0) if name in REAL else (name, ipc, seed)
                    todo.setdefault(key, (ipc, seed))
        if not make:
            found = [self._find(name, ipc=ipc, seed=seed) for (name, *_), (ipc, seed) in todo.items()]
            return [record for record in found if record]
        if (jobs or client) and self.at_hand:
            missing = [
                (name, ipc, seed)
                for (name, *_), (ipc, seed) in todo.items()
                if not self._find(name, ipc=ipc, seed=seed)
            ]
            if missing:
                make_records(self, missing, jobs=jobs, client=client)
        records = []
        for (name, *_), (ipc, seed) in track(todo.items(), desc="table", unit="record"):
            records.append(self.run(name, ipc=ipc, seed=seed))
        return records
