"""Records made in other processes are those made in this one; a worker may be lost on the way."""

import os
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from dask.distributed import Client, LocalCluster
from joblib.externals.loky import get_reusable_executor
from test_experiment import CHANGES, METHODS, lasting

from david import Experiment, Store, preset
from david.runs import command, parallel
from david.support.files import read_json
from david.training import load_teacher, train_on

SETTINGS = preset("smoke", **CHANGES, search_episodes=12)


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    """The experiment whose records this process made, one after the other."""
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path_factory.mktemp("alone")), root=root, device="cpu")
    experiment.table(METHODS, seeds=[0])
    return experiment


def elsewhere(folder, root, **changes):
    return Experiment("ucf101", SETTINGS.replace(**changes), Store(folder), root=root, device="cpu")


def test_processes_of_this_machine(alone, root, tmp_path, monkeypatch):
    experiment = elsewhere(tmp_path, root)
    experiment.run("random")
    kept = next(tmp_path.glob("*.json")).stat().st_mtime_ns
    monkeypatch.setattr(Experiment, "_student", lambda *_: pytest.fail("this was for other processes"))
    try:
        records = experiment.table(METHODS, seeds=[0], jobs=2)
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert [record["method"] for record in records] == METHODS
    assert records[0]["path"].stat().st_mtime_ns == kept
    assert lasting(tmp_path) == lasting(alone.store.folder)
    assert len(list((tmp_path / "work").glob("teacher-*.safetensors"))) == 1
    assert not list((tmp_path / "work").glob(".here-*"))


