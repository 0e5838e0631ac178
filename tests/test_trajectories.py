"""Experts that are kept and read back, and the trajectory loss: its value, its gradients, its memory."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from toy import noise_clips

from david.baselines.experts import Experts, flatten, load_experts, student_net, train_expert, unflatten
from david.baselines.mtt import TrajectoryLoss
from david.c3d import C3D
from david.data.clips import Clips
from david.runs.settings import preset
from david.sets import DistilledSet
from david.support.seeds import derive, generator

TINY = preset(
    "smoke", width=0.03, expert_count=2, expert_epochs=3, expert_batch=4, expert_lr=0.05,
    mtt_iterations=4, mtt_optimizer="sgd", mtt_lr=10.0, mtt_momentum=0.5, mtt_steps=3, mtt_batch=0, mtt_span=1,
    mtt_max_start=2, mtt_student_lr=0.05, mtt_student_lr_lr=1e-3,
    mtt_range="free", mtt_lr_unit="absolute", mtt_average=0.0,  # plain steps, to be followed by hand
)  # fmt: skip


@pytest.fixture(scope="module")
def train():
    return noise_clips()


@pytest.fixture(scope="module")
def experts(train):
    return load_experts(train, seed=0, settings=TINY.expert)


@pytest.fixture(scope="module")
def double(experts):
    """The same experts in double precision, for gradients to compare."""
    return Experts([recording.double() for recording in experts.recordings])


class Leaves:
    """Synthetic videos (3, 1, 8, 3, 48, 48) and a learning rate, as leaves of their own."""

    def __init__(self, dtype=torch.float64, lr=0.05, batch=0):
        videos = torch.randn(3, 1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
        self.videos = videos.to(dtype).requires_grad_()
        self.lr, self.batch = torch.tensor(lr, dtype=dtype, requires_grad=True), batch

    def draw(self, random):
        if not self.batch:
            return self.videos.flatten(0, 1), torch.arange(3)
        return DistilledSet(self.videos, torch.tensor([8, 2, 4]), ["a", "b", "c"]).batch(random, self.batch)


def loss_of(train, experts, seed=0, **changes) -> TrajectoryLoss:
    return TrajectoryLoss(train, experts, seed=seed, settings=TINY.replace(**changes).mtt)


def one_graph(loss, leaves, iteration):
    """The loss and its gradients (videos, lr) by a single graph of all steps; the equations once more."""
    start, target = loss.segment(iteration)
    theta = start.clone().requires_grad_()
    net = C3D(3, 8, 48, TINY.width).train()
    for step in range(loss.steps):
        clips, labels = leaves.draw(generator(loss.seed, "trajectory", iteration, step))
        with torch.random.fork_rng():
            torch.manual_seed(derive(loss.seed, "dropout", iteration, step))
            ce = cross_entropy(functional_call(net, unflatten(theta, net), (clips,)), labels)
        (slope,) = torch.autograd.grad(ce, theta, create_graph=True)
        theta = theta - leaves.lr * slope
    value = (theta - target).square().sum() / (start - target).square().sum()
    return value, *torch.autograd.grad(value, (leaves.videos, leaves.lr))


def reached(loss, leaves, iteration):
    """theta_S: plain SGD on a network from theta*(t)."""
    start, _ = loss.segment(iteration)
    net = C3D(3, 8, 48, TINY.width).to(start.dtype).train()
    net.load_state_dict(unflatten(start, net))
    update = torch.optim.SGD(net.parameters(), leaves.lr.item())
    for step in range(loss.steps):
        clips, labels = leaves.draw(generator(loss.seed, "trajectory", iteration, step))
        with torch.random.fork_rng():
            torch.manual_seed(derive(loss.seed, "dropout", iteration, step))
            update.zero_grad()
            cross_entropy(net(clips.detach()), labels).backward()
            update.step()
    return flatten(net)


def test_vectors_and_parameters():
    net = C3D(3, 8, 48, TINY.width)
    vector = flatten(net).requires_grad_()
    named = unflatten(vector, net)
    assert list(named) == [name for name, _ in net.named_parameters()]
    assert all(torch.equal(named[name], weight) for name, weight in net.named_parameters())
    sum(part.sum() for part in named.values()).backward()
    assert (vector.grad == 1).all()
    clips = torch.randn(2, 8, 3, 48, 48)
    torch.testing.assert_close(functional_call(net.eval(), named, (clips,)), net(clips))


def test_an_expert_is_plain_sgd(train):
    """The first epoch by hand: all clips once, shuffled, in batches of 4."""
    snapshots = train_expert(train, 1, seed=0, settings=TINY.expert)
    assert snapshots.shape == (4, flatten(C3D(3, 8, 48, TINY.width)).numel()) and snapshots.dtype == torch.float32
    seed = derive(0, "expert", 1)
    net = student_net(train, TINY.width).reset(generator(seed, "weights"))
    assert torch.equal(snapshots[0], flatten(net))
    order = torch.randperm(8, generator=generator(seed, "batches"))
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "dropout"))
        for picks in (order[:4], order[4:]):
            net.zero_grad()
            cross_entropy(net(train.batch(picks)), torch.as_tensor(train.labels)[picks]).backward()
            with torch.no_grad():
                for weight in net.parameters():
                    weight -= 0.05 * weight.grad
    torch.testing.assert_close(snapshots[1], flatten(net), rtol=0, atol=1e-6)


def test_every_epoch_shows_every_clip_once(monkeypatch):
    train, seen = noise_clips(labels=(0, 1) * 4, flip=True), []
    batch = Clips.batch
    monkeypatch.setattr(
        Clips, "batch", lambda self, i, **options: seen.append((np.asarray(i), options)) or batch(self, i, **options)
    )
    train_expert(train, 0, seed=0, settings=TINY.replace(expert_batch=3).expert)
    assert [len(picks) for picks, _ in seen] == [3, 3, 2] * 3
    epochs = [np.concatenate([picks for picks, _ in seen[i : i + 3]]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(options["flip"] and options["generator"] for _, options in seen)


def test_experts_are_kept_and_not_trained_again(train, experts, tmp_path, monkeypatch):
    trained = []
    original = train_expert

    def counted(train, number, *, seed, settings):
        trained.append(number)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return original(train, number, seed=seed, settings=settings)

    monkeypatch.setattr("david.baselines.experts.train_expert", counted)
    with pytest.raises(KeyboardInterrupt):
        load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 and not list(tmp_path.glob("*.part"))
    kept = load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)
    assert trained == [0, 1, 1] and len(kept) == 2 and kept.epochs == 3
    assert len(load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)) == 2
    assert len(load_experts(train, seed=0, settings=TINY.replace(expert_count=3).expert, folder=tmp_path)) == 3
    assert trained == [0, 1, 1, 2]  # one more, and the two that there were
    for path, recording in zip(sorted(tmp_path.glob("*.safetensors")), experts.recordings):
        assert path.name.startswith("expert-") and torch.equal(load_file(path)["snapshots"], recording)
    for k, epoch, span in [(0, 0, 1), (1, 2, 1), (1, 0, 3)]:
        for got, expected in zip(kept.segment(k, epoch, span), experts.segment(k, epoch, span)):
            assert got.ndim == 1 and torch.equal(got, expected)
    assert not torch.equal(kept.segment(0, 0, 1)[0], kept.segment(1, 0, 1)[0])
    with pytest.raises(IndexError, match="epochs 3 to 4 of an expert of 3 epochs"):
        kept.segment(0, 3, 1)
    load_experts(train, seed=0, settings=TINY.replace(expert_lr=0.01).expert, folder=tmp_path)
    load_experts(train.subset(range(6)), seed=0, settings=TINY.expert, folder=tmp_path)
    assert trained == [0, 1, 1, 2, 0, 1, 0, 1] and len(list(tmp_path.glob("*.safetensors"))) == 7


def test_a_file_that_is_no_expert_is_named(train, tmp_path):
    load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)
    path = sorted(tmp_path.glob("*.safetensors"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{path.name} is not a whole expert .*; delete it to train one anew"):
        load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)
    for foreign in ({"weights": torch.zeros(3)}, {"snapshots": torch.zeros(2, 5)}):
        save_file(foreign, path)
        with pytest.raises(ValueError, match=rf"{path.name} is not .*; delete it to train one anew"):
            load_experts(train, seed=0, settings=TINY.expert, folder=tmp_path)


def test_a_diverging_expert_is_an_error(train):
    with pytest.raises(FloatingPointError, match="expert 0: the loss is nan at step 2; lower expert_lr"):
        load_experts(train, seed=0, settings=TINY.replace(expert_lr=1e20).expert)


@pytest.mark.parametrize("batch", [0, 4])
def test_gradients_equal_those_of_one_graph(train, double, batch):
    loss, leaves = loss_of(train, double, mtt_steps=3), Leaves(batch=batch)
    expected = one_graph(loss, leaves, iteration=7)
    got = (loss.backward(leaves.draw, leaves.lr, 7), leaves.videos.grad, leaves.lr.grad)
    assert got[0].grad_fn is None and got[1].abs().amax((1, 2, 3, 4, 5)).min() > 0 and got[2] != 0
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other.detach(), rtol=1e-8, atol=1e-10 * other.abs().max().item())


def test_gradients_equal_finite_differences(train, double):
    loss, leaves = loss_of(train, double, mtt_steps=2), Leaves(lr=0.2)
    start, target = loss.segment(1)

    def value():
        return ((reached(loss, leaves, 1) - target).square().sum() / (start - target).square().sum()).item()

    assert loss.backward(leaves.draw, leaves.lr, 1).item() == pytest.approx(value())
    pixels = leaves.videos.grad.flatten().abs().topk(2).indices.tolist()
    for leaf, place, width in [*((leaves.videos, pixel, 1e-3) for pixel in pixels), (leaves.lr, 0, 1e-5)]:
        entry, values = leaf.data.view(-1)[place], []
        before = entry.item()
        for moved in (before + width, before - width):
            entry.fill_(moved)
            values.append(value())
        entry.fill_(before)
        slope = (values[0] - values[1]) / (2 * width)
        assert leaf.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-3)


def test_gradients_add_up_and_go_nowhere_else(train, double):
    loss, leaves = loss_of(train, double, mtt_steps=2), Leaves()
    state = torch.get_rng_state()
    loss.backward(leaves.draw, leaves.lr, 0)
    first = leaves.videos.grad.clone(), leaves.lr.grad.clone()
    loss.backward(leaves.draw, leaves.lr, 0)
    torch.testing.assert_close(leaves.videos.grad, 2 * first[0])
    torch.testing.assert_close(leaves.lr.grad, 2 * first[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in loss.net.parameters())
    assert not any(recording.requires_grad for recording in double.recordings)
    fixed = Leaves()
    fixed.lr.requires_grad_(False)
    loss.backward(fixed.draw, fixed.lr, 0)
    torch.testing.assert_close(fixed.videos.grad, first[0], rtol=0, atol=0)


def test_gradients_reach_leaves_behind_the_clips(train, double):
    """As VDSD's: clips made by a network from two kinds of memory."""
    loss, leaves = loss_of(train, double, mtt_steps=2), Leaves()
    loss.backward(leaves.draw, leaves.lr, 0)
    static = leaves.videos.detach()[:, 0, :1].clone().requires_grad_()
    moving = (leaves.videos.detach()[:, 0] - static.detach()).requires_grad_()
    loss.backward(lambda random: (static + moving, torch.arange(3)), leaves.lr, 0)
    torch.testing.assert_close(moving.grad, leaves.videos.grad[:, 0])
    torch.testing.assert_close(static.grad, leaves.videos.grad[:, 0].sum(1, keepdim=True))


