"""Settings in, record out: once, the same every time, and without losing more than the unit in flight."""

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import write_dataset

from david import Experiment, Store, preset, training
from david.baselines.static_dynamic import load_set
from david.matching import Distiller
from david.runs.records import used
from david.support.files import read_json
from david.training import evaluate

CHANGES = {"width": 0.125, "distill_iterations": 1, "teacher_steps": 1, "student_steps": 1, "student_batch": 4}
SETTINGS = preset("smoke", **CHANGES)  # four episodes of search, two students
METHODS = ["random", "david", "dm:2"]


@pytest.fixture(scope="module")
def experiment(root, tmp_path_factory):
    """One whose store holds the records of METHODS at seed 0."""
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path_factory.mktemp("records")), root=root, device="cpu")
    experiment.table(METHODS, seeds=[0])
    return experiment


def poison(monkeypatch, *names):
    """Let a call of any of these functions fail the test."""
    for name in names:
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("this was to be read, not made"))


def counted(monkeypatch, *names) -> list[str]:
    """Names of these functions, one for each call that follows."""
    calls = []
    for name in names:
        module, _, function = name.rpartition(".")
        original = getattr(sys.modules[module], function)

        def call(*args, function=function, original=original, **kwargs):
            calls.append(function)
            return original(*args, **kwargs)

        monkeypatch.setattr(name, call)
    return calls


def untimed(search):
    """What a search leaves, without the seconds of its episodes."""
    episodes = (
        [{k: v for k, v in episode.items() if k != "seconds"} for episode in search["episodes"]] if search else []
    )
    return {**(search or {}), "episodes": episodes}


def lasting(folder) -> dict:
    """{file name: content} of a store's results, without what a second run may change: costs and dates."""
    found = {path.name: read_json(path) for path in folder.glob("*.json")}
    for record in found.values():
        assert all(value >= 0 for value in record.pop("seconds").values()) and record.pop("peak_bytes") > 0
        record.pop("made")
        record["search"] = untimed(record["search"])
    for path in folder.glob("*.safetensors"):
        data = load_set(path)
        found[path.name] = data.videos.numpy().tobytes(), data.policy.tolist(), untimed(data.info.get("search"))
    return found


