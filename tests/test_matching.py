"""The matching loss, one step of the distiller, and its continuation from a checkpoint."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import vector_to_parameters
from toy import noise_clips

from david.baselines.experts import Experts, load_experts
from david.c3d import C3D
from david.data.clips import Clips
from david.matching import Distiller, Features, class_means, dm_loss, few, pixel_optimizer
from david.partition import partition
from david.reward import TeacherReward
from david.runs.methods import TRAINED
from david.runs.settings import preset
from david.support.pixels import keep_in_range, rounded
from david.support.seeds import generator

TINY = preset("smoke", width=0.125, distill_iterations=4, distill_batch_real=2)
SGD = TINY.replace(  # plain steps, to be followed by hand
    distill_optimizer="sgd", distill_lr=10.0, distill_momentum=0.95, distill_start="noise",
    distill_range="free", distill_lr_unit="absolute", distill_average=0.0,
)  # fmt: skip
ADAM = SGD.replace(distill_optimizer="adam", distill_lr=0.03, distill_start="real")
SCALED = SGD.replace(
    distill_range="8-bit", distill_lr_unit="curvature", distill_lr=30.0, distill_average=4.0, distill_start="real"
)
EXPERTS = SGD.replace(distill_networks="experts", expert_count=3, expert_epochs=5, expert_batch=4)


@pytest.fixture(scope="module")
def train():
    return noise_clips()


def test_loss_sums_over_features_and_classes():
    real = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    synthetic = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert dm_loss(real, synthetic).item() == 5 + 25


def test_class_means_by_hand():
    features = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0], [9.0, 110.0]])
    assert class_means(features, [2, 1, 2]).tolist() == [[2, 20], [5, 50], [8, 90]]


def gradient_of_a_step(distiller):
    """Take one step; what its optimisers saw, (M, I, F, 3, H, W). No gradient may exist but that of their own chunk."""
    seen, hooks, leaves = [], [], list(distiller.leaves.values())

    def look(optimizer, *_):
        (leaf,) = optimizer.param_groups[0]["params"]
        assert all((other.grad is None) == (other is not leaf) for other in leaves)
        seen.append(leaf.grad.clone())

    for optimizer in distiller.optimizers:
        hooks.append(optimizer.register_step_pre_hook(look))
    distiller.step()
    for hook in hooks:
        hook.remove()
    assert all(leaf.grad is None for leaf in leaves)
    return torch.cat(seen)


@pytest.mark.parametrize("at_once", [1, 5, 12, 10**9])
@pytest.mark.parametrize("chunk", [1, 10, 10**9])
def test_gradient_equals_that_of_one_graph(train, monkeypatch, chunk, at_once):
    """Classes of 2, 8 and 4 training clips, in three chunks, two and one, on GPUs with room for 1 clip, 5, 12 or all;
    the reference knows neither."""
    monkeypatch.setattr("david.matching.CHUNK", chunk)
    monkeypatch.setattr("david.data.clips.CHUNK", at_once)
    policy, settings = torch.tensor([8, 2, 4]), SGD.replace(distill_batch_real=99)  # every real clip
    distiller = Distiller(train, policy, ipc=2, seed=5, settings=settings.distill)
    assert len(distiller.leaves) == {1: 3, 10: 2, 10**9: 1}[chunk]
    videos = distiller.videos.clone().requires_grad_()
    got = gradient_of_a_step(distiller)

    net = C3D(3, 8, 48, 0.125).reset(generator(5, "network", 0))
    loss = 0
    for c, positions in enumerate(train.by_class()):
        real = net.embed(train.batch(positions)).mean(0).detach()
        synthetic = torch.stack([net.embed(clip[None])[0] for clip in partition(videos[c], int(policy[c]))]).mean(0)
        loss = loss + ((real - synthetic) ** 2).sum()
    (expected,) = torch.autograd.grad(loss, videos)
    assert expected.abs().amax((1, 2, 3, 4, 5)).min() > 0
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_two_sgd_steps_by_hand(train):
    distiller = Distiller(train, torch.tensor([8, 2, 4]), ipc=1, seed=0, settings=SGD.distill)
    start = distiller.videos.clone()
    gradients = [gradient_of_a_step(distiller) for _ in range(2)]
    first = start - 10 * gradients[0]
    second = first - 10 * (0.95 * gradients[0] + gradients[1])
    torch.testing.assert_close(distiller.videos, second, rtol=0, atol=1e-5)
    assert distiller.iteration == 2
    assert not torch.equal(*gradients)


def test_steps_lower_the_loss_of_networks_never_seen(train):
    settings = SGD.replace(distill_batch_real=99)
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=settings.distill)
    nets = [C3D(3, 8, 48, 0.125).reset(generator(99, k)) for k in range(3)]

    @torch.no_grad()
    def loss():
        real = [[net.embed(train.batch(p)).mean(0) for p in train.by_class()] for net in nets]
        return sum(dm_loss(torch.stack(r), net.embed(distiller.videos[:, 0])) for r, net in zip(real, nets)).item()

    before = loss()
    distiller.run(4)
    assert loss() < before


@pytest.mark.parametrize("start", ["noise", "real"])
def test_no_more_clips_at_once_whatever_the_ipc(train, monkeypatch, start):
    """Classes of 7, 56 and 28 training clips, at most 8 at once; nor is the set ever copied."""
    monkeypatch.setattr("david.data.clips.CHUNK", 8)
    sizes, embed, batch = [], C3D.embed, Clips.batch
    monkeypatch.setattr(C3D, "embed", lambda self, clips: sizes.append(len(clips)) or embed(self, clips))
    monkeypatch.setattr(Clips, "batch", lambda self, i, **kw: sizes.append(len(i)) or batch(self, i, **kw))
    policy, settings = torch.tensor([8, 1, 2]), TINY.replace(distill_start=start)
    distiller = Distiller(train, policy, ipc=7, seed=0, settings=settings.distill)
    distiller.step()
    TeacherReward(distiller.real.net, train).distance(distiller.videos, policy)
    assert max(sizes) == 8 and sizes.count(8) > 7
    address = distiller.videos.untyped_storage().data_ptr()
    assert all(leaf.untyped_storage().data_ptr() == address for leaf in distiller.leaves.values())


def ran(distiller, iterations, **options):
    """The last videos and those to be stored, after so many iterations, in one tensor."""
    distiller.run(iterations, **options)
    return torch.stack([distiller.videos.detach(), distiller.distilled()])


def test_same_seed_same_videos(train):
    def videos(seed):
        return ran(Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=seed, settings=TINY.distill), 2)

    torch.manual_seed(1)
    first = videos(0)
    torch.manual_seed(2)
    assert torch.equal(first, videos(0))
    assert not torch.equal(first, videos(1))


def test_policies_see_the_same_networks_and_real_clips(monkeypatch):
    train = noise_clips(labels=(0, 1) * 4, flip=True)
    seen = []
    draw = Features.draw
    monkeypatch.setattr(Features, "draw", lambda *args: seen.append(draw(*args)) or seen[-1])
    for policy in ([8, 8], [1, 4]):
        Distiller(train, torch.tensor(policy), ipc=1, seed=0, settings=TINY.distill).run(2)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_real_clips_are_drawn_without_replacement_within_the_class(train, monkeypatch):
    drawn = []
    batch = Clips.batch
    monkeypatch.setattr(Clips, "batch", lambda self, i, **kw: drawn.append(np.asarray(i)) or batch(self, i, **kw))
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=SGD.distill)
    for _ in range(3):
        distiller.step()
    assert len(drawn) == 3
    for picks in drawn:
        assert train.labels[picks].tolist() == [0, 0, 1, 1, 2, 2]
        assert len(set(picks.tolist())) == 6
    assert len({tuple(picks) for picks in drawn}) > 1


@pytest.mark.parametrize("settings", [SGD, ADAM, SCALED], ids=["sgd", "adam", "scaled"])
def test_interrupted_equals_uninterrupted(train, monkeypatch, tmp_path, settings):
    monkeypatch.setattr("david.matching.CHUNK", 5)  # several parts, each with its own buffers
    path, policy, steps = tmp_path / "checkpoint.safetensors", torch.tensor([8, 2, 1]), []
    step = Distiller.step

    def distiller():
        return Distiller(train, policy, ipc=1, seed=0, settings=settings.distill)

    def interrupted_step(self):
        steps.append(self.iteration)
        if len(steps) == 4:
            raise KeyboardInterrupt
        step(self)

    uninterrupted, continued = distiller(), distiller()
    whole = ran(uninterrupted, 4)
    monkeypatch.setattr(Distiller, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        distiller().run(4, checkpoint=path, every=2)
    resumed = ran(continued, 4, checkpoint=path, every=2)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert torch.equal(resumed, whole) and continued.curve == uninterrupted.curve
    assert [iteration for iteration, _ in continued.curve] == ([0, 1, 2, 3, 4] if settings is SCALED else [])
    assert torch.equal(ran(distiller(), 4, checkpoint=path), whole) and len(steps) == 6  # nothing left to do
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_foreign_checkpoint_is_refused(train, tmp_path):
    path, policy = tmp_path / "checkpoint.safetensors", torch.tensor([8, 8, 8])
    Distiller(train, policy, ipc=1, seed=0, settings=TINY.distill).run(1, checkpoint=path, every=1)
    others = [
        {"seed": 1},
        {"settings": TINY.replace(distill_lr=0.5).distill},
        {"policy": torch.tensor([8, 8, 4])},
        {"ipc": 2},
    ]
    for other in others:
        asked = {"policy": policy, "ipc": 1, "seed": 0, "settings": TINY.distill} | other
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is the checkpoint of another distillation"):
            Distiller(train, asked.pop("policy"), **asked).run(2, checkpoint=path)
    save_file({"0/video": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is the checkpoint of another distillation"):
        Distiller(train, policy, ipc=1, seed=0, settings=TINY.distill).run(2, checkpoint=path)


def test_a_step_beyond_black_or_white_ends_there(train):
    settings = SGD.replace(distill_lr=1e4, distill_start="real")
    free, bounded = (
        Distiller(train, torch.tensor([8, 2, 4]), ipc=1, seed=0, settings=settings.replace(distill_range=kind).distill)
        for kind in ("free", "8-bit")
    )
    for distiller in (free, bounded):
        distiller.step()
    expected = keep_in_range(free.videos.detach().clone())
    assert (expected != free.videos).float().mean() > 0.01
    assert torch.equal(bounded.videos.detach(), expected)
    assert torch.equal(bounded.distilled(), rounded(expected)) and torch.equal(free.distilled(), free.videos.detach())


def test_what_is_distilled_is_the_average_and_a_shorter_run_is_part_of_a_longer_one(train):
    """Iterate i counts k / (k + i - 1)."""

    def distiller(**changes):
        return Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=SCALED.replace(**changes).distill)

    whole, iterates, averages = distiller(distill_range="free"), [], []
    for _ in range(4):
        whole.step()
        iterates.append(whole.videos.detach().clone())
        averages.append(whole.distilled().clone())
    expected = iterates[0]
    for weight, own in zip((4 / 5, 4 / 6, 4 / 7), iterates[1:], strict=True):
        expected = (1 - weight) * expected + weight * own
    torch.testing.assert_close(averages[-1], expected, rtol=0, atol=1e-5)
    assert (averages[-1] - iterates[-1]).abs().max() > 1e-3
    half = distiller(distill_range="free")
    half.run(2)
    assert torch.equal(half.distilled(), averages[1])
    half.run(4)
    assert torch.equal(half.distilled(), averages[3])
    stored = distiller()
    stored.run(2)
    assert torch.equal(stored.distilled(), rounded(stored.distilled()))
    assert not torch.equal(stored.videos.detach(), rounded(stored.videos.detach()))  # which go on in full


class Linear:
    """In place of networks and real clips: features are fixed sums of a clip's pixels, of any frame alike.

    The rows of the matrix are orthogonal, of lengths 3, 1 and 0.5 for a clip whose pixels differ in every frame; the
    second network's are twice as long.
    """

    stages = ("distill",)

    def __init__(self):
        rows = torch.linalg.qr(torch.randn(3 * 48 * 48, 3, generator=generator(3)))[0].T
        self.rows, self.net = torch.tensor([[3.0], [1.0], [0.5]]) * rows / 8**0.5, self
        self.factor = 1.0

    def renew(self, name, k):
        self.factor = 1.0 + k

    def embed(self, clips):
        return self.factor * clips.flatten(2).sum(1) @ self.rows.T


@pytest.mark.parametrize("ipc", [1, 3])
def test_the_curvature_of_a_linear_network_by_hand(train, ipc):
    """Of |J v - r|^2 it is 2 J J^T's largest value. A class's features are a mean over its IPC videos, whatever L is:
    so 2 * 3^2 / IPC of the first network, four times that of the second."""
    settings = SCALED.replace(distill_start="noise", distill_range="free", distill_momentum=0.9, distill_lr=1.0)
    distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=ipc, seed=0, settings=settings.distill, real=Linear())
    expected = (18 + 72) / 2 / ipc
    assert distiller.curvatures().tolist() == pytest.approx([expected] * 3, rel=1e-3)
    assert distiller.curvatures(networks=1).tolist() == pytest.approx([18 / ipc] * 3, rel=1e-3)
    # A step that goes on in one direction becomes one over the curvature; the first is 1 - momentum of it.
    start, distiller.real.factor = distiller.videos.detach().clone(), 1.0
    target = torch.ones(3, 3)
    gradient = distiller.gradient(range(3), start, target)
    distiller.move(target)
    torch.testing.assert_close(distiller.videos.detach(), start - 0.1 / expected * gradient, rtol=1e-3, atol=1e-6)


def test_one_step_size_serves_every_size_width_and_ipc():
    """How much of the loss of its own network one step takes away. In plain steps it differs many times over."""
    train = {size: noise_clips(size=size) for size in (48, 96)}

    def progress(unit, lr, *, size=48, width=0.0625, ipc=1):
        settings = SCALED.replace(distill_lr_unit=unit, distill_lr=lr, distill_start="noise", distill_range="free")
        settings = settings.replace(distill_momentum=0.0, distill_batch_real=99, size=size, width=width)
        distiller = Distiller(train[size], torch.tensor([8, 8, 8]), ipc=ipc, seed=0, settings=settings.distill)
        losses = []
        for _ in range(2):
            real = distiller.real.draw(0)
            losses.append(dm_loss(real, distiller.means(range(3), distiller.videos)).item())
            distiller.move(real)
        return 1 - losses[1] / losses[0]

    others = [{}, {"size": 96}, {"width": 0.25}, {"ipc": 6}]
    found = [progress("curvature", 0.25, **own) for own in others]
    assert min(found) > 0.2 and max(found) < 1.5 * min(found)
    plain = [progress("absolute", 2.0, **own) for own in others]
    assert min(plain) > 0 and max(plain) > 4 * min(plain)


def test_diverging_videos_are_an_error_at_the_first_look(train, monkeypatch):
    def run(settings):
        distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=settings.distill)
        with pytest.raises(FloatingPointError, match=r"within 2 iterations.*; lower distill_lr"):
            distiller.run(20)
        assert distiller.iteration == 2
        return distiller

    run(SGD.replace(distill_lr=1e30))
    # Within black and white nothing becomes infinite; but networks that no step has seen tell noise.
    worse = run(SCALED.replace(distill_lr=1e6))
    assert worse.videos.isfinite().all() and worse.curve[1][1] > 4 * worse.curve[0][1]
    gradient = Distiller.gradient
    monkeypatch.setattr(Distiller, "gradient", lambda *args: gradient(*args) * (args[0].iteration != 1 or float("nan")))
    assert run(SCALED).videos.isnan().any()


def test_the_held_out_loss_by_hand(train):
    """Mean features of up to 32 real clips a class and of the videos, under networks of a stream of their own."""
    policy, settings = torch.tensor([8, 2, 4]), SGD.replace(distill_range="8-bit")
    distiller, unseen = (Distiller(train, policy, ipc=1, seed=5, settings=settings.distill) for _ in range(2))
    net, found = C3D(3, 8, 48, 0.125), []
    for k in range(4):
        net.reset(generator(5, "held out", k))
        with torch.no_grad():
            real = torch.stack([net.embed(train.batch(own)).mean(0) for own in train.by_class()])
            clips = [partition(own, n) for own, n in zip(distiller.videos, (8, 2, 4), strict=True)]
            synthetic = torch.stack([net.embed(own).mean(0) for own in clips])
        found.append((real - synthetic).square().sum() / (real - real.mean(0)).square().sum())
    for _ in range(2):  # the real clips' means are kept
        assert distiller.held_out() == pytest.approx(torch.stack(found).mean().item(), rel=1e-4)
    for each in (distiller, unseen):
        each.step()
    assert torch.equal(distiller.videos, unseen.videos)  # a look leaves nothing behind
    assert Distiller(train, policy, ipc=1, seed=5, settings=SGD.distill).held_out() is None  # without bounds


def test_real_clips_have_a_held_out_loss_of_nothing_and_may_be_moved():
    train, policy = noise_clips(labels=(0, 1, 2) * 3), torch.tensor([8, 8, 8])
    some, every = (Distiller(train, policy, ipc=ipc, seed=0, settings=SCALED.distill) for ipc in (1, 3))
    assert every.held_out() == pytest.approx(0, abs=1e-9) and some.held_out() > 0.1
    every.run(4)
    assert every.curve[0][1] < 1e-9 < every.curve[-1][1]


def test_steps_see_snapshots_of_all_experts_but_the_last_and_the_held_out_loss_only_of_that(train, monkeypatch):
    """Of five epochs the snapshots after the third, fourth and fifth: before, networks know next to nothing."""
    seen = []
    monkeypatch.setattr(Features, "load_snapshot", lambda self, expert, epoch: seen.append((expert, epoch)))
    settings = EXPERTS.replace(distill_range="8-bit", distill_lr_unit="curvature", width=0.03).distill
    experts = Experts([torch.zeros(6, 1)] * 3)
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=settings, experts=experts)
    assert len(seen) == 2  # for the curvature
    for _ in range(60):
        distiller.step()
    assert len(seen) == 62 and set(seen) == {(expert, epoch) for expert in (0, 1) for epoch in (3, 4, 5)}
    seen.clear()
    distiller.held_out()
    for k in range(30):
        distiller.real.held_out(k)
    assert set(seen) == {(2, 3), (2, 4), (2, 5)}


def test_snapshots_are_the_experts_weights_with_features_of_unit_deviation(train):
    experts = load_experts(train, seed=0, settings=EXPERTS.expert)
    real, plain = Features(train, seed=0, settings=EXPERTS.distill, experts=experts), C3D(3, 8, 48, 0.125)
    some = torch.cat([torch.as_tensor(own[:2]) for own in train.by_class()])
    for expert, epoch in [(0, 3), (2, 5), (0, 3)]:
        real.load_snapshot(expert, epoch)
        vector_to_parameters(experts.segment(expert, epoch, 0)[0].clone(), plain.parameters())
        with torch.no_grad():
            features, expected = real.net.embed(train.batch(some)), plain.embed(train.batch(some))
        assert (features - features.mean(0)).square().sum(1).mean().item() == pytest.approx(1, rel=1e-4)
        scale = features.norm() / expected.norm()
        torch.testing.assert_close(features, scale * expected, rtol=1e-4, atol=1e-5)
        assert abs(scale - 1) > 0.1
    with pytest.raises(ValueError, match="keeps one expert for the held-out loss: expert_count >= 2"):
        EXPERTS.replace(expert_count=1)


def test_experts_lower_the_loss_of_the_one_never_seen(train):
    settings = SCALED.replace(**TRAINED, expert_count=3, expert_epochs=5, expert_batch=4, distill_batch_real=99)
    given = {"settings": settings.distill, "experts": load_experts(train, seed=0, settings=settings.expert)}
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, **given)
    distiller.run(15)
    assert distiller.curve[-1][1] < 0.75 * distiller.curve[0][1]


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="unknown optimizer 'lion' for pixels; choose 'sgd' or 'adam'"):
        pixel_optimizer([torch.zeros(1)], "lion", lr=1.0, momentum=0.0)


def test_no_gradient_is_spent_on_weights(train):
    distiller = Distiller(train, torch.tensor([8] * 3), ipc=1, seed=0, settings=TINY.distill)
    distiller.step()
    assert all(weight.grad is None for weight in distiller.real.net.parameters())


def test_few_of_many_are_different_and_any_of_them():
    random = torch.Generator().manual_seed(0)
    drawn = [few(50, 5000, random) for _ in range(400)]
    assert all(len(own.unique()) == 50 and own.dtype == torch.int64 for own in drawn)
    counts = torch.histc(torch.cat(drawn).float(), 10, 0, 5000)  # 20,000 numbers, 2,000 in each tenth of the range
    assert counts.sum() == 20_000 and (counts - 2000).abs().max() < 200
    again = torch.Generator().manual_seed(0)
    assert all(torch.equal(few(50, 5000, again), own) for own in drawn)


def test_few_of_a_few_are_a_permutation():
    for count, among in [(3, 5), (9, 5), (64, 4095), (2000, 7000)]:
        expected = torch.randperm(among, generator=torch.Generator().manual_seed(1))[:count]
        assert torch.equal(few(count, among, torch.Generator().manual_seed(1)), expected)


def test_videos_away_from_home_take_the_same_steps(train, monkeypatch):
    """A copy of the chunk is sent and its gradient brought back, wherever the two places are."""
    distillers = [Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=TINY.distill) for _ in range(2)]
    away = distillers[1]
    real_to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *a, **k: real_to(t, *a, **k).clone())
    away.run(2)
    monkeypatch.undo()
    distillers[0].run(2)
    assert torch.equal(distillers[0].videos, away.videos)