def test_the_loss_of_a_student_that_stays_is_one(train, double):
    leaves = Leaves(lr=0.0)
    assert loss_of(train, double).backward(leaves.draw, leaves.lr, 0).item() == 1
    assert (leaves.videos.grad == 0).all() and leaves.lr.grad != 0


def test_the_loss_of_a_student_that_arrives_is_zero(train, experts):
    """The target is where plain SGD on the same clips leads."""
    loss, leaves = loss_of(train, experts, mtt_max_start=1), Leaves(torch.float32)
    arrived = loss_of(train, Experts([torch.stack([loss.segment(0)[0], reached(loss, leaves, 0)])] * 2))
    assert arrived.backward(leaves.draw, leaves.lr, 0).item() < 1e-6


def test_same_seed_same_loss(train, experts):
    def value(seed, iteration, **changes):
        leaves = Leaves(torch.float32, batch=4)
        loss = loss_of(train, experts, seed, **changes).backward(leaves.draw, leaves.lr, iteration)
        return loss.item(), leaves.videos.grad.sum().item(), leaves.lr.grad.item()

    torch.manual_seed(1)
    first = value(0, 0)
    torch.manual_seed(2)
    assert first == value(0, 0)
    assert len({first, value(1, 0), value(0, 1), value(0, 0, mtt_steps=1)}) == 4


