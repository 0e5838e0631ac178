"""The matching loss, one step of the distiller, and its continuation from a checkpoint."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toy import noise_clips

from david.c3d import C3D
from david.clips import Clips
from david.matching import Distiller, RandomFeatures, class_means, dm_loss, few, pixel_optimizer
from david.presets import preset
from david.reward import TeacherReward
from david.seeds import generator
from david.temporal import partition

TINY = preset("smoke", width=0.125, distill_iterations=4, distill_batch_real=2)
SGD = TINY.replace(distill_optimizer="sgd", distill_lr=10.0, distill_momentum=0.95, distill_start="noise")


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
    monkeypatch.setattr("david.clips.CHUNK", at_once)
    policy, settings = torch.tensor([8, 2, 4]), SGD.replace(distill_batch_real=99)  # every real clip
    distiller = Distiller(train, policy, ipc=2, seed=5, settings=settings)
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
    distiller = Distiller(train, torch.tensor([8, 2, 4]), ipc=1, seed=0, settings=SGD)
    start = distiller.videos.clone()
    gradients = [gradient_of_a_step(distiller) for _ in range(2)]
    first = start - 10 * gradients[0]
    second = first - 10 * (0.95 * gradients[0] + gradients[1])
    torch.testing.assert_close(distiller.videos, second, rtol=0, atol=1e-5)
    assert distiller.iteration == 2
    assert not torch.equal(*gradients)


def test_steps_lower_the_loss_of_networks_never_seen(train):
    settings = SGD.replace(distill_batch_real=99)
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=settings)
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
    monkeypatch.setattr("david.clips.CHUNK", 8)
    sizes, embed, batch = [], C3D.embed, Clips.batch
    monkeypatch.setattr(C3D, "embed", lambda self, clips: sizes.append(len(clips)) or embed(self, clips))
    monkeypatch.setattr(Clips, "batch", lambda self, i, **kw: sizes.append(len(i)) or batch(self, i, **kw))
    policy, settings = torch.tensor([8, 1, 2]), TINY.replace(distill_start=start)
    distiller = Distiller(train, policy, ipc=7, seed=0, settings=settings)
    distiller.step()
    TeacherReward(distiller.real.net, train).distance(distiller.videos, policy)
    assert max(sizes) == 8 and sizes.count(8) > 7
    address = distiller.videos.untyped_storage().data_ptr()
    assert all(leaf.untyped_storage().data_ptr() == address for leaf in distiller.leaves.values())


def ran(distiller, iterations, **options):
    """The videos after so many iterations."""
    distiller.run(iterations, **options)
    return distiller.videos


def test_same_seed_same_videos(train):
    def videos(seed):
        return ran(Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=seed, settings=TINY), 2)

    torch.manual_seed(1)
    first = videos(0)
    torch.manual_seed(2)
    assert torch.equal(first, videos(0))
    assert not torch.equal(first, videos(1))


def test_policies_see_the_same_networks_and_real_clips(monkeypatch):
    train = noise_clips(labels=(0, 1) * 4, flip=True)
    seen = []
    draw = RandomFeatures.draw
    monkeypatch.setattr(RandomFeatures, "draw", lambda *args: seen.append(draw(*args)) or seen[-1])
    for policy in ([8, 8], [1, 4]):
        Distiller(train, torch.tensor(policy), ipc=1, seed=0, settings=TINY).run(2)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_real_clips_are_drawn_without_replacement_within_the_class(train, monkeypatch):
    drawn = []
    batch = Clips.batch
    monkeypatch.setattr(Clips, "batch", lambda self, i, **kw: drawn.append(np.asarray(i)) or batch(self, i, **kw))
    distiller = Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=SGD)
    for _ in range(3):
        distiller.step()
    assert len(drawn) == 3
    for picks in drawn:
        assert train.labels[picks].tolist() == [0, 0, 1, 1, 2, 2]
        assert len(set(picks.tolist())) == 6
    assert len({tuple(picks) for picks in drawn}) > 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_interrupted_equals_uninterrupted(train, monkeypatch, tmp_path, optimizer):
    monkeypatch.setattr("david.matching.CHUNK", 5)  # several parts, each with its own buffers
    settings = SGD if optimizer == "sgd" else TINY
    path, policy, steps = tmp_path / "checkpoint.safetensors", torch.tensor([8, 2, 1]), []
    step = Distiller.step

    def distiller():
        return Distiller(train, policy, ipc=1, seed=0, settings=settings)

    def interrupted_step(self):
        steps.append(self.iteration)
        if len(steps) == 4:
            raise KeyboardInterrupt
        step(self)

    whole = ran(distiller(), 4)
    monkeypatch.setattr(Distiller, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        distiller().run(4, checkpoint=path, every=2)
    resumed = ran(distiller(), 4, checkpoint=path, every=2)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert torch.equal(resumed, whole)
    assert torch.equal(ran(distiller(), 4, checkpoint=path), whole) and len(steps) == 6  # nothing left to do
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_foreign_checkpoint_is_refused(train, tmp_path):
    path, policy = tmp_path / "checkpoint.safetensors", torch.tensor([8, 8, 8])
    Distiller(train, policy, ipc=1, seed=0, settings=TINY).run(1, checkpoint=path, every=1)
    others = [
        {"seed": 1},
        {"settings": TINY.replace(distill_lr=0.5)},
        {"policy": torch.tensor([8, 8, 4])},
        {"ipc": 2},
    ]
    for other in others:
        asked = {"policy": policy, "ipc": 1, "seed": 0, "settings": TINY} | other
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is the checkpoint of another distillation"):
            Distiller(train, asked.pop("policy"), **asked).run(2, checkpoint=path)
    save_file({"0/video": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is the checkpoint of another distillation"):
        Distiller(train, policy, ipc=1, seed=0, settings=TINY).run(2, checkpoint=path)


def test_diverging_videos_are_an_error(train):
    settings = SGD.replace(distill_lr=1e30)
    with pytest.raises(FloatingPointError, match="diverged within 3 iterations; lower its step size"):
        Distiller(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, settings=settings).run(3)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="unknown optimizer 'lion' for pixels; choose 'sgd' or 'adam'"):
        pixel_optimizer([torch.zeros(1)], "lion", lr=1.0, momentum=0.0)


def test_no_gradient_is_spent_on_weights(train):
    distiller = Distiller(train, torch.tensor([8] * 3), ipc=1, seed=0, settings=TINY)
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
    distillers = [Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=TINY) for _ in range(2)]
    away = distillers[1]
    real_to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *a, **k: real_to(t, *a, **k).clone())
    away.run(2)
    monkeypatch.undo()
    distillers[0].run(2)
    assert torch.equal(distillers[0].videos, away.videos)
