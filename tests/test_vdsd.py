"""VDSD on both backbones: what moves and what stays, its gradients, and its continuation."""

import pytest
import torch
from toy import noise_clips

from david.baselines import vdsd
from david.baselines.experts import load_experts
from david.baselines.gradient_matching import GradientMatcher
from david.baselines.static_dynamic import StaticDynamicSet, hallucinate
from david.c3d import C3D
from david.matching import random_clips
from david.runs import distil
from david.runs.settings import preset
from david.support.loop import Loop
from david.support.seeds import generator

TINY = preset(
    "smoke", width=0.03, distill_iterations=2, distill_batch_real=2, vdsd_static_iterations=1, vdsd_static_batch=2,
    vdsd_optimizer="adam", vdsd_lr_dynamic=0.1, vdsd_lr_hallucinator=0.01,
    expert_count=1, expert_epochs=2, expert_batch=8, mtt_iterations=2, mtt_steps=2, mtt_batch=0, mtt_max_start=1,
    mtt_span=1, mtt_student_lr=0.01, mtt_student_lr_lr=1e-3,
)  # fmt: skip
SGD = TINY.replace(
    vdsd_optimizer="sgd", vdsd_lr_dynamic=0.0, vdsd_lr_hallucinator=0.0, mtt_lr_dynamic=0.0, mtt_lr_hallucinator=0.0
)


@pytest.fixture(scope="module")
def train():
    return noise_clips()


@pytest.fixture(scope="module")
def still():
    """Still images of three classes, two videos each."""
    return torch.randn(3, 4, 3, 48, 48, generator=generator(7))


def run(train, **changes) -> StaticDynamicSet:
    return distil.vdsd(train, **{"ipc": 1, "seed": 0, "settings": TINY} | changes)


def learner_of(train, still, settings=TINY, seed=0, backbone="dm"):
    """The loop of stage 2 under these settings."""
    needs = backbone == "mtt" or settings.distill_networks == "experts"
    experts = load_experts(train, seed=0, settings=settings.expert) if needs else None
    how = settings.mtt if backbone == "mtt" else settings.distill
    learner = {"dm": vdsd.DynamicMatcher, "mtt": vdsd.DynamicTrajectories}[backbone]
    return learner(train, still, seed=seed, settings=settings.vdsd(backbone), how=how, experts=experts)


def stills_of(train, per_class, settings=TINY):
    """The loop of stage 1."""
    own = settings.vdsd("dm")
    recipe = {"batch": own.static_batch, "lr": own.static_lr, "width": own.width}
    return GradientMatcher(train, per_class=per_class, seed=0, **recipe)


def same(first, second):
    return all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


@pytest.mark.parametrize("backbone", ["dm", "mtt"])
def test_the_product(train, backbone, tmp_path):
    made = run(train, ipc=2, backbone=backbone)
    assert made.static.shape == (3, 4, 3, 48, 48) and made.dynamic.shape == (3, 4, 8, 1, 48, 48)
    assert made.weight.numel() + made.bias.numel() == 327 and made.classes == train.classes
    assert not any(tensor.requires_grad for tensor in made.tensors.values())
    info = {"method": "vdsd", "backbone": backbone, "ipc": 2, "seed": 0}
    assert made.info.items() >= info.items() and made.info["settings"]["vdsd_lr_dynamic"] == 0.1
    assert "student_lr" not in made.info  # so students are trained at their own
    assert same(StaticDynamicSet.load(made.save(tmp_path / "set.safetensors")), made)
    # The still images are those of stage 1; everything else moved away from its start.
    stage = stills_of(train, 4)
    stage.run(1)
    assert torch.equal(made.static, stage.images)
    start = learner_of(train, stage.images).memory
    for name in ("dynamic", "weight", "bias"):
        assert (made.tensors[name] - start.tensors[name]).abs().max() > 0


