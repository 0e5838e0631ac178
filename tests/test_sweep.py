"""A sweep carries every L at once and gives the videos of runs of their own."""

import math

import pytest
import torch
from toy import noise_clips

from david import Experiment, Store
from david.baselines.static_dynamic import load_set
from david.matching import Distiller
from david.reward import TeacherReward
from david.runs.costs import search_costs
from david.runs.records import summary
from david.runs.settings import preset
from david.sweep import Sweep, Sweeps
from david.training import load_teacher

TINY = preset("smoke", width=0.125, distill_batch_real=2)


@pytest.fixture(scope="module")
def train():
    return noise_clips()


def test_a_policy_taken_from_a_sweep_is_that_of_its_own_run(train):
    """After one iteration to rounding: the clips of other L share a network's pass no more, those of classes do.

    A pixel that is rounded to 8 bits would make a grey level of it.
    """
    policy, settings = torch.tensor([8, 2, 1]), TINY.replace(distill_range="free", distill_lr=10.0)
    sweep = Sweep(train, ipc=2, seed=3, settings=settings.distill)
    own = Distiller(train, policy, ipc=2, seed=3, settings=settings.distill)
    start = own.videos.detach().clone()
    assert torch.equal(sweep.videos(policy), start)
    for loop in (sweep, own):
        loop.run(1)
    torch.testing.assert_close(sweep.videos(policy), own.distilled(), rtol=0, atol=1e-5)
    assert (own.distilled() - start).abs().amax((1, 2, 3, 4, 5)).min() > 1e-3


def test_whole_runs_of_one_length_are_identical(train):
    sweep = Sweep(train, ipc=1, seed=0, settings=TINY.distill)
    sweep.run(3)
    for length in sweep.actions:
        policy = torch.full((3,), length)
        own = Distiller(train, policy, ipc=1, seed=0, settings=TINY.distill)
        own.run(3)
        assert torch.equal(sweep.videos(policy), own.distilled()) and torch.equal(sweep.runs[length].videos, own.videos)


def test_a_whole_run_of_a_mixed_policy_is_as_near_as_one_begun_a_millionth_off(train):
    policy, settings = torch.tensor([8, 2, 1]), TINY.replace(distill_range="free", distill_lr=10.0)
    swept = Sweep(train, ipc=1, seed=0, settings=settings.distill)
    own, off = (Distiller(train, policy, ipc=1, seed=0, settings=settings.distill) for _ in range(2))
    with torch.no_grad():
        off.videos += 1e-6 * torch.randn(off.videos.shape, generator=torch.Generator().manual_seed(0))
    for loop in (swept, own, off):
        loop.run(12)
    apart, perturbed = (
        (videos - own.distilled()).square().mean((1, 2, 3, 4, 5)) for videos in (swept.videos(policy), off.distilled())
    )
    assert (apart < perturbed).all() and perturbed.max() < 1e-6


def test_a_sweep_continues_from_its_checkpoint(train, tmp_path):
    whole, path = Sweep(train, ipc=1, seed=0, settings=TINY.distill), tmp_path / "checkpoint.safetensors"
    whole.run(4)
    first = Sweep(train, ipc=1, seed=0, settings=TINY.distill)
    first.run(2, checkpoint=path, every=2)
    second = Sweep(train, ipc=1, seed=0, settings=TINY.distill)
    second.run(4, checkpoint=path)
    for length in whole.actions:
        own, other = whole.runs[length], second.runs[length]
        assert torch.equal(other.videos, own.videos) and torch.equal(other.distilled(), own.distilled())
    with pytest.raises(ValueError, match="another distillation"):
        Sweep(train, ipc=1, seed=1, settings=TINY.distill).run(4, checkpoint=path)


def table(folder, methods, settings, **options):
    experiment = Experiment("motions", settings, Store(folder), device="cpu", **options)
    return experiment.table(methods, seeds=[0])


def test_records_out_of_sweeps_are_those_of_runs_of_their_own(tmp_path):
    """And say so: seconds that other rows share are nobody's. A method with steps of its own is not in the sweep."""
    methods = ["dm", "dm:2", "dm:any", "david:warmup", "david:warmup-undistilled", "dm:published"]
    settings = TINY.replace(search_episodes=5, student_repeats=1)  # four of one warm-up round, one beyond it
    alone, swept = (table(tmp_path / str(own), methods, settings, swept=own) for own in (False, True))
    for one, other in zip(alone, swept, strict=True):
        assert other["frames_per_segment"] == one["frames_per_segment"]
        videos = [load_set(record["path"].with_suffix(".safetensors")).videos for record in (one, other)]
        # A pixel that rounding moved across the middle between two grey levels is a level, 0.018 deviations, off.
        assert (videos[0] - videos[1]).abs().max() < 0.02 and (videos[0] != videos[1]).float().mean() < 1e-3
        if one["method"] in ("dm", "dm:2"):
            assert torch.equal(*videos) and other["students"] == one["students"]
        whole = other["method"] == "dm:published"
        assert ("swept" in other) != whole and (other["seconds"]["distill"] is None) != whole
        assert [i for i, _ in other.get("curve", [])] == [i for i, _ in one.get("curve", [])]
        for i, loss in other.get("curve", []):
            assert loss == pytest.approx(dict(one["curve"])[i], rel=1e-4)
    for one, other in zip(*(rows[3]["search"]["episodes"] for rows in (alone, swept))):
        assert other["reward"] == pytest.approx(one["reward"], rel=1e-4)
        assert {k: other[k] for k in ("forward", "backward")} == {k: one[k] for k in ("forward", "backward")}
    timed = [episode["seconds"] is not None for episode in swept[3]["search"]["episodes"]]
    assert timed == [False] * 4 + [True] and math.isnan(
        search_costs(swept[3]["search"]["episodes"], settings)["seconds"]
    )
    later = swept[3]["sweep"]  # what the teacher sees of every L and class, from the start to the end
    assert [look["iteration"] for look in later] == [0, 1, 2] and torch.tensor(later[0]["distance"]).shape == (4, 12)
    assert summary(swept).set_index("method")["seconds"].isna().tolist() == [True] * 5 + [False]


def test_a_sweep_is_made_once_and_one_that_is_torn_is_named(train, tmp_path, monkeypatch):
    reward = TeacherReward(load_teacher(train, seed=0, settings=TINY.teacher), train)
    sweeps, one = Sweeps(train, TINY.distill, reward, tmp_path), {"ipc": 1, "seed": 0, "iterations": 1}
    whole, policy = sweeps.get(**one), torch.tensor([8, 2, 1])
    assert whole.videos(policy).shape == (3, 1, 8, 3, 48, 48) and len(whole.notes) == 2
    monkeypatch.setattr(Sweep, "step", lambda self: pytest.fail("this was to be read, not made"))
    monkeypatch.setattr("david.sweep.locked", lambda path: pytest.fail("a folder that is read-only has no locks"))
    assert torch.equal(sweeps.get(**one).videos(policy), whole.videos(policy))
    (path,) = tmp_path.glob("sweep-*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{path.name} is not a whole sweep .*; delete it to make one anew"):
        sweeps.get(**one)