def test_a_record_says_what_was_run_on_what(experiment, root):
    record = experiment.run("david")
    assert experiment.settings is SETTINGS and record["settings"].items() >= CHANGES.items()
    identity = {name: record[name] for name in ("format", "dataset", "fingerprint", "method", "ipc", "seed")}
    fingerprint = experiment.dataset.fingerprint
    assert list(identity.values()) == ["david-record/1", "ucf101", fingerprint, "david", 1, 0]
    assert record["classes"] == ["A", "B"]
    assert record["clips_per_class"] == [8 // length for length in record["frames_per_segment"]]
    assert record["stored_bytes"] == 2 * 1 * 8 * 3 * 48 * 48 * 4
    assert len(record["search"]["episodes"]) == 4 and record["search"]["actions"] == [1, 2, 4, 8]
    assert set(record["seconds"]) == {"distill", "evaluate"} and record["peak_bytes"] > 10**7
    assert len({student["seed"] for student in record["students"]}) == 2
    for student in record["students"]:
        assert set(student) == {"seed", "top1", "top5", "per_class"}
        assert student["top1"] == pytest.approx(sum(student["per_class"]) / 2)  # one test clip a class
    assert str(root) not in record["path"].read_text() and not record["published"]


def test_a_dm_record_does_not_depend_on_the_search(experiment):
    record = experiment.run("dm:2")
    assert record["search"] is None and record["frames_per_segment"] == [2, 2]
    assert not any(name.startswith(("search_", "teacher_")) for name in record["settings"])
    assert "distill_lr" in record["settings"] and "distill_lr" not in experiment.run("random")["settings"]


def test_a_record_carries_the_curve_of_its_distillation(experiment):
    """The loss under networks that no step used, at the start and at every look; here after the only iteration."""
    for name in ("dm:2", "david"):
        (begun, before), (ended, after) = experiment.run(name)["curve"]
        assert (begun, ended) == (0, 1) and before > 0 and after > 0
    assert "curve" not in experiment.run("random")


def test_what_depends_on_experts_has_their_settings_in_its_key(experiment):
    def settings(name, **changes):
        other = Experiment("ucf101", SETTINGS.replace(**changes), experiment.store, root=experiment.root)
        return other.identity(name, ipc=1, seed=0)["settings"]

    experts = {name: value for name, value in SETTINGS.subset("expert").items() if name.startswith("expert_")}
    assert set(experts) == {"expert_count", "expert_epochs", "expert_batch", "expert_lr"} | {"expert_per"}
    for name in ("dm", "david", "vdsd", "dm:2"):
        assert not experts.keys() & settings(name).keys()
        found = settings(name, distill_networks="experts")
        assert found.items() >= experts.items() | {("distill_networks", "experts")}
        assert settings(name, distill_networks="experts", expert_lr=0.5) == found | {"expert_lr": 0.5}
    assert settings("dm:trained").items() >= experts.items() | {("distill_start", "mean")}
    for name in ("random", "mean", "dm:published"):
        assert settings(name, distill_networks="experts") == settings(name)


def test_a_record_names_the_rule_that_was_applied(experiment):
    rules = {name: experiment.identity(name, ipc=1, seed=0)["settings"] for name in ("david", "david:warmup")}
    assert [rules[name]["search_warmup"] for name in rules] == [0, 2]
    assert [rules[name]["search_readout"] for name in rules] == ["q", "mean"]


def test_options_reach_the_reader(root, tmp_path):
    plain, unflipped = (
        Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, options=options)
        for options in (None, {"flip": False})
    )
    assert plain.train.flip and not unflipped.train.flip
    assert plain.identity("dm", ipc=1, seed=0) != unflipped.identity("dm", ipc=1, seed=0)


def test_a_record_is_read_back(experiment, monkeypatch):
    written = {path: path.stat().st_mtime_ns for path in experiment.store.folder.rglob("*") if path.is_file()}
    again = Experiment("ucf101", SETTINGS, experiment.store, root=experiment.root)
    poison(monkeypatch, "david.runs.experiment.evaluate", "david.runs.experiment.open_clips", "david.runs.distil.david")
    records = again.table(METHODS, seeds=[0])
    assert [record["method"] for record in records] == METHODS
    assert records[1] == experiment.run("david")
    assert {p: p.stat().st_mtime_ns for p in experiment.store.folder.rglob("*") if p.is_file()} == written


