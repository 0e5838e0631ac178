"""One record a result: its key, where it is found, and what a table makes of several."""

import json

import pytest
import torch

from david.runs.records import (
    FORMAT,
    IDENTITY,
    Store,
    by_class,
    made_on,
    record_key,
    summary,
)

IDENTITY_OF = {
    "dataset": "motions",
    "fingerprint": "f00d",
    "method": "dm:4",
    "ipc": 1,
    "seed": 0,
    "settings": {"frames": 8, "distill_lr": 10.0},
}


def a_record(per_student=((1.0, 0.0), (0.5, 0.5)), **changes):
    """A record of two classes; `per_student` holds the accuracy of each class, the first being three times as large."""
    students = [
        {"seed": k, "top1": (3 * a + b) / 4, "top5": 1.0, "per_class": [a, b]} for k, (a, b) in enumerate(per_student)
    ]
    return {
        "format": FORMAT,
        **IDENTITY_OF,
        "students": students,
        "classes": ["a", "b"],
        "clips_per_class": [2, 4],
        "stored_bytes": 100,
        "seconds": {"distill": 3.0, "evaluate": 4.0},
        "peak_bytes": 2**30,
        "made": {"time": "now"},
        **changes,
    }


def test_key_depends_on_the_identity():
    key = record_key(a_record())
    assert len(key) == 16 and int(key, 16) >= 0
    assert record_key(dict(reversed(a_record().items()))) == key
    changes = {
        "format": "david-record/0",
        "dataset": "ucf12",
        "fingerprint": "beef",
        "method": "dm",
        "ipc": 5,
        "seed": 1,
        "settings": {"frames": 8, "distill_lr": 1.0},
    }
    assert set(changes) == set(IDENTITY)
    keys = {record_key(a_record(**{name: value})) for name, value in changes.items()}
    assert len(keys | {key}) == 8


def test_key_depends_on_nothing_else():
    other = a_record(((0.0, 0.0),), seconds={"distill": 9.0}, made={"time": "later"}, stored_bytes=7, extra=1)
    assert record_key(other) == record_key(a_record())
    assert record_key({"format": FORMAT, **IDENTITY_OF}) == record_key(a_record())


def test_add_then_find(tmp_path):
    store = Store(tmp_path / "own", tmp_path / "published")
    assert store.find(**IDENTITY_OF) is None  # neither folder is there yet
    path = store.add(a_record())
    assert path.parent == tmp_path / "own"
    assert path.name == f"motions-dm-4-ipc1-seed0-{record_key(a_record())}.json"
    assert store.find(**IDENTITY_OF) == {**a_record(), "path": path, "published": False}
    assert json.loads(path.read_text()) == a_record()
    for name, value in [("ipc", 10), ("seed", 1), ("method", "dm"), ("fingerprint", "beef"), ("settings", {})]:
        assert store.find(**IDENTITY_OF | {name: value}) is None
    assert store.find(**IDENTITY_OF, format="david-record/0") is None


def test_own_records_go_before_published_ones(tmp_path):
    published, own = Store(tmp_path / "published"), Store(tmp_path / "own", tmp_path / "published")
    published.add(a_record(stored_bytes=1))
    found = own.find(**IDENTITY_OF)
    assert found["published"] and found["stored_bytes"] == 1 and found["path"].parent == tmp_path / "published"
    own.add(a_record(stored_bytes=2))
    found = own.find(**IDENTITY_OF)
    assert not found["published"] and found["stored_bytes"] == 2
    assert published.find(**IDENTITY_OF)["stored_bytes"] == 1  # nothing is written there


def test_without_the_data_a_record_of_any_data_will_do(tmp_path):
    store = Store(tmp_path)
    store.add(a_record())
    assert store.find(**IDENTITY_OF | {"fingerprint": None})["fingerprint"] == "f00d"
    assert store.find(**IDENTITY_OF | {"fingerprint": None, "dataset": "ucf12"}) is None


def test_records_of_other_settings_lie_beside_each_other(tmp_path):
    store = Store(tmp_path)
    for lr in (1.0, 2.0):
        store.add(a_record(settings={"distill_lr": lr}, stored_bytes=lr))
    for lr in (1.0, 2.0):
        assert store.find(**IDENTITY_OF | {"settings": {"distill_lr": lr}})["stored_bytes"] == lr


@pytest.mark.parametrize("content", ["", '{"format": "david-re', "\x00\x01"])
def test_corrupt_record_is_named(tmp_path, content):
    store = Store(tmp_path)
    path = store.add(a_record())
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"{path.name} is not valid JSON .*delete it and run again"):
        store.find(**IDENTITY_OF)


def test_work_folder_is_that_of_the_record(tmp_path):
    store = Store(tmp_path)
    identity = {"format": FORMAT, **IDENTITY_OF}
    assert store.work(identity) == tmp_path / "work" / store.add(a_record()).stem
    works = [store.work({**identity, "data": {"train": name}}).name for name in "ab"]
    assert works[0] != works[1] and all(name.startswith(f"{store.work(identity).name}-") for name in works)
    assert store.work({**identity, "seed": 1}) != store.work(identity)