@pytest.mark.parametrize("bars", ["1", None])
@pytest.mark.parametrize("failing", [False, True])
def test_one_job_leaves_this_process_as_it_was(alone, root, tmp_path, monkeypatch, bars, failing):
    """Threads and environment, also after an error. The record is of one thread, as those of many jobs."""
    if bars is None:
        monkeypatch.delenv("DAVID_PROGRESS", raising=False)
    else:
        monkeypatch.setenv("DAVID_PROGRESS", bars)
    monkeypatch.setattr("david.support.progress.tqdm", lambda items, **_: items)
    if failing:
        monkeypatch.setattr(Experiment, "_student", lambda *_: 1 / 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = dict(os.environ)
        with pytest.raises(ZeroDivisionError) if failing else nullcontext():
            (record,) = elsewhere(tmp_path, root).table(["random"], seeds=[0], jobs=1)
            assert record["made"]["device"] == "CPU, 1 thread"
        assert torch.get_num_threads() == 2 and dict(os.environ) == before
    finally:
        torch.set_num_threads(threads)


@contextmanager
def cluster(**options):
    """A client of two worker processes on this machine."""
    with (
        LocalCluster(n_workers=2, dashboard_address=None, **options) as workers,
        Client(workers) as client,
    ):
        yield client


def test_a_lost_workers_run_is_continued_by_another(alone, root, tmp_path):
    experiment, seen = elsewhere(tmp_path, root), {}

    def kill(client):
        """End the worker that searches, once its journal holds an episode."""
        pids, busy, end = client.run(os.getpid), [], time.monotonic() + 120
        while not busy and time.monotonic() < end:
            time.sleep(0.01)
            busy = [worker for worker, keys in client.processing().items() if any("david" in key for key in keys)]
        while not (journals := list((tmp_path / "work").glob("*/search.json"))) and time.monotonic() < end:
            time.sleep(0.002)
        seen["episodes"], seen["pid"] = read_json(journals[0])["episodes"], pids[busy[0]]
        os.kill(seen["pid"], signal.SIGKILL)

    with cluster(threads_per_worker=1) as client:
        killer = threading.Thread(target=kill, args=(client,))
        killer.start()
        search, _ = experiment.table(["david", "dm:2"], seeds=[0], client=client)
        killer.join()
        assert seen["pid"] not in client.run(os.getpid).values()
    count = len(seen["episodes"])
    assert 1 <= count < 12 and search["search"]["episodes"][:count] == seen["episodes"]  # to the second: not made again
    made = lasting(tmp_path)
    assert len(made) == 4 and made.items() <= lasting(alone.store.folder).items()


def test_a_worker_of_several_threads_is_refused(root, tmp_path):
    with cluster(threads_per_worker=2, processes=False) as client:
        with pytest.raises(ValueError, match="2 threads, but makes one record at a time: threads_per_worker=1"):
            elsewhere(tmp_path, root).table(["random"], seeds=[0], client=client)
    assert not list(tmp_path.glob("*.json"))


def test_the_cluster_of_a_command(root, tmp_path, capsys):
    """Two workers that are threads of this process, which has one global random state: they take turns."""
    changes = [f"{name}={value}" for name, value in CHANGES.items()]
    with cluster(threads_per_worker=1, processes=False) as client:
        arguments = ["--dataset", "ucf101", "--root", str(root), "--device", "cpu", "--preset", "smoke"]
        arguments += ["--set", *changes, "--method", "random", "random:1", "--seed", "0", "1"]
        command.run([*arguments, "--runs", str(tmp_path / "there"), "--dask", client.scheduler.address])
    assert capsys.readouterr().out.count("top-1") == 4
    command.run([*arguments, "--runs", str(tmp_path / "here")])
    assert lasting(tmp_path / "there") == lasting(tmp_path / "here")


def test_what_a_machine_without_the_store_made_is_sent(alone, root, tmp_path, monkeypatch):
    there, here = elsewhere(tmp_path / "there", root), elsewhere(tmp_path / "here", root)

    def far_away(jobs, arguments):
        yield from (parallel.make_record(there, *run, str(tmp_path / "not here")) for _, *run, _ in arguments)

    monkeypatch.setattr(parallel, "_on_this_machine", far_away)
    monkeypatch.setattr(here, "run", lambda name, *, ipc, seed: here._find(name, ipc=ipc, seed=seed))
    records = here.table([*METHODS, "full"], seeds=[0], jobs=1)
    assert [record["path"].parent for record in records] == [tmp_path / "here"] * 4
    assert lasting(tmp_path / "here") == lasting(tmp_path / "there")
    assert len(list((tmp_path / "here").glob("*.safetensors"))) == 3  # full data has none
    stored = {name: value for name, value in lasting(tmp_path / "here").items() if "full" not in name}
    assert stored.items() <= lasting(alone.store.folder).items()


def test_records_alone_need_no_worker(alone, tmp_path):
    without_data = Experiment("ucf101", SETTINGS, Store(tmp_path / "none", alone.store.folder))
    assert len(without_data.table(METHODS, seeds=[0], jobs=2)) == 3
    with pytest.raises(ValueError, match="no record of dm:4"):
        without_data.table(["dm:4"], seeds=[0], jobs=2)


def test_a_copy_in_another_process_finds_the_same_folders(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    experiment = Experiment("ucf101", SETTINGS, Store("runs", "kept"), root=os.path.relpath(root), options={"split": 1})
    build, nothing = experiment.__reduce__()
    monkeypatch.chdir("/")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    copy = build(*nothing)
    assert (copy.store.folder, copy.store.published) == (tmp_path / "runs", tmp_path / "kept")
    assert copy.root.resolve() == root.resolve() and copy.options == {"split": 1} and copy.settings == SETTINGS
    assert (experiment.device.type, copy.device.type) == ("cpu", "cuda")  # what that process has


def test_two_runs_that_need_a_teacher_train_one(alone, tmp_path, monkeypatch):
    trained = []

    def slowly(*args, **kwargs):
        trained.append(kwargs["desc"])
        time.sleep(0.2)
        return train_on(*args, **kwargs)

    monkeypatch.setattr("david.training.train_on", slowly)
    teachers, train = [], alone.train
    threads = [
        threading.Thread(
            target=lambda: teachers.append(load_teacher(train, seed=0, settings=SETTINGS.teacher, folder=tmp_path))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained == ["teacher"]
    assert all(torch.equal(t.classifier.weight, teachers[0].classifier.weight) for t in teachers)


def test_one_run_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"gpu-{number}"))
    current = []
    monkeypatch.setattr(torch.cuda, "device", contextmanager(lambda number: (yield current.append(number))))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    any_gpu, third = torch.device("cuda"), []

    def wait():
        with parallel.own_device(any_gpu) as device:
            third.append(device)

    with parallel.own_device(any_gpu) as first:
        with parallel.own_device(any_gpu) as second:
            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.1)
            assert not third
        waiting.join(timeout=20)
    assert [first, second, *third] == [torch.device("cuda", number) for number in (0, 1, 1)] and current == [0, 1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no GPU is to be seen here"), parallel.own_device(any_gpu):
        pass
    for device in ("cpu", "cuda:1"):  # asked for by name
        with parallel.own_device(torch.device(device)) as given:
            assert given == torch.device(device)