@pytest.mark.parametrize("backbone", ["dm", "mtt"])
def test_the_seed_decides(train, backbone):
    torch.manual_seed(1)
    first = run(train, backbone=backbone)
    torch.manual_seed(2)
    again, other = (run(train, backbone=backbone, seed=seed) for seed in (0, 1))
    assert same(first, again) and first.info == again.info
    assert not any(torch.equal(tensor, other.tensors[name]) for name, tensor in first.tensors.items())


def test_dm_is_the_default_and_others_are_unknown(train):
    assert run(train).info["backbone"] == "dm"
    with pytest.raises(ValueError, match="unknown backbone of VDSD 'frepo'; known are dm, mtt"):
        run(train, backbone="frepo")


def test_start_is_noise_and_the_default_convolution(train, still):
    memory = learner_of(train, still).memory
    assert memory.static is still
    assert abs(memory.dynamic.mean()) < 0.01 and abs(memory.dynamic.std() - 1) < 0.01
    bound = (4 * 27) ** -0.5
    assert 0.9 * bound < memory.weight.abs().max() <= bound and 0 < memory.bias.abs().max() <= bound


def test_a_real_start_is_as_bright_as_real_clips(train):
    """Each memory with the still image that began as a frame of the same clip; in its colours, which do not move."""
    images = stills_of(train, 2).images.detach()
    memory = learner_of(train, images, TINY.replace(vdsd_start="real")).memory
    for c, positions in enumerate(train.by_class()):
        clips = hallucinate(images[c], memory.dynamic[c], memory.weight, memory.bias)
        real = train.batch(random_clips(positions, 2, seed=0, label=c))
        torch.testing.assert_close(clips.mean(2), real.mean(2), rtol=0, atol=1e-5)
        colours = (own - own.mean(-3, keepdim=True) for own in (clips, images[c][:, None]))
        torch.testing.assert_close(*torch.broadcast_tensors(*colours), rtol=0, atol=1e-5)


def test_step_sizes_are_the_published_ones_unless_set():
    sizes = {(b, ipc): vdsd.step_sizes(SGD.vdsd(b), b, ipc) for b in ("dm", "mtt") for ipc in (1, 2, 5)}
    assert sizes["dm", 1] == (1e-4, 1e-5) and sizes["dm", 2] == sizes["dm", 5] == (1e3, 1e-6)
    assert sizes["mtt", 1] == sizes["mtt", 2] == sizes["mtt", 5] == (1e4, 1e-3)
    assert vdsd.step_sizes(SGD.replace(vdsd_lr_dynamic=2.0).vdsd("dm"), "dm", 1) == (2.0, 1e-5)
    assert vdsd.step_sizes(SGD.replace(mtt_lr_hallucinator=2.0).vdsd("mtt"), "mtt", 5) == (1e4, 2.0)


