"""Passes of real clips: the folded stem is the same sum, and rounding hardly moves features, gradient and videos."""

import shutil

import numpy as np
import pytest
import torch
import torch._dynamo.utils
from test_matching import TINY
from torch.nn.functional import conv3d
from toy import noise_clips

from david import fast_embed
from david.c3d import C3D
from david.fast_embed import bfloat16_embed, fold, folded_stem, frozen_embed, round_weights
from david.matching import Distiller, Features
from david.support.seeds import generator

HALF = TINY.replace(distill_precision="bfloat16")


def whole(shape, seed):
    """Small whole numbers: their products and sums are exact in every precision here."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-4, 5, shape)).float()


def test_fold_by_hand():
    clips = torch.arange(2 * 3 * 4 * 6).view(1, 2, 3, 4, 6).float()
    folded = fold(clips)
    assert folded.shape == (1, 12, 2, 5, 6) and folded.dtype == torch.bfloat16
    assert folded.is_contiguous(memory_format=torch.channels_last_3d)
    inner = folded[..., 2:-1, 2:-1].float()
    assert folded.float().abs().sum() == inner.abs().sum()  # the margin is zero
    # Channel 2 * 3 * py + 3 * px + c of block (i, j) is channel c of pixel (2i + py, 2j + px).
    for py, px, c in [(0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 2)]:
        assert torch.equal(inner[0, 6 * py + 3 * px + c], clips[0, :, c, py::2, px::2])


@pytest.mark.parametrize("size", [8, 9, (9, 8), (12, 15)])
def test_a_folded_convolution_is_the_strided_one(size):
    height, width = size if isinstance(size, tuple) else (size, size)
    clips, weight = whole((2, 5, 3, height, width), 0), whole((4, 3, 3, 7, 7), 1)
    expected = conv3d(clips.transpose(1, 2), weight, stride=(1, 2, 2), padding=(1, 3, 3))
    found = conv3d(fold(clips).float(), folded_stem(weight), padding=(1, 0, 0))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("frames", "size"), [(8, 48), (9, 51)])
def test_features_differ_by_less_than_a_tenth_of_what_clips_differ_by(frames, size):
    net = C3D(3, frames, size, 0.0625).requires_grad_(False)
    net.reset(generator(0, "network"))
    clips = torch.randn(4, frames, 3, size, size, generator=generator(0, "clips"))
    exact, rounded = net.embed(clips), bfloat16_embed(net)(clips)
    assert rounded.dtype == torch.float32 and rounded.shape == exact.shape
    assert 0 < (rounded - exact).norm() < 0.01 * exact.norm()
    assert (rounded - exact).norm() < 0.1 * (exact - exact.mean(0)).norm()


@pytest.mark.parametrize("units", [True, False])
def test_a_processor_without_such_units_rounds_to_the_same_numbers(units, monkeypatch):
    net = C3D(3, 8, 48, 0.0625).requires_grad_(False)
    net.reset(generator(0, "network"))
    clips = torch.randn(4, 8, 3, 48, 48, generator=generator(0, "clips"))
    here = bfloat16_embed(net)(clips)
    monkeypatch.setattr(fast_embed, "multiplies_bfloat16", lambda device: units)
    there = bfloat16_embed(net)(clips)
    assert torch.equal(there.bfloat16().float(), there)
    assert (there - here).norm() < 0.1 * (here - net.embed(clips)).norm()  # sums in another order


def test_it_holds_the_weights_of_the_moment():
    net = C3D(3, 8, 48, 0.0625).requires_grad_(False)
    clips = torch.randn(1, 8, 3, 48, 48)
    before = bfloat16_embed(net)
    features = before(clips)
    net.reset(generator(5, "network"))
    assert torch.equal(before(clips), features)
    assert not torch.equal(bfloat16_embed(net)(clips), features)


def test_all_clips_go_through_the_same_rounded_network():
    """Rounding what the real clips alone meet would move the means of all classes the same way."""
    train, common = noise_clips(), []
    for settings, rounded in ((TINY, False), (HALF, True)):
        real = Features(train, seed=0, settings=settings.distill)
        means = real.draw(0)
        assert all(torch.equal(own.bfloat16().float(), own) == rounded for own in real.net.parameters())
    own = real.draw(1)
    exact = Features(train, seed=0, settings=TINY.distill)
    exact.net.load_state_dict(real.net.state_dict())
    exact.net.reset = lambda random: None  # these weights, and the clips of the same iteration
    apart = own - exact.draw(1)
    for moved in (apart, means):
        common.append(moved.mean(0).norm() / moved.norm(dim=1).mean())
    assert apart.norm() > 0 and common[0] < 0.75 < common[1]


def test_float32_is_the_network_itself():
    net = C3D(3, 8, 48, 0.0625)
    assert frozen_embed(net, "float32") == net.embed


def test_unknown_precision():
    with pytest.raises(ValueError, match="'half' of distillation; choose 'float32' or 'bfloat16'"):
        frozen_embed(C3D(1, 8, 48, 0.125), "half")


def gradient(train, settings, rounded=False):
    """Of the loss of the first iteration to the pixels, of a network whose weights are ``rounded`` beforehand."""
    distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=settings.distill)
    net = distiller.real.net
    if rounded:
        net.reset = lambda random: round_weights(C3D.reset(net, random))
    real = distiller.real.draw(0)
    (videos,), (chunk,) = distiller.leaves.values(), distiller.chunks
    distiller.backward(chunk, videos, real)
    return videos.grad


def test_the_gradient_hardly_turns():
    train = noise_clips()
    exact = gradient(train, TINY, rounded=True).double()  # of the same network
    rounded = gradient(train, HALF).double()
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.995
    assert rounded.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)


def test_the_videos_move_the_same_way():
    train, moved = noise_clips(), []
    for own in (TINY, HALF):
        distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=own.distill)
        start = distiller.videos.detach().clone()
        distiller.run(4)
        moved.append((distiller.videos.detach() - start).flatten().double())
    assert not torch.equal(*moved)
    assert torch.cosine_similarity(*moved, dim=0) > 0.9


def graphs() -> int:
    """How many torch has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture
