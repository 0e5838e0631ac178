"""A sweep carries every L at once and gives the videos of runs of their own."""

import pytest
import torch
from toy import noise_clips

from david.matching import Distiller
from david.presets import preset
from david.sweep import Sweep

TINY = preset("smoke", width=0.125, distill_batch_real=2)


@pytest.fixture(scope="module")
def train():
    return noise_clips()


def test_a_policy_taken_from_a_sweep_is_that_of_its_own_run(train):
    """After one iteration to rounding: the clips of other L share a network's pass no more, those of classes do.

    A pixel that is rounded to 8 bits would make a grey level of it.
    """
    policy, settings = torch.tensor([8, 2, 1]), TINY.replace(distill_range="free", distill_lr=10.0)
    sweep = Sweep(train, ipc=2, seed=3, settings=settings)
    own = Distiller(train, policy, ipc=2, seed=3, settings=settings)
    start = own.videos.detach().clone()
    assert torch.equal(sweep.videos(policy), start)
    for loop in (sweep, own):
        loop.run(1)
    torch.testing.assert_close(sweep.videos(policy), own.distilled(), rtol=0, atol=1e-5)
    assert (own.distilled() - start).abs().amax((1, 2, 3, 4, 5)).min() > 1e-3


def test_whole_runs_of_one_length_are_identical(train):
    sweep = Sweep(train, ipc=1, seed=0, settings=TINY)
    sweep.run(3)
    for length in sweep.actions:
        policy = torch.full((3,), length)
        own = Distiller(train, policy, ipc=1, seed=0, settings=TINY)
        own.run(3)
        assert torch.equal(sweep.videos(policy), own.distilled()) and torch.equal(sweep.runs[length].videos, own.videos)


def test_a_sweep_continues_from_its_checkpoint(train, tmp_path):
    whole, path = Sweep(train, ipc=1, seed=0, settings=TINY), tmp_path / "checkpoint.safetensors"
    whole.run(4)
    first = Sweep(train, ipc=1, seed=0, settings=TINY)
    first.run(2, checkpoint=path, every=2)
    second = Sweep(train, ipc=1, seed=0, settings=TINY)
    second.run(4, checkpoint=path)
    for length in whole.actions:
        own, other = whole.runs[length], second.runs[length]
        assert torch.equal(other.videos, own.videos) and torch.equal(other.distilled(), own.distilled())
    with pytest.raises(ValueError, match="another distillation"):
        Sweep(train, ipc=1, seed=1, settings=TINY).run(4, checkpoint=path)