def test_summary_over_seeds_by_hand():
    # Top-1 of the students: (0.75, 0.5), mean 0.625; and (0.25, 0.25), mean 0.25. Over seeds: 0.4375 +- 0.375 / sqrt 2.
    records = [a_record(), a_record(((0.0, 1.0), (0.25, 0.25)), seed=1, seconds={"distill": 1.0, "evaluate": 2.0})]
    table = summary(records)
    assert table.columns.tolist() == [
        *("dataset", "method", "ipc", "mean", "std", "seeds", "students", "stored_bytes", "clips", "seconds"),
        "peak_bytes",
    ]
    (row,) = table.to_dict("records")
    assert row == {
        "dataset": "motions",
        "method": "dm:4",
        "ipc": 1,
        "mean": pytest.approx(0.4375),
        "std": pytest.approx(0.375 / 2**0.5),
        "seeds": 2,
        "students": 2,
        "stored_bytes": 100,
        "clips": 3.0,
        "seconds": 5.0,
        "peak_bytes": 2**30,
    }


def test_summary_of_one_seed_is_over_its_students():
    (row,) = summary([a_record(method="full", ipc=0)]).to_dict("records")
    assert (row["seeds"], row["students"]) == (1, 2)
    assert row["mean"] == pytest.approx(0.625) and row["std"] == pytest.approx(0.25 / 2**0.5)


def test_summary_keeps_the_order_of_the_records():
    records = [a_record(method=m, ipc=i, seed=s) for s in (0, 1) for m in ("random", "david", "dm") for i in (5, 1)]
    table = summary(records)
    found = list(zip(table["method"], table["ipc"], table["seeds"]))
    assert found == [(m, i, 2) for m in ("random", "david", "dm") for i in (5, 1)]


def test_summary_of_some_classes_averages_over_classes():
    record = a_record(((1.0, 0.0), (0.5, 0.25)))
    for classes, mean in [(["a"], 0.75), (["b"], 0.125), (["b", "a"], 0.4375)]:
        assert summary([record], classes)["mean"].tolist() == [pytest.approx(mean)]
    with pytest.raises(ValueError, match="'c' is not in list"):
        summary([record], ["c"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"distill_lr": 2.0}}, "different settings, distill_lr 10.0 and 2.0: make a table of each"),
        ({"settings": {}}, "different settings, distill_lr 10.0 and another"),
        ({"settings": IDENTITY_OF["settings"] | {"size": 64}}, "different settings, size another and 64"),
        ({"fingerprint": "beef"}, "different splits or files"),
    ],
)
def test_a_row_is_of_one_kind_of_run(change, message):
    """Whichever seed the odd one has, and wherever it stands; in rows of their own both may be in one table."""
    for seed in (0, 1, 2):
        records = [a_record(seed=0), a_record(seed=1), a_record(seed=seed, **change)]
        for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
            with pytest.raises(ValueError, match=message if order[-1] == 2 else "records of dm:4 at IPC 1 on motions"):
                summary([records[k] for k in order])
    assert len(summary([a_record(), a_record(method="dm", **change)])) == 2


def test_summary_by_top_5():
    record = a_record()
    record["students"] = [s | {"top5": t} for s, t in zip(record["students"], (1.0, 0.5), strict=True)]
    (row,) = summary([record, record | {"seed": 1, "peak_bytes": 0}], metric="top5").to_dict("records")
    assert row["mean"] == 0.75 and row["peak_bytes"] == 2**29


@pytest.mark.parametrize(("threads", "device"), [(1, "CPU, 1 thread"), (2, "CPU, 2 threads")])
def test_made_on_tells_no_host_and_no_path(monkeypatch, threads, device):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    made = made_on(torch.device("cpu"))
    assert set(made) == {"time", "device", "python", "torch", "david"}
    assert made["device"] == device
    assert made["time"].endswith("+00:00") and "+" not in made["torch"]


@pytest.mark.parametrize(("allowed", "device"), [(True, "NVIDIA H100, TF32"), (False, "NVIDIA H100")])
def test_made_on_tells_how_a_gpu_multiplies(monkeypatch, allowed, device):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert made_on(torch.device("cuda"))["device"] == device


def test_by_class_averages_the_students_of_a_record():
    students = [{"per_class": [0.2, 1.0]}, {"per_class": [0.4, 0.0]}]
    common = {"classes": ["a", "b"], "students": students, "ipc": 1}
    table = by_class([{"method": "dm", "seed": 0, **common}, {"method": "dm", "seed": 1, **common}])
    assert list(table.columns) == ["method", "ipc", "seed", "class", "accuracy"] and len(table) == 4
    assert table["class"].tolist() == ["a", "b"] * 2 and table["seed"].tolist() == [0, 0, 1, 1]
    assert table["accuracy"].tolist() == pytest.approx([0.3, 0.5] * 2)
