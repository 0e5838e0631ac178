import pytest
import torch

from david.c3d import C3D


def test_published_size_and_embedding():
    net = C3D(50)
    assert sum(p.numel() for p in net.parameters()) == 3_647_666
    assert net.embed_dim == 2048
    assert net.embed(torch.zeros(1, 16, 3, 112, 112)).shape == (1, 2048)


@pytest.mark.parametrize(("frames", "size", "dim"), [(8, 48, 256), (8, 64, 256), (16, 96, 512), (16, 224, 128 * 4 * 9)])
def test_sizes_between_48_and_224(frames, size, dim):
    net = C3D(5, frames, size).eval()
    assert net.embed_dim == dim
    clips = torch.randn(2, frames, 3, size, size)
    assert net.embed(clips).shape == (2, dim)
    assert net(clips).shape == (2, 5)


@pytest.mark.parametrize("bad", [{"frames": 7}, {"size": 47}, {"width": 0.0}])
def test_impossible_shapes_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        C3D(5, **{"frames": 8, "size": 48, "width": 0.25, **bad})


def test_head_is_vdsds_head():
    """Average over 2x2x2 windows with stride 1, then a 1x1x1 convolution, then the maximum over time."""
    net = C3D(7, 16, 112, width=0.125).eval()
    clips = torch.randn(2, 16, 3, 112, 112)
    features = net._features(clips)
    assert features.shape[2:] == (4, 2, 2)
    pooled = torch.nn.functional.avg_pool3d(features, 2, stride=1)
    weight = net.classifier.weight[:, :, None, None, None]
    expected = torch.nn.functional.conv3d(pooled, weight, net.classifier.bias).squeeze((3, 4)).amax(2)
    torch.testing.assert_close(net(clips), expected)


def test_reset_draws_pytorchs_default_and_is_reproducible():
    net = C3D(5, 8, 48, 0.25)
    first = net.reset(torch.Generator().manual_seed(1)).trunk[3].weight.clone()
    assert first.abs().max() <= (16 * 3 * 7 * 7) ** -0.5
    assert first.std().item() == pytest.approx((16 * 147) ** -0.5 / 3**0.5, rel=0.02)
    assert not torch.equal(first, net.reset(torch.Generator().manual_seed(2)).trunk[3].weight)
    assert torch.equal(first, net.reset(torch.Generator().manual_seed(1)).trunk[3].weight)
