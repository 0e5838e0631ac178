"""Gradient matching: the distance against hand-made gradients, the network, and the still images it makes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, instance_norm
from toy import clips_of, counting_clips, noise_clips, shades

from david.baselines.gradient_matching import (
    GradientMatcher,
    convnet,
    gradient_distance,
    random_frames,
    weight_gradients,
)
from david.c3d import default_weights
from david.matching import start_videos
from david.runs.settings import preset
from david.support.seeds import generator

TINY = preset("smoke", width=0.03, vdsd_static_batch=2, vdsd_static_lr=1.0)


@pytest.fixture(scope="module")
def train():
    return noise_clips()


def matcher(train, seed=0, settings=TINY):
    own = settings.vdsd("dm")
    recipe = {"batch": own.static_batch, "lr": own.static_lr, "width": own.width}
    return GradientMatcher(train, per_class=2, seed=seed, **recipe)


def test_distance_of_equal_and_of_opposite_gradients():
    gradients = [torch.randn(5, 3, 3, 3), torch.randn(4, 7)]
    assert gradient_distance(gradients, [3 * g for g in gradients]).item() == pytest.approx(0, abs=1e-5)
    assert gradient_distance(gradients, [-g for g in gradients]).item() == pytest.approx(2 * 9)


def test_distance_by_hand():
    real, synthetic = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 7.0]])
    assert gradient_distance([real], [synthetic]).item() == pytest.approx((1 - 24 / 25) + 1)


def test_distance_and_its_gradient_on_a_linear_net():
    """Softmax regression: row k of the gradient is the mean of (p_k - [k = c]) x; its derivative by differences."""
    random = torch.Generator().manual_seed(0)
    real, images = (torch.randn(count, 3, 2, 2, generator=random, dtype=torch.float64) for count in (5, 2))
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()

    def by_hand(images):
        rows = []
        for x in (real.flatten(1), images.flatten(1)):
            error = torch.softmax(x @ net[1].weight.T + net[1].bias, 1) - torch.eye(4, dtype=torch.float64)[2]
            rows.append(torch.stack([(error[:, [k]] * x).mean(0) for k in range(4)]))
        r, s = rows
        return sum(1 - r[k] @ s[k] / (r[k].norm() * s[k].norm()) for k in range(4)).item()

    images.requires_grad_()
    ours = weight_gradients(net, images, 2, create_graph=True)
    assert [tuple(g.shape) for g in ours] == [(4, 12)]  # the bias is left out
    distance = gradient_distance(weight_gradients(net, real, 2), ours)
    assert distance.item() == pytest.approx(by_hand(images))
    (gradient,) = torch.autograd.grad(distance, images)
    with torch.no_grad():
        for index in [(0, 0, 0, 0), (0, 2, 1, 0), (1, 1, 1, 1)]:
            step = torch.zeros_like(images)
            step[index] = 1e-5
            difference = (by_hand(images + step) - by_hand(images - step)) / 2e-5
            assert gradient[index].item() == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize(("size", "depth"), [(32, 3), (48, 3), (64, 4), (112, 4)])
def test_network_of_dc(size, depth):
    net = convnet(5, size)
    assert [type(layer) for layer in net[:4]] == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d]
    convs = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert len(convs) == depth and {conv.out_channels for conv in convs} == {128}
    assert net[-1].in_features == 128 * (size >> depth) ** 2
    assert convnet(5, size, 0.125)(torch.zeros(2, 3, size, size)).shape == (2, 5)


def test_norm_is_that_of_each_image_and_channel():
    net, images = convnet(3, 48, 0.03), torch.randn(2, 3, 48, 48)
    expected = instance_norm(conv2d(images, net[0].weight, net[0].bias, padding=1))
    torch.testing.assert_close(net[:2](images), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_drawn_from_pytorchs_default():
    net = default_weights(convnet(3, 48), generator(1, "x"))
    bound = (3 * 3 * 128) ** -0.5  # PyTorch's default: U(-1/sqrt(fan in), 1/sqrt(fan in))
    assert 0.99 * bound < net[4].weight.abs().max() <= bound and net[4].bias.abs().max() <= bound


def test_random_frames_are_frames_of_these_clips():
    train = counting_clips()
    frames = random_frames(train, np.array([3, 0, 7] * 100), torch.Generator().manual_seed(0))
    assert frames.shape == (300, 3, 2, 2) and frames.dtype == torch.float32
    number, frame = shades(frames[:, None])
    assert number.flatten().tolist() == [3, 0, 7] * 100 and frame.flatten().bincount(minlength=8).min() > 15


def test_images_start_as_frames_of_the_clips_that_other_methods_start_from():
    number = np.arange(12, dtype=np.uint8)[:, None, None, None, None]  # clip i has the brightness i
    train = clips_of(number + np.zeros((12, 8, 48, 48, 3), np.uint8), [0, 1, 2] * 4)
    images = matcher(train).images
    videos = start_videos(train, torch.tensor([8] * 3), ipc=2, seed=0, kind="real")
    assert images.shape == (3, 2, 3, 48, 48) and torch.equal(images, videos[:, :, 0])


def test_a_step_by_hand(train):
    settings = TINY.replace(vdsd_static_batch=99)
    ours = matcher(train, settings=settings)
    start = ours.images.clone()
    ours.step()

    # The same real frames and network; one graph for all classes.
    net = default_weights(convnet(3, 48, 0.03), generator(0, "static network", 0))
    random, images, loss = generator(0, "static", 0), start.clone().requires_grad_(), 0
    for label, own in enumerate(train.by_class()):
        order = torch.randperm(len(own), generator=random)
        real = weight_gradients(net, random_frames(train, own[order.numpy()], random), label)
        loss = loss + gradient_distance(real, weight_gradients(net, images[label], label, create_graph=True))
    loss.backward()
    assert images.grad.abs().amax((1, 2, 3, 4)).min() > 0
    torch.testing.assert_close(ours.images, start - images.grad, rtol=1e-4, atol=1e-5)
    assert ours.iteration == 1


def test_same_seed_same_images_other_seed_others(train):
    first, again, other = (matcher(train, seed) for seed in (0, 0, 1))
    for one in (first, again, other):
        one.run(2)
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)


def test_interrupted_equals_uninterrupted_and_the_last_iterate_is_kept(train, tmp_path):
    path, whole = tmp_path / "static.safetensors", matcher(train)
    whole.run(3)
    matcher(train).run(2, checkpoint=path)  # every 100 iterations, and at the end
    resumed = matcher(train)
    resumed.run(3, checkpoint=path)
    assert torch.equal(resumed.images, whole.images)
    done = matcher(train)
    done.step = lambda: pytest.fail("nothing is left to do")
    done.run(3, checkpoint=path)
    assert torch.equal(done.images, whole.images)


@pytest.mark.parametrize("other", [{"seed": 1}, {"settings": TINY.replace(vdsd_static_lr=0.5)}])
def test_foreign_checkpoint_is_refused(train, tmp_path, other):
    matcher(train).run(0, checkpoint=tmp_path / "static.safetensors")
    with pytest.raises(ValueError, match=r"static\.safetensors is the checkpoint of another distillation"):
        matcher(train, **other).run(1, checkpoint=tmp_path / "static.safetensors")