def nothing_compiled():
    torch._dynamo.reset()


@pytest.mark.parametrize("settings", [TINY, HALF], ids=["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, as it compiles
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # likewise
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with a C++ compiler")
def test_compiled_networks_compute_the_same_whatever_their_weights(settings, monkeypatch, nothing_compiled):
    train, means = noise_clips(), []
    for asked in ("0", "1"):
        monkeypatch.setenv("DAVID_COMPILE", asked)
        real = Features(train, seed=0, settings=settings.distill)
        for function in (real.net.trunk.forward, real.features):
            assert hasattr(function, "_torchdynamo_orig_callable") == (asked == "1")
        before = graphs()
        means.append(torch.stack([real.draw(iteration) for iteration in range(3)]))  # three sets of weights
        assert graphs() - before == (asked == "1")
    # What is fused is not rounded in between, so bfloat16 may differ by as much as it differs from float32.
    tolerance = 1e-5 if settings is TINY else 0.01
    assert (means[1] - means[0]).norm() <= tolerance * means[0].norm()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with a C++ compiler")
def test_a_compiled_run_ends_at_the_same_videos(monkeypatch, nothing_compiled):
    """And one of another policy or IPC finds it compiled: torch gives up silently when it was asked too often."""
    train, videos, before = noise_clips(), [], graphs()
    for asked in ("0", "1"):
        monkeypatch.setenv("DAVID_COMPILE", asked)
        distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=1, seed=0, settings=TINY.distill)
        distiller.run(2)
        videos.append(distiller.videos.detach())
    torch.testing.assert_close(*videos, rtol=1e-4, atol=1e-5)
    Distiller(train, torch.tensor([8, 8, 8]), ipc=2, seed=0, settings=TINY.distill).step()
    found = graphs() - before
    assert 2 <= found <= 4  # with and without a gradient, of one number of clips and of any
    for ipc, lengths in [(3, [8, 4, 1]), (5, [2, 2, 2]), (7, [8, 8, 4])]:
        Distiller(train, torch.tensor(lengths), ipc=ipc, seed=0, settings=TINY.distill).step()
    assert graphs() - before == found