@pytest.fixture
def damaged(tmp_path):
    """A dataset, one of whose training videos is damaged; its records; and a function that mends the video."""
    root = write_dataset(tmp_path / "ucf")
    path = root / "A" / "v_A_g02_c01.avi"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    def experiment():
        return Experiment("ucf101", SETTINGS, Store(tmp_path / "runs"), root=root, device="cpu")

    with pytest.warns(UserWarning, match="1 of 4 videos of ucf101 train left out"):
        record = experiment().run("random")
    assert record["data"]["left_out"] == {"train": {"v_A_g02_c01": len(whole) // 2}, "test": {}}
    assert record["clips_per_class"] == [1, 1]
    return experiment, record, lambda: path.write_bytes(whole)


def test_a_record_of_damaged_videos_is_not_that_of_whole_ones(damaged):
    experiment, record, mend = damaged
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "david.runs.experiment.open_clips")
        assert experiment().run("random")["made"] == record["made"]  # nothing has changed, and nothing is decoded
    mend()
    with pytest.raises(ValueError, match=rf"{record['path'].name} is of other clips .*; delete it, or give another"):
        experiment().run("random")
    with pytest.raises(ValueError, match="is of other clips"):
        experiment().table(["random"], make=False)
    assert read_json(record["path"])["made"] == record["made"]
    published = experiment()
    published.store = Store(published.store.folder / "own", published.store.folder)
    fresh = published.run("random")  # it is of others
    assert not fresh["published"] and fresh["data"]["left_out"] == {"train": {}, "test": {}}
    assert used[fresh["path"]] == "made" and used.get(published.store.published / fresh["path"].name) != "published"


def test_other_videos_of_the_same_names(experiment, root, tmp_path):
    other = write_dataset(tmp_path / "ucf", width=80)
    reader = Experiment("ucf101", SETTINGS, experiment.store, root=other, device="cpu")
    assert reader.dataset.fingerprint == experiment.dataset.fingerprint
    with pytest.raises(ValueError, match="is of other clips of the same names: its videos were other files"):
        reader.run("random")
    clean = Experiment("ucf101", SETTINGS, Store(tmp_path / "runs"), root=other, device="cpu")
    assert clean.train.fingerprint != experiment.train.fingerprint  # nor are teachers and checkpoints shared
    assert clean.data(clean.left_out()) != experiment.data(experiment.left_out())


def test_records_alone_must_be_of_one_version(root, tmp_path):
    store = Store(tmp_path)
    for flip, seeds in ((True, (0, 1)), (False, (1,))):
        Experiment("ucf101", SETTINGS, store, root=root, options={"flip": flip}, device="cpu").table(
            ["random"], seeds=seeds
        )
    alone = Experiment("ucf101", SETTINGS, store)
    assert alone.run("random", seed=0)["seed"] == 0
    with pytest.raises(ValueError, match=r"random.* and .*random.* are of two versions of ucf101, .*: give root"):
        alone.run("random", seed=1)
    with pytest.raises(ValueError, match="options of ucf101 need its videos: give root"):
        Experiment("ucf101", SETTINGS, store, options={"flip": False})
    (tmp_path / "a").mkdir()
    for seed, flip in ((0, True), (1, False)):  # one version a seed: found each, but no table
        made = Experiment("ucf101", SETTINGS, store, root=root, options={"flip": flip}, device="cpu")
        path = made.run("random", seed=seed)["path"]
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="are of two versions of ucf101"):
        Experiment("ucf101", SETTINGS, Store(tmp_path / "a")).table(["random"], seeds=[0, 1])


