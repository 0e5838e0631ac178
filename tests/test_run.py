"""The command line: records as `Experiment` makes them, and one run spread over two processes by torchrun."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import write_dataset

from david import Experiment, Store, preset
from david.baselines.static_dynamic import load_set
from david.data.readers import READERS, check_options
from david.runs import command

CHANGES = {"width": 0.125, "distill_iterations": 4, "teacher_steps": 1, "student_steps": 1, "student_batch": 4}
# Adam would make large steps of rounding errors, and rounding to 8 bits differences of whole grey levels.
CHANGES |= {"distill_optimizer": "sgd", "distill_lr": 60.0, "distill_range": "free"}
METHODS = ["david", "dm:2", "random", "full", "still"]
SETTINGS = preset("smoke", **CHANGES)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, for shares of one and two."""
    return write_dataset(tmp_path_factory.mktemp("ucf101") / "data", classes=("A", "B", "C"))


def words(root, runs, *more, methods=METHODS):
    changes = [f"{name}={value}" for name, value in CHANGES.items()]
    return [
        "--dataset", "ucf101", "--root", str(root), "--runs", str(runs), "--device", "cpu", "--preset", "smoke",
        "--set", *changes, "--method", *methods, *more,
    ]  # fmt: skip


def test_settings_and_options_are_read_as_their_kinds():
    settings = ["size=64", "distill_lr=1e-3", "student_lr=1", "distill_start=real"]
    options = command.parse(["--method", "dm:04", "--set", *settings, "--option", "flip=no", "--option", "lists=/a=b"])
    changes = {"size": 64, "distill_lr": 1e-3, "student_lr": 1.0, "distill_start": "real"}
    assert options.settings == preset("demo", **changes) and options.method == ["dm:4"]
    assert check_options("ucf101", dict(options.option)) == {"flip": False, "lists": "/a=b"}
    with pytest.raises(ValueError, match="option flip: 'never' is not true or false"):
        check_options("ucf101", {"flip": "never"})


