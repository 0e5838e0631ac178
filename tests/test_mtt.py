"""MTT: its loop over trajectories, from the first step to the set, interrupted or not."""

import pytest
import torch
from test_trajectories import TINY
from toy import noise_clips

from david.baselines.experts import Experts, load_experts
from david.baselines.mtt import TrajectoryMatcher
from david.runs import distil
from david.sets import DistilledSet
from david.support.pixels import keep_in_range, rounded


@pytest.fixture(scope="module")
def train():
    return noise_clips()


@pytest.fixture(scope="module")
def experts(train):
    return load_experts(train, seed=0, settings=TINY.expert)


def ran(matcher, iterations, **options):
    """The videos, the learning rate and what would be stored after so many iterations."""
    matcher.run(iterations, **options)
    return *(leaf.detach() for leaf in matcher.leaves.values()), matcher.distilled({}).videos


@pytest.mark.parametrize(
    "changes",
    [
        {"mtt_lr": 10.0},
        {"mtt_optimizer": "adam", "mtt_lr": 0.1},
        {"mtt_lr_unit": "pixel", "mtt_lr": 0.5, "mtt_range": "8-bit", "mtt_average": 4.0},
    ],
    ids=["sgd", "adam", "pixel"],
)
def test_interrupted_equals_uninterrupted(train, experts, monkeypatch, tmp_path, changes):
    settings = TINY.replace(**changes, mtt_steps=1)
    path, steps = tmp_path / "checkpoint.safetensors", []
    step = TrajectoryMatcher.step

    def matcher():
        return TrajectoryMatcher(train, experts, ipc=1, seed=0, settings=settings.mtt)

    def interrupted_step(self):
        steps.append(self.iteration)
        if len(steps) == 4:
            raise KeyboardInterrupt
        step(self)

    whole = ran(matcher(), 4)
    monkeypatch.setattr(TrajectoryMatcher, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        matcher().run(4, checkpoint=path, every=2)
    resumed = ran(matcher(), 4, checkpoint=path, every=2)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert all(torch.equal(one, other) for one, other in zip(resumed, whole))


def test_foreign_checkpoint_is_refused(train, experts, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    asked = {"ipc": 1, "seed": 0, "settings": TINY.mtt}
    TrajectoryMatcher(train, experts, **asked).run(1, checkpoint=path, every=1)
    changed = [{"seed": 1}, {"ipc": 2}, {"settings": TINY.replace(mtt_lr=0.5).mtt}]
    others = Experts(experts.recordings, "others")
    for known, other in [*((experts, change) for change in changed), (others, {})]:
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is the checkpoint of another distillation"):
            TrajectoryMatcher(train, known, **asked | other).run(2, checkpoint=path)


def test_one_step_by_hand(train, experts):
    matcher = TrajectoryMatcher(train, experts, ipc=2, seed=3, settings=TINY.mtt)
    videos, student_lr = (leaf.detach().clone() for leaf in matcher.leaves.values())
    assert videos.shape == (3, 2, 8, 3, 48, 48) and student_lr == 0.05
    clips, labels = matcher.draw(None)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and torch.equal(clips[3], videos[1, 1])
    assert all(
        torch.isin(video[0, 0, 0, :3], train.batch([0, 1, 2, 3, 4, 5, 6, 7])).all() for video in videos.flatten(0, 1)
    )
    matcher.step()
    moved = matcher.leaves["videos"]
    assert moved.grad.abs().amax((2, 3, 4, 5)).min() > 0
    torch.testing.assert_close(moved.detach(), videos - 10 * moved.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        matcher.leaves["student_lr"].detach(), student_lr - 1e-3 * matcher.leaves["student_lr"].grad
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_in_pixels_by_hand(train, experts, momentum):
    """One that goes on in one direction becomes mtt_lr, root mean square, where the gradient is as at the start."""
    settings = TINY.replace(mtt_lr_unit="pixel", mtt_lr=0.02, mtt_momentum=momentum, mtt_steps=2)
    plain = TrajectoryMatcher(train, experts, ipc=2, seed=3, settings=TINY.replace(mtt_steps=2).mtt)
    leaves, gradients = plain.leaves, []
    for iteration in range(10):
        plain.loss.backward(plain.draw, leaves["student_lr"], iteration)
        gradients.append(leaves["videos"].grad)
        leaves["videos"].grad = None
    typical = torch.stack(gradients).square().mean().sqrt()
    matcher = TrajectoryMatcher(train, experts, ipc=2, seed=3, settings=settings.mtt)
    assert matcher.losses == [] and all(leaf.grad is None for leaf in matcher.leaves.values())
    start = matcher.leaves["videos"].detach().clone()
    matcher.step()
    moved = matcher.leaves["videos"].detach() - start
    torch.testing.assert_close(moved, -0.02 * (1 - momentum) / typical * gradients[0], rtol=1e-3, atol=1e-6)
    ratio = gradients[0].square().mean().sqrt() / typical
    assert moved.square().mean().sqrt().item() == pytest.approx(0.02 * (1 - momentum) * ratio.item(), rel=1e-3)


def test_bounded_pixels_and_their_average(train, experts):
    """A step far beyond black and white ends there; what is stored is the average of iterates 1 and 2, in 8 bits."""
    settings = TINY.replace(mtt_range="8-bit", mtt_average=4.0, mtt_lr_unit="pixel", mtt_lr=5.0, mtt_steps=1)
    matcher, iterates = TrajectoryMatcher(train, experts, ipc=1, seed=0, settings=settings.mtt), []
    for _ in range(2):
        matcher.step()
        iterates.append(matcher.leaves["videos"].detach().clone())
        assert torch.equal(iterates[-1], keep_in_range(iterates[-1].clone()))
    assert (rounded(iterates[1]) - iterates[1]).abs().lt(1e-5).float().mean() > 0.3  # black or white
    expected = rounded(iterates[0] + 4 / 5 * (iterates[1] - iterates[0]))
    torch.testing.assert_close(matcher.distilled({}).videos, expected, rtol=0, atol=0.02)  # a grey level
    assert (matcher.distilled({}).videos == expected).float().mean() > 0.999


def test_the_learning_rate_stays_positive(train, experts):
    settings = TINY.replace(mtt_student_lr=0.0011, mtt_student_lr_lr=1e3, mtt_steps=1)
    matcher = TrajectoryMatcher(train, experts, ipc=1, seed=0, settings=settings.mtt)
    matcher.leaves["student_lr"].grad = torch.tensor(1.0)
    matcher.loss.backward = lambda *args: setattr(matcher.leaves["student_lr"], "grad", torch.tensor(1.0))
    matcher.step()
    assert matcher.leaves["student_lr"].item() == pytest.approx(0.001)


def test_iterations_lower_the_loss(train, experts):
    """Of the very trajectories that they saw, on average."""
    settings = TINY.replace(mtt_optimizer="adam", mtt_lr=0.05, mtt_steps=2, mtt_student_lr_lr=1e-2)
    matcher = TrajectoryMatcher(train, experts, ipc=1, seed=0, settings=settings.mtt)

    def mean_loss():
        return sum(matcher.loss.backward(matcher.draw, matcher.leaves["student_lr"], i).item() for i in range(3))

    before = mean_loss()
    matcher.run(5)
    assert len(matcher.losses) == 5 and mean_loss() < before


def test_distill(train, tmp_path):
    settings = TINY.replace(mtt_iterations=2, mtt_steps=1)
    made = distil.mtt(train, ipc=1, seed=0, settings=settings, work=tmp_path / "run")
    assert made.videos.shape == (3, 1, 8, 3, 48, 48) and not made.videos.requires_grad
    assert made.policy.tolist() == [8, 8, 8] and made.classes == train.classes
    assert (made.info["method"], made.info["ipc"], made.info["seed"]) == ("mtt", 1, 0)
    assert made.info["student_lr"] >= 0.001 and made.info["settings"]["mtt_steps"] == 1
    assert len(list(tmp_path.glob("expert-*.safetensors"))) == 2  # beside the work folder: for other runs too
    again = distil.mtt(train, ipc=1, seed=0, settings=settings)
    assert torch.equal(again.videos, made.videos)
    loaded = DistilledSet.load(made.save(tmp_path / "set.safetensors"))
    assert loaded.info["student_lr"] == made.info["student_lr"]