@pytest.mark.parametrize(
    ("methods", "ipc", "message"),
    [
        (["random", "dm:3"], 1, "frames_per_segment=3 does not divide the 8 frames"),
        (["dm", "dm:1,2,4"], 1, "a policy of 3 lengths does not fit 2 classes"),
        (["dm", "random"], 5, "ipc=5 asks for more stored videos than class A has training clips \\(2\\)"),
        (["dm"], 0, "ipc=0: a class stores at least 1 video"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(root, tmp_path, monkeypatch, methods, ipc, message):
    poison(monkeypatch, "david.runs.experiment.open_clips", "david.baselines.selections.random", "david.runs.distil.dm")
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path / "records"), root=root)
    with pytest.raises(ValueError, match=message):
        experiment.table(methods, ipcs=[1, ipc])
    with pytest.raises(ValueError, match=message):
        experiment.run(methods[-1], ipc=ipc)
    assert not (tmp_path / "records").exists()


def test_a_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store("~/runs", "~/published")
    assert (store.folder, store.published) == (tmp_path / "runs", tmp_path / "published")


@pytest.mark.parametrize("where", ["distillation", "student"])
def test_the_cost_of_a_run_is_that_of_all_its_sessions(root, tmp_path, monkeypatch, where):
    """The first session distils for 3 seconds by the clock, or 6, holds 10 GB, and is interrupted."""
    clock, peak = [0.0], [10**10]
    monkeypatch.setattr("david.runs.experiment.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("david.runs.experiment.peak_bytes", lambda device: peak[0])
    step, broken = Distiller.step, []

    def slow(self):
        if where == "distillation" and self.iteration == 1 and not broken:
            broken.append(1)
            raise KeyboardInterrupt
        clock[0] += 3
        step(self)

    def student(*args, **kwargs):
        if where == "student" and not broken:
            broken.append(1)
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(Distiller, "step", slow)
    monkeypatch.setattr("david.runs.experiment.evaluate", student)
    settings = SETTINGS.replace(distill_iterations=2)
    with pytest.raises(KeyboardInterrupt):
        Experiment("ucf101", settings, Store(tmp_path), root=root, device="cpu").run("dm")
    peak[0] = 10**6
    record = Experiment("ucf101", settings, Store(tmp_path), root=root, device="cpu").run("dm")
    assert (
        record["seconds"]["distill"] == {"distillation": 9, "student": 6}[where]
    )  # without a checkpoint it starts over
    assert record["peak_bytes"] == 10**10


def test_the_distilled_set_of_a_record(experiment):
    record = experiment.run("david")
    distilled = experiment.distilled(record)
    assert distilled.policy.tolist() == record["frames_per_segment"]
    assert distilled.videos.shape == (2, 1, 8, 3, 48, 48)
    assert distilled.stored_bytes == record["stored_bytes"]


def test_a_record_without_a_set_says_how_to_make_one(experiment, root, tmp_path):
    record = experiment.run("random")
    published = tmp_path / "published" / record["path"].name
    published.parent.mkdir()
    published.write_bytes(record["path"].read_bytes())
    reader = Experiment("ucf101", SETTINGS, Store(tmp_path / "own", published.parent), root=root, device="cpu")
    found = reader.run("random")
    assert found["published"]
    with pytest.raises(FileNotFoundError, match=r"no distilled set at .*published.*work without published records"):
        reader.distilled(found)
    reader.store = Store(published.parent)
    with pytest.raises(FileNotFoundError, match=rf"to make one, delete .*{record['path'].name} and run again"):
        reader.distilled(reader.run("random"))
    with pytest.raises(ValueError, match="real data has no distilled set"):
        reader.distilled({**found, "method": "full"})


def test_a_run_leaves_records_sets_and_the_teacher(experiment):
    folder = experiment.store.folder
    names = sorted(path.name.split("-")[0] for path in (folder / "work").iterdir() if path.suffix != ".lock")
    assert names == ["teacher"]
    assert len(list(folder.glob("*.json"))) == len(list(folder.glob("*.safetensors"))) == 3


def test_one_seed_one_record(experiment, root, tmp_path):
    torch.manual_seed(1)
    other = Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, device="cpu")
    assert other.table(METHODS, seeds=[0]) == other.table(METHODS, seeds=[0])  # made, then read back
    assert lasting(tmp_path) == lasting(experiment.store.folder)
    records = [other.run("random", seed=seed) for seed in (0, 1, 2)]
    assert len({student["seed"] for record in records for student in record["students"]}) == 6
    videos = [other.distilled(record).videos for record in records]
    assert any(not torch.equal(videos[0], others) for others in videos[1:])


def test_full_data_has_one_record_whatever_ipc_and_seed_are_asked_for(root, tmp_path):
    found = []
    for place, ipcs, seeds in [("a", [1], [0]), ("b", [5, 1], [3, 4])]:
        experiment = Experiment("ucf101", SETTINGS, Store(tmp_path / place), root=root, device="cpu")
        (record,) = experiment.table(["full"], ipcs=ipcs, seeds=seeds)
        assert (record["ipc"], record["seed"], record["clips_per_class"]) == (0, 0, [2, 2])
        assert record["stored_bytes"] == 4 * 8 * 48 * 48 * 3
        found.append(lasting(tmp_path / place))
    assert len(found[0]) == 1 and found[0] == found[1]


def test_a_table_is_every_method_ipc_and_seed(experiment, monkeypatch):
    def run(method, *, ipc, seed):
        return {"fingerprint": "", "path": None, "run": (method, ipc, seed)}

    monkeypatch.setattr(experiment, "run", run)
    table = [record["run"] for record in experiment.table(["full", "dm"], ipcs=[1, 5], seeds=[2, 3])]
    assert table == [("full", 1, 2), ("dm", 1, 2), ("dm", 1, 3), ("dm", 5, 2), ("dm", 5, 3)]


def test_records_alone_are_enough(experiment, root, tmp_path):
    without_data = Experiment("ucf101", SETTINGS, Store(tmp_path / "own", published=experiment.store.folder))
    record = without_data.run("dm:2")
    assert record["published"] and record["students"] == experiment.run("dm:2")["students"]
    with pytest.raises(ValueError, match=r"no record of dm at IPC 5, seed 1 on ucf101 .*give the dataset's folder as"):
        without_data.run("dm", ipc=5, seed=1)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("root_is", ["given", "absent"])
def test_an_unknown_method_is_refused_before_any_work(root, tmp_path, monkeypatch, root_is):
    poison(monkeypatch, "david.runs.experiment.open_clips", "david.baselines.selections.random")
    store = Store(tmp_path / "records")
    experiment = Experiment("ucf101", SETTINGS, store, root=root if root_is == "given" else None)
    with pytest.raises(ValueError, match="unknown method 'dvid'; did you mean 'david'"):
        experiment.table(["random", "dvid"])
    assert not store.folder.exists()


def test_clips_that_do_not_fit_on_the_gpu_are_refused_before_they_are_decoded(root, tmp_path, monkeypatch):
    poison(monkeypatch, "david.runs.experiment.open_clips")
    monkeypatch.setattr("david.runs.experiment.free_bytes", lambda device: (6 * 3 + 4 * 200 // 8) * 8 * 48 * 48 - 1)
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, device="cuda:0")
    assert len(experiment.dataset.train + experiment.dataset.test) == 6
    with pytest.raises(ValueError, match=r"the clips of ucf101 take 0.0 GiB, a batch .* and this GPU has 0.0 free"):
        experiment.train  # noqa: B018


@pytest.mark.parametrize(("free", "where"), [(1000, "cuda:0"), (999, "cpu")])
def test_students_draw_from_the_host_what_a_gpu_has_no_room_for(root, tmp_path, monkeypatch, free, where):
    """Asked when the test clips are on the GPU, and the set, whose room a move would give free, is not."""
    experiment, been = Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, device="cuda:0"), []
    distilled = SimpleNamespace(stored_bytes=1000 - 4 * 200 // 8 * 8 * 48 * 48)
    distilled.to = lambda device: been.append(str(device)) or distilled
    monkeypatch.setattr(Experiment, "test", property(lambda self: been.append("test clips")))
    monkeypatch.setattr("david.runs.experiment.free_bytes", lambda device: been.append("free?") or free)
    assert experiment._within_reach(distilled) is distilled
    assert been == ["cpu", "test clips", "free?", *([where] if where != "cpu" else [])]


def test_an_unknown_dataset(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'ucf10'.*Did you mean 'ucf101'"):
        Experiment("ucf10", SETTINGS, Store(tmp_path))


def test_a_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder: root="):
        Experiment("ucf101", SETTINGS, Store(tmp_path), root=tmp_path / "nowhere").run("dm")


# Runs the table and stops for ever in the last student of the second method, or in the third episode of its search.
STUCK = """
import json, signal, sys, time
from david import Experiment, Store, preset
import david.runs.experiment, david.algorithm
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its background jobs deaf to it
def stuck(function, calls):
    done = []
    def wrapped(*args, **kwargs):
        if len(done) == calls:
            print("in flight", flush=True)
            time.sleep(60)
        done.append(1)
        return function(*args, **kwargs)
    return wrapped
root, store, where, methods, changes = sys.argv[1:]
if where == "student":
    david.runs.experiment.evaluate = stuck(david.runs.experiment.evaluate, 3)
else:
    david.algorithm.early_stage = stuck(david.algorithm.early_stage, 2)
settings = preset("smoke", **json.loads(changes))
Experiment("ucf101", settings, Store(store), root=root, device="cpu").table(json.loads(methods), seeds=[0])
"""


@pytest.mark.parametrize(
    ("how", "where"), [(signal.SIGINT, "student"), (signal.SIGKILL, "student"), (signal.SIGKILL, "episode")]
)
def test_an_interrupted_table_goes_on_where_it_was(experiment, root, tmp_path, monkeypatch, how, where):
    arguments = [root, tmp_path, where, json.dumps(METHODS), json.dumps(CHANGES)]
    command = [sys.executable, "-c", STUCK, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as table:
        assert table.stdout.readline() == "in flight\n", table.communicate()[1]
        table.send_signal(how)
        errors = table.communicate(timeout=20)[1]
    assert table.returncode != 0 and ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    (done,) = tmp_path.glob("*.json")
    (work,) = (path for path in (tmp_path / "work").iterdir() if path.is_dir())
    assert done.name.startswith("ucf101-random-") and work.name.startswith("ucf101-david-")
    kept = {"student": ["distill.json", "search.json", "spent.json", "student-0.json"], "episode": ["search.json"]}
    peak = ["peak-0.json"] if how == signal.SIGINT else []
    assert sorted(path.name for path in work.iterdir()) == sorted(kept[where] + peak)
    assert len(list(tmp_path.glob("*.safetensors"))) == {"student": 2, "episode": 1}[where]  # Random's, DAViD's
    assert len(read_json(work / "search.json")["episodes"]) == (2 if where == "episode" else 4)

    made = counted(monkeypatch, "david.runs.experiment.evaluate", "david.algorithm.early_stage")
    poison(monkeypatch, "david.baselines.selections.random")
    trained, train_on = [], training.train_on

    def noted(*given, desc="student", **named):
        trained.append(desc)
        return train_on(*given, desc=desc, **named)

    monkeypatch.setattr("david.training.train_on", noted)
    if where == "student":
        poison(monkeypatch, "david.runs.distil.david")
    Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, device="cpu").table(METHODS, seeds=[0])
    # Of the second record its last student or its last two episodes and both students; the third record whole.
    assert made.count("evaluate") == {"student": 1 + 2, "episode": 2 + 2}[where]
    assert "teacher" not in trained
    assert made.count("early_stage") == {"student": 0, "episode": 2}[where]
    assert lasting(tmp_path) == lasting(experiment.store.folder)


def test_a_table_that_makes_nothing_leaves_out_what_is_missing(experiment, monkeypatch):
    poison(monkeypatch, "david.runs.experiment.evaluate")
    records = experiment.table([*METHODS, "dm:4"], ipcs=[1, 5], seeds=[0], make=False)
    assert [(record["method"], record["ipc"]) for record in records] == [(name, 1) for name in METHODS]


@pytest.mark.parametrize(
    "spellings", [("dm:2", "dm:02", "dm:2,2", "dm:2,02"), ("random", "random:8", "random:08", "random:8,8")]
)
def test_equal_methods_are_one_record(experiment, monkeypatch, spellings):
    """Neither made again under another spelling nor twice in a table."""
    poison(monkeypatch, "david.runs.experiment.evaluate")
    (record,) = experiment.table(list(spellings), seeds=[0])
    assert record["method"] == spellings[0]
    for name in spellings:
        assert experiment.identity(name, ipc=1, seed=0) == experiment.identity(spellings[0], ipc=1, seed=0)
        assert experiment.run(name) == record
    (alone,) = Experiment("ucf101", SETTINGS, experiment.store).table(list(spellings), seeds=[0], make=False)
    assert alone["path"] == record["path"]
    with pytest.raises(ValueError, match="a policy of 3 lengths does not fit 2 classes"):
        experiment.run(f"{spellings[0].partition(':')[0]}:2,2,2")
