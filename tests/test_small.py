"""One class, a class with one video, videos that are all alike: a method runs, or says why it cannot."""

import json
from dataclasses import replace

import pytest
from conftest import write_video
from davidbook import tables
from toy import noise_clips

from david import Experiment, Store, preset
from david.data.readers import load
from david.runs.methods import ROWS, method
from david.training import evaluate

SETTINGS = preset(
    "smoke", width=0.125, distill_iterations=1, teacher_steps=1, student_steps=1, student_repeats=1, mtt_iterations=1,
    mtt_steps=1, vdsd_static_iterations=1, search_episodes=2, teacher_batch=2, student_batch=2,
)  # fmt: skip


def alike(labels):
    """Clips that no network can tell apart."""
    clips = noise_clips(labels=labels)
    return replace(clips, videos=clips.videos[:1].repeat(len(labels), 1, 1, 1, 1))


DATA = {
    "one class": noise_clips(labels=(0, 0, 0)),
    "one video": noise_clips(labels=(0,)),
    "a video a class": noise_clips(labels=(0, 1)),
    "all alike": alike((0, 1, 0, 1)),
}
NAMES = [*ROWS, "still", "dm:trained", "mean:2", "david:trained", "david:halving"]
NAMES.remove("keyframe")  # it reads files: below


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", DATA)
def test_every_method_runs_or_says_why_it_cannot(data, name, tmp_path):
    train, found = DATA[data], method(name)
    if found.follows and len(train.classes) == 1:
        with pytest.raises(ValueError, match=r"MTT follows .* and class 0 is the only one: add a class, or choose"):
            found.distill(train, ipc=1, seed=0, settings=SETTINGS, work=tmp_path / "work")
        return
    distilled = found.distill(train, ipc=1, seed=0, settings=SETTINGS, work=tmp_path / "work")
    result = evaluate(distilled, train, seed=0, settings=SETTINGS.student)
    assert len(train.classes) > 1 or result["top1"] == 1
    json.dumps([result, distilled.info], allow_nan=False)  # what a record holds


@pytest.mark.parametrize("name", ["random", "herding", "kcenter", "keyframe"])
def test_more_stored_videos_than_there_are(name):
    with pytest.raises(ValueError, match=r"ipc=2 asks for more .* than class class 0 has training clips \(1\); use at"):
        method(name).distill(DATA["a video a class"], ipc=2, seed=0, settings=SETTINGS)


def test_a_folder_of_one_class(tmp_path):
    for i in range(2):
        (tmp_path / "only").mkdir(exist_ok=True)
        write_video(tmp_path / "only" / f"{i}.mp4", 12 + i, width=64, height=48)
    experiment = Experiment("folder", SETTINGS, Store(tmp_path / "runs"), root=tmp_path, device="cpu")
    assert len(load("folder", tmp_path).test) == 1
    records = experiment.table(["full", "random", "keyframe", "david", "dm"], seeds=[0])
    assert [record["students"][0]["top1"] for record in records] == [1] * 5
    assert len(tables.accuracy_table(records)) == 5
    with pytest.raises(ValueError, match=r"MTT follows .* and only is the only one"):
        experiment.table(["random", "mtt"], ipcs=[1], seeds=[1])  # before any work
    assert not list((tmp_path / "runs").glob("*seed1*"))