def test_the_table_of_a_command(root, tmp_path, capsys):
    more = [
        "--option",
        "flip=False",
        "--seed",
        "0",
        "--seed",
        "2",
        "--set",
        "student_lr=0.5",
        "--set",
        "student_lr=0.004",
    ]
    arguments = words(root, tmp_path, *more, methods=["random:1", "dm"])
    assert command.run(arguments) == 0
    experiment = Experiment("ucf101", SETTINGS, Store(tmp_path), root=root, options={"flip": False}, device="cpu")
    records = experiment.table(["random:1", "dm"], seeds=[0, 2], make=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": top-1")[0] for line in lines] == [
        f"{name}, IPC 1, seed {seed}" for name in ("random:1", "dm") for seed in (0, 2)
    ]
    for line, record in zip(lines, records, strict=True):
        mean = sum(student["top1"] for student in record["students"]) / 2
        assert line.endswith(f": top-1 {100 * mean:.1f} %, {record['path']}")
    written = [record["path"].stat().st_mtime_ns for record in records]
    command.run(arguments)
    assert [record["path"].stat().st_mtime_ns for record in records] == written


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "size"], "argument --set: 'size' is not name=value (right is, say, size=64)"),
        (["--set", "sise=3"], "argument --set: unknown setting 'sise'; did you mean 'size'? (right is, say, size=64)"),
        (["--set", "size=big"], "argument --set: 'big' is not a whole number"),
        (["--set", "search_p=2"], "argument --set: setting search_p is a number from 0 to 1, got 2"),
        (["--set", "distill_optimizer=adam", "distill_lr_unit=curvature"], "argument --set: setting distill_lr_unit="),
        (["--jobs", "2", "--dask", "tcp://here:1"], "not allowed with argument"),
        (["--jobs", "0"], "argument --jobs: 0 processes make nothing; -1 is one a core (right is, say, 2)"),
        (["--jobs", "two"], "argument --jobs: 'two' is not a whole number (right is, say, 2)"),
        (["--preset", "papre"], "invalid choice: 'papre'"),
        (["--dataset", "ucf102"], "argument --dataset: unknown dataset 'ucf102'"),
        (
            ["--root", "/no such"],
            "argument --root: '/no such' is no folder that is here (right is, say, /data",
        ),
        (["--published", "/no such"], "argument --published: '/no such' is no folder that is here"),
        (["--runs", os.devnull], "argument --runs: '/dev/null' is, or is in, a file and no folder"),
        (["--method", "dmm"], "argument --method: unknown method 'dmm'; did you mean 'dm'? (right is, say, david)"),
        (["--method", "dm:0"], "argument --method: method 'dm:0': the option of dm is a segment length L"),
        (["--ipc", "0"], "argument --ipc: 0 is not a number of at least 1 (right is, say, 1)"),
        (["--ipc", "1", "1.5"], "argument --ipc: '1.5' is not a whole number"),
        (["--seed", "-1"], "argument --seed: -1 is not a number of at least 0 (right is, say, 0)"),
        (["--seed", "[0,1]"], "argument --seed: '[0,1]' is not a whole number"),
        (["--device", "gpu"], "argument --device: 'gpu' is not cpu, cuda, or a GPU by its number"),
        (["--option", "flip"], "argument --option: 'flip' is not name=value"),
        (["--option", "flip=2"], "or --option: option flip: '2' is not true or false"),
        (["--option", "flop=no"], "or --option: unknown option 'flop'; did you mean 'flip'?"),
        (["--option", "split=9"], "trainlist09.txt is missing: split=9 needs it"),
        (["--option", "missing=no"], "missing='no': choose 'error' or 'skip'"),
    ],
)
def test_what_a_command_cannot_be(root, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        command.run(words(root, tmp_path, *more))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("david run: error: ") and message in last
    assert not list(tmp_path.iterdir())


# What torchrun starts: notes every iteration of this rank, and, told where, stops there for ever on the second rank.
RANK = """
import sys, time
from pathlib import Path
from david.runs import command, sharding
from david.support.loop import Loop
from david.matching import Distiller
folder, stop, *arguments = sys.argv[1:]
step, loop = Distiller.step, Loop.run
def noted(self):
    with open(Path(folder) / f"{sharding.rank()}.txt", "a") as file:
        print(*self.policy.tolist(), self.iteration, file=file)
    if sharding.rank() == 1 and self.iteration == int(stop):
        time.sleep(600)
    step(self)
Distiller.step = noted
Loop.run = lambda *args, **options: loop(*args, **options, every=1)
command.run(arguments)
"""


def torchrun(script, *arguments):
    """Two processes of a script, under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_two_processes_make_what_one_makes(root, tmp_path):
    """Interrupted in the synthesis of the first method, when the first rank has done its share, and continued."""
    script, runs = tmp_path / "rank.py", tmp_path / "two"
    script.write_text(RANK)
    arguments = words(root, runs)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    with torchrun(script, first, "2", *arguments) as stopped:
        for _ in range(600):
            done = [len(file.read_text().splitlines()) for file in sorted(first.glob("*.txt"))]
            if done == [4 * 2 + 4, 4 * 2 + 3] or stopped.poll() is not None:  # four episodes of two iterations
                break
            time.sleep(0.1)
        time.sleep(0.5)  # for the last checkpoint of the first rank
        stopped.send_signal(signal.SIGTERM)
        output = stopped.communicate(timeout=60)[0]
    assert done == [12, 11], output
    assert not list(runs.glob("*.json"))
    (work,) = (path for path in (runs / "work").iterdir() if path.is_dir())
    kept = {"search.json", "checkpoint.safetensors"}
    ranks = {path.name: {own.name for own in path.iterdir()} for path in work.iterdir()}
    assert ranks == {"rank-0-of-2": kept, "rank-1-of-2": kept}

    with torchrun(script, second, "-1", *arguments) as resumed:
        output = resumed.communicate(timeout=120)[0]
    assert resumed.returncode == 0, output
    assert "not sharded, so made by the first rank while the others wait: random\n" in output
    assert output.count("top-1") == len(METHODS)  # one line a record, not one a rank
    lines = {rank: (second / f"{rank}.txt").read_text().splitlines() for rank in (0, 1)}
    assert lines[0] == [f"2 {k}" for k in range(4)]  # of DAViD nothing was left to do
    assert [line[-1] for line in lines[1]] == ["2", "3", "0", "1", "2", "3"]

    one, two = (
        Experiment("ucf101", SETTINGS, Store(folder), root=root, device="cpu") for folder in (tmp_path / "one", runs)
    )
    for alone, shared in zip(one.table(METHODS, seeds=[0]), two.table(METHODS, seeds=[0], make=False), strict=True):
        assert shared["made"]["device"] == f"{alone['made']['device']}, 2 processes"
        assert [s["seed"] for s in shared["students"]] == [s["seed"] for s in alone["students"]]
        assert shared["frames_per_segment"] == alone["frames_per_segment"]
        if shared["method"] in ("full", "still"):  # which have no set
            continue
        videos = [load_set(record["path"].with_suffix(".safetensors")).videos for record in (alone, shared)]
        torch.testing.assert_close(videos[1], videos[0], rtol=1e-3, atol=1e-3)
        for mine, other in zip(*((r["search"] or {"episodes": []})["episodes"] for r in (alone, shared)), strict=True):
            assert mine["frames_per_segment"] == other["frames_per_segment"]
            assert mine["forward"] == other["forward"] and mine["backward"] == other["backward"]
            assert other["reward"] == pytest.approx(mine["reward"], rel=1e-3)


def test_two_processes_make_a_sweep_together(root, tmp_path):
    script, methods = tmp_path / "rank.py", ["dm:2", "dm:1,8,2"]
    script.write_text(RANK)
    with torchrun(script, tmp_path, "-1", *words(root, tmp_path / "two", "--sweep", methods=methods)) as run_:
        output = run_.communicate(timeout=120)[0]
    assert run_.returncode == 0, output
    tables = [
        Experiment("ucf101", SETTINGS, Store(folder), root=root, device="cpu").table(methods, seeds=[0])
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    for alone, swept in zip(*tables, strict=True):
        assert swept["swept"] and swept["frames_per_segment"] == alone["frames_per_segment"]
        videos = [load_set(record["path"].with_suffix(".safetensors")).videos for record in (alone, swept)]
        torch.testing.assert_close(videos[1], videos[0], rtol=1e-3, atol=1e-3)


def test_torchrun_and_a_cluster_are_two_things(root, tmp_path, monkeypatch):
    monkeypatch.setattr("david.runs.sharding.size", lambda: 2)
    with pytest.raises(ValueError, match="torchrun spreads one run, --jobs and --dask a table"):
        command.run(words(root, tmp_path, "--jobs", "2"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--method", "dm:9"], "error: frames_per_segment=9 does not divide the 8 frames of a clip"),
        (["cache", "folder", "nowhere"], "error: "),
        (["download", "ucf102"], "error: nothing to download for 'ucf102'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message) and not list(tmp_path.iterdir())


def test_every_command_is_there(capsys):
    for name in command.COMMANDS:
        with pytest.raises(SystemExit) as done:
            command.main([name, "--help"])
        assert done.value.code == 0 and f"david {name}" in capsys.readouterr().out
    assert command.main(["datasets"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(READERS)