@pytest.mark.parametrize("chunk", [1, 4, 10**9])
def test_dm_gradient_and_step_equal_those_of_one_graph(train, still, monkeypatch, chunk):
    monkeypatch.setattr("david.data.clips.CHUNK", chunk)
    learner = learner_of(train, still, SGD.replace(distill_batch_real=99), seed=5)
    assert len(learner.chunks) == {1: 3, 4: 2, 10**9: 1}[chunk]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in learner.leaves.values()]
    learner.step()

    net, (dynamic, weight, bias), loss = C3D(3, 8, 48, 0.03).reset(generator(5, "network", 0)), leaves, 0
    combination = torch.randint(4, (3, 2), generator=generator(5, "combination", 0)).tolist()
    for c, positions in enumerate(train.by_class()):
        real = net.embed(train.batch(positions)).mean(0).detach()
        pairs = [(2 * v + k // 2, 2 * v + k % 2) for v, k in enumerate(combination[c])]
        clips = [hallucinate(still[c, [i]], dynamic[c, [j]], weight, bias) for i, j in pairs]
        loss = loss + (real - net.embed(torch.cat(clips)).mean(0)).square().sum()
    expected = torch.autograd.grad(loss, leaves)
    assert (expected[0].abs().amax((2, 3, 4, 5)) > 0).sum() == 6  # one memory of two, of every video
    for leaf, before, gradient, lr in zip(learner.leaves.values(), leaves, expected, (1e3, 1e-6, 1e-6), strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())
        torch.testing.assert_close(leaf, before - lr * leaf.grad)


def test_dm_lowers_the_loss(train, still):
    settings = TINY.replace(distill_batch_real=99)
    learner = learner_of(train, still, settings)

    @torch.no_grad()
    def loss():
        net = C3D(3, 8, 48, 0.03).reset(generator(99))
        real = torch.stack([net.embed(train.batch(p)).mean(0) for p in train.by_class()])
        clips = learner.memory.clips(torch.arange(3).repeat_interleave(8), torch.arange(8).repeat(3))
        return vdsd.dm_loss(real, net.embed(clips).unflatten(0, (3, 8)).mean(1)).item()

    before = loss()
    learner.run(5)
    assert loss() < before


def test_mtt_students_see_every_video_once_or_a_balanced_batch(train, still):
    whole, few = (learner_of(train, still, TINY.replace(mtt_batch=size), backbone="mtt") for size in (0, 3))
    clips, labels = whole.draw(generator(1))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and clips.shape == (6, 8, 3, 48, 48) and clips.requires_grad
    assert torch.equal(clips, whole.draw(generator(1))[0]) and not torch.equal(clips, whole.draw(generator(2))[0])
    assert few.draw(generator(1))[1].sort().values.tolist() == [0, 1, 2]


def test_the_learning_rate_of_students_stays_as_it_is(train, still):
    learner = learner_of(train, still, backbone="mtt")
    learner.run(2)
    assert learner.student_lr == torch.tensor(0.01) and set(learner.leaves) == {"dynamic", "weight", "bias"}


@pytest.mark.parametrize("backbone", ["dm", "mtt"])
@pytest.mark.parametrize("settings", [TINY, SGD], ids=["adam", "sgd"])
def test_interrupted_equals_uninterrupted(train, monkeypatch, tmp_path, backbone, settings):
    whole = run(train, backbone=backbone, settings=settings)
    steps, loop_run, step = [], Loop.run, vdsd.DynamicLearner.step
    monkeypatch.setattr(Loop, "run", lambda *args, **options: loop_run(*args, **options, every=1))

    def interrupted_step(self):
        steps.append(self.iteration)
        if len(steps) == 2:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(vdsd.DynamicLearner, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        run(train, backbone=backbone, settings=settings, work=tmp_path / "run")
    monkeypatch.setattr(GradientMatcher, "step", lambda self: pytest.fail("stage 1 was done"))
    resumed = run(train, backbone=backbone, settings=settings, work=tmp_path / "run")
    assert steps == [0, 1, 1]
    assert same(resumed, whole) and resumed.info == whole.info
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"dynamic.safetensors"}
    assert len(list(tmp_path.glob("static-*.safetensors"))) == 1  # for the other backbone too
    assert len(list(tmp_path.glob("expert-*.safetensors"))) == (backbone == "mtt")


def test_what_decides_the_result_is_in_its_identity(train):
    def identity(memories=2, seed=0, **changes):
        static = torch.zeros(3, memories, 3, 48, 48)
        return learner_of(train, static, TINY.replace(**changes), seed=seed).identity()

    others = [{"memories": 4}, {"seed": 1}, {"vdsd_static_lr": 9.0}, {"distill_batch_real": 1}, {"vdsd_momentum": 0.0}]
    assert len({identity(), *(identity(**other) for other in others)}) == 6
    assert identity() == identity(mtt_steps=3, student_steps=1, expert_lr=0.5)
    experts = [identity(distill_networks="experts", expert_count=2, expert_lr=lr) for lr in (0.01, 0.02)]
    assert len({identity(), *experts}) == 3
