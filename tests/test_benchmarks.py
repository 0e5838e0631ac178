"""The benchmarks run, and write what they promise."""

import json
import sys
from importlib.metadata import PackageNotFoundError
from statistics import median

import pytest
import torch
from conftest import write_video

from david.c3d import C3D
from david.runs.costs import clip_flops
from david.sets import DistilledSet

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
CPU = torch.device("cpu")


@linux
def test_decode(tmp_path, load, monkeypatch, capsys):
    benchmark, measure = load("decode"), load("measure")
    # A process costs seconds.
    monkeypatch.setattr(measure, "apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(benchmark, "BATCHES", 2)
    for i in range(2):
        write_video(tmp_path / f"{i}.avi", 30 + i, width=64, height=48)
    arguments = ["--clips", "4", "--rounds", "1", "--sizes", "3", "6"]
    benchmark.main(["--data", str(tmp_path), "--out", str(tmp_path / "record.json"), *arguments])
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["speed"]["videos"] == 2 and set(record["speed"]["ratio_to_plain"]) == {"1 worker", "2 workers"}
    assert [row["cache_bytes"] for row in record["memory"]] == [count * 8 * 64 * 64 * 3 for count in (3, 6)]
    assert all(rate > 0 for rates in record["speed"]["clips_per_second"].values() for rate in rates)
    said = capsys.readouterr().out
    assert "x plain" in said and "ucf101, 13,320 videos" in said


def small(*more: str) -> list[str]:
    return ["--device", "cpu", "--width", "0.0625", "--frames", "8", "--size", "48", *more]


def test_distill(tmp_path, load, capsys):
    path = tmp_path / "record.json"
    arguments = small("--classes", "3", "--clips", "4", "--repeats", "3", "--out", str(path))
    load("distill").main(arguments)
    record = json.loads(path.read_text())
    times = record["seconds"]
    assert set(times) == {"plain recipe", "david", "bare embed"} and all(len(own) == 3 for own in times.values())
    ratios = [a / b for a, b in zip(times["plain recipe"], times["david"])]
    assert min(ratios) <= record["plain / david"] <= max(ratios)
    without, with_gradient = clip_flops(8, 48, 0.0625)
    assert record["FLOP"] == 3 * (4 * without + with_gradient)
    fastest = max(rate["float32"] for rate in record["rates"])
    assert record["share of the bound"] == pytest.approx(record["FLOP"] / fastest / median(times["david"]))
    layers = record["layers"]
    assert list(layers) == [f"{kind} {k}" for k in (1, 2, 3) for kind in ("Conv3d", "MaxPool3d", "ReLU")]
    assert sum(layer["share of the network"] for layer in layers.values()) == pytest.approx(1)
    assert [layer["share of the bound"] > 0 for layer in layers.values()] == [True, False, False] * 3
    assert record["made"]["device"].startswith("CPU") and record["setting"]["precision"] == "float32"
    assert "plain / david" in capsys.readouterr().out


def test_distill_compiled(tmp_path, load, monkeypatch):
    compiled, more = [], ("--compile", "1")
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    load("distill").main(
        small("--classes", "2", "--clips", "2", "--repeats", "1", *more, "--out", str(tmp_path / "r.json"))
    )
    record = json.loads((tmp_path / "r.json").read_text())
    times = {name: own for name, (own,) in record["seconds"].items()}
    assert set(times) == {"plain recipe", "david", "david, compiled", "bare embed"}
    assert record["plain / david, compiled"] == times["plain recipe"] / times["david, compiled"]
    assert len(compiled) == 2  # of one distiller alone: its network, and the pass in bfloat16


@linux
def test_growth_in_processes_of_their_own(tmp_path, load, capsys, monkeypatch):
    growth, path, environments = load("growth"), tmp_path / "record.json", []
    measure, calls = load("measure"), []
    apart = measure.apart

    def once(function, *arguments, environment, **named):
        """A process for the first point, as one costs seconds; the others here."""
        calls.append(arguments)
        environments.append(environment)
        if len(calls) == 1:
            return apart(function, *arguments, environment=environment, **named)
        return function(*arguments, **named)

    monkeypatch.setattr(measure, "apart", once)
    axes = ["--classes", "1", "3", "--ipcs", "6", "2", "--sizes", "48", "64", "--lengths", "8", "16"]
    growth.main(small(*axes, "--base", "6", "--clips", "2", "--repeats", "1", "--out", str(path)))
    record = json.loads(path.read_text())
    points = record["points"]
    assert [p["method"] for p in points] == ["dm"] * 5 + ["david"] * 5  # the base is on every axis, and measured once
    assert record["base"] == {"classes": 1, "ipc": 6, "frames": 8, "size": 48}
    assert record["axes"] == {"classes": [1, 3], "ipc": [2, 6], "frames": [8, 16], "size": [48, 64]}
    for p in points:
        values = p["frames"] * p["size"] ** 2 * 3
        assert p["stored_bytes"] == p["classes"] * p["ipc"] * values * 4
        assert p["held_bytes"] == 2 * p["stored_bytes"] == 2 * p["state_bytes"]  # SGD's momentum
        assert p["data_bytes"] == p["classes"] * 2 * values
        assert len(p["seconds"]) == 1 and p["seconds"][0] > 0
    # Of 2.5 MiB: a tensor below a MiB may lie in memory that the process had already.
    assert points[0]["peak_bytes"] > points[0]["held_bytes"]
    without, with_gradient = clip_flops(8, 48, 0.0625)
    wide = next(p for p in points if p["method"] == "david" and p["classes"] == 3)
    assert wide["segments"] == pytest.approx((8 + 4 + 2) / 3)
    assert wide["FLOP"] == pytest.approx(6 * without + 6 * 14 * with_gradient)
    assert environments[0] == growth.STEADY and "x the base's time" in capsys.readouterr().out


@linux
def test_memory_is_flat_in_classes_once_a_chunk_is_full(load):
    """The promise of the page, at a size of seconds: 128 clips fill a chunk, here of one class and of two."""
    growth, measure = load("growth"), load("measure")
    sizes = {"clips": 128, "width": 0.0625, "precision": "float32", "repeats": 1, "device": CPU}
    rest = []
    for classes in (1, 2):
        point = measure.apart(growth.point, "dm", classes, 128, 8, 48, environment=growth.STEADY, **sizes)
        rest.append(point["peak_bytes"] - point["held_bytes"])
    assert max(rest) / min(rest) < 1.1


@linux
def test_stages(tmp_path, load, capsys, monkeypatch):
    monkeypatch.setenv("DAVID_PROGRESS", "0")
    # A process costs seconds.
    monkeypatch.setattr(load("measure"), "apart", lambda function, *arguments, **environment: function(*arguments))
    path = tmp_path / "record.json"
    sizes = ["--clips", "2", "--batch", "4", "--iterations", "10", "--steps", "2", "--repeats", "2"]
    load("stages").main(small("--classes", "2", "3", "--ipc", "1", *sizes, "--out", str(path)))
    record = json.loads(path.read_text())
    assert record["base"] == {"classes": 2, "ipc": 1, "size": 48} and "classes" not in record["setting"]
    assert [(p["classes"], p["ipc"], p["size"]) for p in record["points"]] == [(2, 1, 48), (3, 1, 48)]
    stages = record["points"][0]["stages"]
    assert list(stages) == [
        "sampling", "student training", "evaluation", "episode, early stage", "episode, whole distillation",
        "DM iteration", "DAViD iteration",
    ]  # fmt: skip
    without, with_gradient = clip_flops(8, 48, 0.0625)
    assert stages["sampling"]["work"] == {"copy": 5 * 4 * 8 * 48 * 48 * 3}
    assert stages["evaluation"]["work"] == {"float32": 4 * without}
    assert stages["student training"]["clips"] == 8
    assert stages["student training"]["work"]["float32"] > 8 * 2 * without  # weights need a gradient as well
    assert stages["DM iteration"]["work"] == {"float32": 4 * without + 2 * with_gradient}
    assert stages["DAViD iteration"]["work"] == {"float32": 4 * without + 12 * with_gradient}  # L is 1 and 2
    early, whole = (stages[f"episode, {kind}"]["work"]["float32"] for kind in ("early stage", "whole distillation"))
    assert 0 < early < whole < 10 * early  # the teacher looks twice at either
    for point in record["points"]:
        assert point["whole / early episode"] > 1
        for name, stage in point["stages"].items():
            assert 0 < stage["share of the bound"] and len(stage["seconds"]) == 2 and stage["peak_bytes"] >= 0
            assert ("plain / ours" in stage) == (name in ("sampling", "student training", "evaluation"))
    more = record["points"][1]["stages"]["DM iteration"]["work"]["float32"]
    assert more == pytest.approx(1.5 * stages["DM iteration"]["work"]["float32"])
    said = capsys.readouterr().out
    assert "of its bound" in said and "times as long" in said


def test_plain_code_computes_the_same(load):
    """The same sums in another layout and order, or it were no comparison."""
    plain, measure = load("plain"), load("measure")
    settings = measure.settings_of(frames=8, size=48, width=0.0625, clips=2, precision="float32", student_steps=2)
    train, net = measure.noise_clips(2, 3, 8, 48), C3D(2, 8, 48, 0.0625).eval()
    other = plain.PlainNet(2, settings).eval()
    other.load_state_dict(net.state_dict())
    clips = torch.stack(plain.on_host(train))
    torch.testing.assert_close(other(clips), net(train.batch(range(6))), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    batch = plain.sampling(train, torch.tensor([4, 0, 4, 1, 2, 3]))()
    mirrored = [torch.equal(own, clips[i].flip(-1)) for own, i in zip(batch, [4, 0, 4, 1, 2, 3])]
    same = [torch.equal(own, clips[i]) for own, i in zip(batch, [4, 0, 4, 1, 2, 3])]
    assert all(a != b for a, b in zip(mirrored, same)) and any(mirrored) and any(same)
    assert plain.evaluation(train, settings, batch=4)() in {k / 6 for k in range(7)}
    stored = DistilledSet(torch.randn(2, 1, 8, 3, 48, 48), torch.tensor([8, 2]), train.classes)
    plain.training(stored, settings.replace(student_batch=2))()


def test_an_episode_is_charged_for_the_policy_that_it_draws(load):
    """``Stages`` foretells the first policy of a new agent, on which the number of clips depends."""
    from david.algorithm import learn_policy

    stages = load("stages")
    options = load("measure").options(
        "", small("--classes", "3"), classes=3, clips=2, ipc=1, frames=8, size=48, batch=2, iterations=10, steps=1
    )
    found, seen = stages.stages(options), []
    stages.learn_policy = lambda *given, **named: seen.append(learn_policy(*given, **named))
    found["episode, early stage"].run()
    (episode,) = seen[0].episodes
    without, with_gradient = clip_flops(8, 48, 0.0625)
    assert found["episode, early stage"].work["float32"] == pytest.approx(
        episode["forward"] * without + episode["backward"] * with_gradient
    )
    assert found["episode, early stage"].clips == pytest.approx(episode["forward"] + episode["backward"])


@pytest.mark.parametrize(
    ("gpu", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla T4", "t4"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
    ],
)
def test_short_names(load, gpu, short):
    measure = load("measure")
    assert measure.short_name(gpu) == short and measure.short_name(CPU) == "cpu"


def test_records_are_named_after_benchmark_and_device(tmp_path, load, monkeypatch):
    measure = load("measure")
    monkeypatch.setattr(measure, "RECORDS", tmp_path)
    path = measure.write("growth", None, CPU, 0.5, {"what": "nothing"})
    record = json.loads((tmp_path / "growth-cpu.json").read_text())
    assert path.name == "growth-cpu.json" and record["what"] == "nothing" and record["load_before"] == 0.5


def test_bounds_add_up_and_ratios_are_taken_within_turns(load):
    measure = load("measure")
    best = {"float32": 100.0, "bfloat16": 400.0, "copy": 10.0}
    assert measure.least_seconds({"float32": 50, "bfloat16": 800}, best) == 2.5
    assert measure.least_seconds({"copy": 5}, best) == 0.5
    # The machine is ten times slower in the second turn; medians of each would give 1.5.
    assert measure.ratio([2, 20, 3], [1, 10, 2]) == 2
    called = []
    times = measure.in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, CPU)
    assert called == ["a", "b"] * 3 and [len(own) for own in times.values()] == [2, 2]


@linux
def test_peak_counts_what_comes_within_it(load):
    measure = load("measure")
    before = torch.ones(10 * 2**20)  # 40 MiB, not counted
    with measure.Peak() as peak:
        block = torch.ones(50 * 2**20)  # 200 MiB
        before += 1
        torch.randn(400, 400) @ torch.randn(400, 400)
        for _ in range(20):
            block += 1
        del block
    assert 190 * 2**20 < peak.own < 260 * 2**20


def test_rates_are_rates(load):
    found = load("measure").rates(CPU, "float32", size=64)
    assert set(found) == {"float32", "copy"} and found["copy"] > 1e6 and found["float32"] > 1e6


@linux
def test_gpu_dry_run(tmp_path, load, monkeypatch, capsys):
    """Every stage that a GPU is lent for runs here at a tiny size; nothing fails, and only what takes a GPU is left."""
    monkeypatch.setenv("DAVID_PROGRESS", "0")
    load("gpu").main(["--dry-run", "--device", "cpu", "--out", str(tmp_path)])
    stages = ("exactness", "speed", "memory", "evidence")
    found = {name: json.loads((tmp_path / f"gpu-{name}-cpu.json").read_text()) for name in stages}
    assert not any("failed" in record for record in found.values())
    assert set(found["exactness"]["left out"]) == {"waiting and NCCL"}
    assert set(found["speed"]["left out"]) == {"bfloat16, TF32, compiled"} and "left out" not in found["evidence"]
    same = found["exactness"]["relative difference to the CPU"]
    assert set(same) == {"embedding", "gradient", "partitions", "distance", "adjoint", "accuracies"}
    assert not any(same.values()) and not any(found["exactness"]["two runs of one seed"].values())
    assert set(found["exactness"]["relative difference to the CPU, with its choices"]) == {"gradient", "adjoint"}
    assert len(found["exactness"]["two runs of one seed"]) == 4  # each precision, deterministic and not
    for (own,) in found["exactness"]["float32 beside float64, cpu"].values():
        assert 0 < own["with the same choices"] < 1e-5 and own["other choices"] < 10 < own["choices"]
    times = {name: median(own["seconds"]) for name, own in found["speed"]["iteration"].items()}
    ratios = found["speed"]["ratios"]["of the medians"]
    assert ratios["plain / float32"] == times["plain recipe"] / times["float32"] and len(ratios) == len(times) - 1
    profile = found["speed"]["profile"]["bfloat16, TF32"]
    assert sum(kernel["share"] for kernel in profile["kernels"]) <= 1 and profile["device_seconds"] > 0
    shapes = [own["shapes"] for own in profile["operators"] if "convolution" in own["name"]]
    assert any(own.startswith("[[6, 12, 8, 27, 27], [8, 12, 3, 4, 4]") for own in shapes)  # the folded stem
    for point in found["memory"]["iteration"].values():
        assert point["bytes_in_all"] == point["held_bytes"] + point["working_bytes"] + point["data_bytes"]
    assert found["memory"]["student"]["IPC 2"]["set_bytes"] == 3 * 2 * 8 * 48 * 48 * 3 * 4
    for rows in found["evidence"]["sweeps"].values():
        assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
        assert all(len(own["distance"]) == 3 for own in rows[-1]["frames_per_segment"].values())
        assert all(own["change"] > 0 < own["squared_gradient_norm"] for own in rows[1]["frames_per_segment"].values())
    policies = found["evidence"]["policies"]
    early = found["evidence"]["sweeps"]["real"][2]["frames_per_segment"]
    best = [min(early, key=lambda length: early[length]["distance"][c]) for c in range(3)]
    assert policies["real"]["warmup"] == [int(length) for length in best]
    students = found["evidence"]["students"]
    assert len(students) == 3 + 6 + 3 * 3 and all(len(own["per_class"]) == 3 for own in students.values())
    assert students["L = 8 from noise, seed 0"]["batch"] == 3 and students["L = 1 from real, seed 0"]["batch"] == 4
    assert "students' top-1" in capsys.readouterr().out.partition("In short")[2]


def test_a_gradient_in_float32_is_that_of_float64_but_for_choices(load):
    """A max-pool with two pixels that only float64 tells apart, and a ReLU at a value that only float64 has above 0."""
    exactness = load("exactness")
    near = torch.tensor([1.0, 1 + 1e-9, 0.5, 0.25, -1.0, 1e-9, -2.0, -3.0], dtype=torch.float64)
    weights = torch.tensor([3.0, 5.0])

    def slope(number):
        """Of a pool over four pixels each, less 1e-9 / 2: the second has its ReLU open in float64 alone."""
        pixels = near.clone().requires_grad_()
        x = (pixels - 0.5e-9 if number == torch.float64 else pixels.to(number) - 1e-7).view(1, 1, 2, 2, 2)
        pooled = torch.nn.ReLU()(torch.nn.MaxPool3d((1, 2, 2))(x)).flatten()
        (pooled * weights.to(number)).sum().backward()
        return pixels.grad

    wanted, choices = exactness.noted(slope, torch.float64)
    found, own = exactness.noted(slope, torch.float32)
    same, _ = exactness.noted(slope, torch.float32, choices)
    assert wanted.tolist() == [0, 3, 0, 0, 0, 5, 0, 0] and found.tolist() == [3, 0, 0, 0, 0, 0, 0, 0]
    assert same.tolist() == wanted.tolist()
    assert own.unlike(choices) == 2 and choices.count() == 2
    assert exactness.relative(found, wanted) == pytest.approx((9 + 9 + 25) ** 0.5 / (9 + 25) ** 0.5)


def test_a_gpu_benchmark_says_that_there_is_no_gpu(load, capsys):
    with pytest.raises(SystemExit):
        load("gpu").main(["--device", "cpu"])
    assert "there is no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gpu", ["--only", "sped"], "unknown stage sped; known are exactness, speed, memory, evidence"),
        ("gpu", ["--data", "/no such"], "argument --data: '/no such' is no folder that is here"),
        ("gpu", ["--reader", "ucf102"], "argument --reader: unknown dataset 'ucf102'"),
        ("gpu", ["--stride", "0"], "argument --stride: 0 is not a number of at least 1"),
        ("gpu", ["--minutes", "nan"], "argument --minutes: nan is not a number above 0"),
        ("gpu", ["--real-lr", "-1"], "argument --real-lr: -1.0 is not a number above 0"),
        ("gpu", ["--lengths", "3"], "argument --lengths: [3] are not some of (1, 2, 4, 8), ascending"),
        ("gpu", ["--lengths", "8", "1"], "argument --lengths: [8, 1] are not some of (1, 2, 4, 8), ascending"),
        ("gpu", ["--device", "tpu"], "argument --device: 'tpu' is not cpu, cuda, or a GPU by its number"),
        ("gpu", ["--out", __file__], "argument --out: "),
        ("stages", ["--classes", "0"], "argument --classes: 0 is not a number of at least 1 (right is, say, 10 30)"),
        ("growth", ["--width", "0"], "argument --width: 0.0 is not a number above 0 (right is, say, 0.25)"),
        ("distill", ["--compile", "-1"], "argument --compile: -1 is not a number of at least 0"),
        ("decode", ["--data", "/no such"], "argument --data: '/no such' is no folder that is here"),
    ],
)
def test_wrong_options_of_a_benchmark_are_one_line(load, capsys, name, arguments, message):
    with pytest.raises(SystemExit):
        load(name).main(["--dry-run", *arguments] if name == "gpu" else arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_record_is_made_without_an_installed_david(monkeypatch):
    from david.runs import records

    installed = records.own_version()

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(records, "version", version)
    assert records.own_version() == installed


def test_numerics_are_put_back(load):
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    with load("measure").numerics(tf32=False, deterministic=True):
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before


def test_a_record_keeps_what_was_measured_before_a_failure(tmp_path, load, capsys):
    measure = load("measure")
    record = measure.Record("any", "nothing", folder=tmp_path, device=CPU, limit=100)
    assert record.measure("group", "good", lambda: 1) == 1
    assert record.measure("group", "bad", lambda: 1 / 0) is None
    assert record.measure("group", "not a number", lambda: float("nan")) is None
    assert record.measure("group", "long", lambda: 2, needs=1000) is None
    found = json.loads((tmp_path / "any-cpu.json").read_text())
    assert found["group"] == {"good": 1} and set(found["left out"]) == {"group: long"}
    assert set(found["failed"]) == {"group: bad", "group: not a number"}
    assert (
        "ZeroDivisionError" in found["failed"]["group: bad"] and "test_benchmarks.py" in found["failed"]["group: bad"]
    )