@pytest.mark.parametrize(
    ("changes", "starts"), [({}, {0, 1}), ({"mtt_max_start": 9}, {0, 1, 2}), ({"mtt_span": 3}, {0})]
)
def test_all_experts_and_starts_are_used(train, experts, changes, starts):
    loss = loss_of(train, experts, **changes)
    seen = set()
    for iteration in range(60):
        start, target = loss.segment(iteration)
        (place,) = [
            (k, epoch) for k in range(2) for epoch in range(4) if torch.equal(start, experts.segment(k, epoch, 0)[0])
        ]
        assert torch.equal(target, experts.segment(*place, loss.span)[1])
        seen.add(place)
    assert seen == {(k, epoch) for k in range(2) for epoch in starts}


def test_a_span_longer_than_the_experts(train, experts):
    with pytest.raises(ValueError, match="mtt_span=4 exceeds the 3 epochs of the experts: expert_epochs"):
        loss_of(train, experts, mtt_span=4)


def test_memory_does_not_grow_with_the_steps(train, experts):
    """Bytes that live graphs hold for their backward passes, at most."""

    def peak(steps):
        alive, most = 0, 0

        class Kept:
            def __init__(self, tensor):
                nonlocal alive, most
                self.tensor = tensor
                alive += tensor.nbytes
                most = max(most, alive)

            def __del__(self):
                nonlocal alive
                alive -= self.tensor.nbytes

        leaves, loss = Leaves(torch.float32), loss_of(train, experts, mtt_steps=steps)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            loss.backward(leaves.draw, leaves.lr, 0)
        assert alive == 0
        return most

    assert peak(1) == peak(2) == peak(6) > 0
