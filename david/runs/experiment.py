"""Settings in, record out: every number of the book passes through here."""

import shutil
import time
from collections import Counter
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

import torch

from david.baselines.mtt import check_classes
from david.baselines.selections import check_ipc
from david.baselines.static_dynamic import load_set
from david.data.cache import sampling_of
from david.data.clips import Clips, open_clips
from david.data.identity import fingerprint, sources
from david.data.readers import base, check_name, check_options, load
from david.partition import given_policy
from david.runs import sharding
from david.runs.costs import student_bytes
from david.runs.methods import REAL, Method
from david.runs.methods import method as find_method
from david.runs.parallel import make_records
from david.runs.records import FORMAT, Store, check_versions, made_on
from david.runs.settings import Settings
from david.sets import RealSet, StoredSet
from david.support.costs import free_bytes, peak_bytes, reset_peak, shared_seconds
from david.support.files import read_json, write_json
from david.support.progress import track
from david.support.seeds import derive
from david.training import evaluate


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
        swept: whether sets of DM and DAViD are taken out of sweeps (``david.sweep``), one for each IPC and seed, which
            costs less than a run each as soon as there are about three of them; the search's warm-up likewise. Such
            records are the same but for rounding, say so ("swept"), and have no seconds of their own.
    """

    def __init__(
        self, dataset: str, settings: Settings, store: Store, *, root=None, options=None, device=None, swept=False
    ):
        check_name(dataset)
        self.swept = swept
        self.name, self.settings, self.store = dataset, settings, store
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.wanted = device
        self.at_hand = root is not None or base(dataset) == "motions"
        self.root, self.options = root, check_options(dataset, options or {})
        self._opened, self._known = {}, {}
        if self.options and not self.at_hand:
            raise ValueError(f"options of {dataset} need its videos: give root, or read records alone without them")

    def __reduce__(self):
        """What another process, in another folder or on another machine, makes the same experiment from."""
        store = Store(*(path and path.absolute() for path in (self.store.folder, self.store.published)))
        root = self.root and Path(self.root).expanduser().absolute()
        options = {"root": root, "options": self.options, "device": self.wanted, "swept": self.swept}
        return partial(Experiment, self.name, self.settings, store, **options), ()

    @cached_property
    def dataset(self):
        """The dataset's listing: classes, train and test videos."""
        return load(self.name, self.root, **self.options)

    def _open(self, split: str) -> Clips:
        """The clips of a split, in the cache's file, once it is sure that a run will fit on a GPU."""
        s = self.settings
        if not self._opened and self.device.type == "cuda":
            free = free_bytes(self.device)
            count = len(self.dataset.train + self.dataset.test) * s.frames * s.size**2 * 3
            if count + (batch := student_bytes(s)) > free:
                raise ValueError(
                    f"the clips of {self.name} take {count / 2**30:.1f} GiB, a batch of a student {batch / 2**30:.1f} "
                    f"more, and this GPU has {free / 2**30:.1f} free; lower frames, size or student_batch, take fewer "
                    f"classes, a larger GPU, or device='cpu'"
                )
        if split not in self._opened:
            # A record says for good what was left out of its clips, so that must be the files' own fault.
            self._opened[split] = open_clips(
                self.dataset, split, frames=s.frames, stride=s.stride, size=s.size, damaged_only=True
            )
        return self._opened[split]

    @cached_property
    def train(self) -> Clips:
        return self._open("train").to(self.device)

    @cached_property
    def test(self) -> Clips:
        return self._open("test").to(self.device)

    def left_out(self) -> dict[str, set[str]]:
        """Of each split the names of the videos that cannot be decoded; decodes what is not in the cache yet."""
        names = {split: {video.name for video in getattr(self.dataset, split)} for split in ("train", "test")}
        return {split: own - set(self._open(split).names.tolist()) for split, own in names.items()}

    def data(self, left_out: dict[str, Iterable[str]]) -> dict:
        """What a record says of its clips: a fingerprint of each split, and what was left out, by name and source."""
        s, found = self.settings, {"left_out": {}}
        for split, names in left_out.items():
            sampling = sampling_of(split, frames=s.frames, stride=s.stride, size=s.size, seed=0)
            found[split] = fingerprint(self.dataset, split, sampling, names)
            own = zip(getattr(self.dataset, split), sources(self.dataset, split)) if names else ()
            found["left_out"][split] = {video.name: source for video, source in own if video.name in names}
        return found

    def is_of_these_clips(self, record: dict) -> bool:
        """Whether a record's files are those at hand; one that was made before records said that is taken to be."""
        if "data" not in record:
            return True
        left_out = record["data"]["left_out"]
        if (key := str(left_out)) not in self._known:
            self._known[key] = self.data(left_out)
        return self._known[key] == record["data"]

    def method(self, name: str) -> Method:
        """A method by name; of several spellings of one method on these clips, as "dm" and "dm:8", the plain one."""
        return find_method(name, self.settings.frames)

    def identity(self, method: str, *, ipc: int, seed: int) -> dict:
        """The fields of a record's key: what decides a result. Real data has no IPC and no distillation seed: 0."""
        found = self.method(method)
        settings = found.settings(self.settings)
        return {
            "format": FORMAT,
            "dataset": self.name,
            "fingerprint": self.dataset.fingerprint if self.at_hand else None,
            "method": found.name,
            "ipc": 0 if method in REAL else ipc,
            "seed": 0 if method in REAL else seed,
            "settings": settings.subset(*found.stages_of(self.settings))
            | ({"student_repeats": self.settings.student_repeats} if method in REAL else {}),
        }

    def run(self, method: str, *, ipc: int = 1, seed: int = 0) -> dict:
        """The record of one method, IPC and distillation seed: read back if there is one, made otherwise.

        A run that is interrupted continues where it was: the search from its last episode, the
        distillation from its last checkpoint, the evaluation from its last student.

        Raises:
            ValueError: unknown method; or no such record, and no data to make it from.
        """
        if self.at_hand:
            self.check(method, ipc=ipc)
        if record := sharding.first(lambda: self._find(method, ipc=ipc, seed=seed)):
            return record
        if not self.at_hand:
            raise ValueError(
                f"no record of {method} at IPC {ipc}, seed {seed} on {self.name} with these settings; "
                f"give the dataset's folder as root to make one"
            )
        identity = self.identity(method, ipc=ipc, seed=seed)
        data = self.data(self.left_out())
        work = self.store.work({**identity, "data": data})
        reset_peak(self.device)
        try:
            distilled, distilling = self._distill(identity, work)
            distilled = self._within_reach(distilled)
            repeats = self.settings.student_repeats
            students = sharding.spread(repeats, lambda k: self._student(identity, distilled, k, work))
        finally:
            peak = self._peak(work)
        record = {
            **identity,
            "data": data,
            "students": [result for result, _ in students],
            "classes": distilled.classes,
            "frames_per_segment": distilled.policy.tolist(),
            "clips_per_class": distilled.clips_per_class.tolist(),
            "stored_bytes": distilled.stored_bytes,
            "search": distilled.info.get("search"),
            **{name: distilled.info[name] for name in ("curve", "sweep") if distilled.info.get(name)},
            **({"swept": True} if distilling is None else {}),
            "seconds": {"distill": distilling, "evaluate": sum(seconds for _, seconds in students)},
            "peak_bytes": max(sharding.spread(sharding.size(), lambda _: peak)),
            "made": made_on(self.device),
        }
        return sharding.first(lambda: self._keep(record, work))

    def check(self, method: str, *, ipc: int) -> None:
        """ValueError for a method that cannot be run on the dataset, before hours are spent on others."""
        found = self.method(method)
        found.settings(self.settings)
        if ipc < 1:
            raise ValueError(f"ipc={ipc}: a class stores at least 1 video")
        classes, counts = self.dataset.classes, Counter(video.label for video in self.dataset.train)
        given_policy(found.options.get("policy"), num_classes=len(classes), frames=self.settings.frames, seed=0)
        if found.follows:
            check_classes(classes)
        if found.selects:
            check_ipc([counts[label] for label in range(len(classes))], classes, ipc)

    def _find(self, method: str, *, ipc: int, seed: int) -> dict | None:
        """The record; one of other videos is an error if it is a reader's own, and passed over if it is published."""

        def fits(record: dict) -> bool:
            if not self.at_hand or self.is_of_these_clips(record):
                return True
            if record["published"]:
                return False
            raise ValueError(
                f"{record['path']} is of other clips of the same names: its videos were other files, or others of "
                f"them were left out as damaged; delete it, or give another folder of runs"
            )

        return self.store.find(fits, **self.identity(method, ipc=ipc, seed=seed))

    def _keep(self, record: dict, work: Path) -> dict:
        path = self.store.add(record)
        shutil.rmtree(work, ignore_errors=True)
        return {**record, "path": path, "published": False}

    def _peak(self, work: Path) -> int:
        """Peak memory, in bytes, of this session of a run and of those before it; kept for the next."""
        path = work / f"peak-{sharding.rank()}.json"
        peak = max(peak_bytes(self.device), read_json(path) if path.exists() else 0)
        write_json(path, peak)
        return peak

    def _distill(self, identity: dict, work: Path) -> tuple[StoredSet | RealSet, float | None]:
        """The set of a run and the seconds it took, read back if an interrupted run had got that far.

        Time spent on teachers, experts and whatever else other runs share does not count. That of interrupted
        sessions does, if they had the time to write it down: a process that is killed has not. None for seconds where
        sweeps served the set and others.
        """
        path = self.store.path(identity).with_suffix(".safetensors")
        timing, spent = work / "distill.json", work / "spent.json"
        if sharding.first(lambda: path.exists() and timing.exists()):
            return load_set(path), read_json(timing)
        found, distilled, seconds = find_method(identity["method"]), None, None
        swept = self.swept and found.sweeps
        if found.sharded or sharding.rank() == 0:
            train, before, started = self.train, shared_seconds(), time.perf_counter()
            earlier = (read_json(spent) if spent.exists() else 0.0) or 0.0
            try:
                distilled = found.distill(
                    train, ipc=identity["ipc"], seed=identity["seed"], settings=self.settings, work=work,
                    swept=swept,
                )  # fmt: skip
            finally:
                if not swept:
                    seconds = earlier + time.perf_counter() - started - (shared_seconds() - before)
                if sharding.rank() == 0:
                    write_json(spent, seconds)
            if isinstance(distilled, StoredSet) and sharding.rank() == 0:
                distilled.save(path)
                write_json(timing, seconds)
        seconds = sharding.first(lambda: seconds)
        return load_set(path) if distilled is None else distilled, seconds

    def _within_reach(self, distilled: StoredSet | RealSet) -> StoredSet | RealSet:
        """The set where students get their batches from: their device, or the host if a GPU has no room for it beside
        the test clips and a student's step."""
        if isinstance(distilled, RealSet):
            return distilled
        if self.device.type == "cuda":
            distilled, _ = distilled.to("cpu"), self.test
            if distilled.stored_bytes + student_bytes(self.settings) > free_bytes(self.device):
                return distilled
        return distilled.to(self.device)

    def _student(self, identity: dict, distilled, k: int, work: Path) -> tuple[dict, float]:
        """Accuracies of student k and the seconds it took, likewise."""
        path = work / f"student-{k}.json"
        if not path.exists():
            test, seed = self.test, derive(identity["seed"], "student", k)
            recipe = self.settings.teacher if isinstance(distilled, RealSet) else self.settings.student
            started = time.perf_counter()
            result = evaluate(distilled, test, seed=seed, settings=recipe)
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
            client: make them on the workers of this ``dask.distributed.Client``; see ``david.runs.parallel``.
        """
        todo = {}
        for name in methods:
            short = self.method(name).name
            for ipc in ipcs:
                if self.at_hand and make:
                    self.check(name, ipc=ipc)
                for seed in seeds:
                    key = (short, 0, 0) if short in REAL else (short, ipc, seed)
                    todo.setdefault(key, (ipc, seed))
        if not make:
            found = [self._find(name, ipc=ipc, seed=seed) for (name, *_), (ipc, seed) in todo.items()]
            records = [record for record in found if record]
            check_versions(records, self.name)
            return records
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
        check_versions(records, self.name)
        return records
