"""The convolution theorem gives the convolution, and the whole pass the network's own features."""

import pytest
import torch
from torch.nn.functional import conv3d, max_pool3d

from david.c3d import C3D
from david.fourier import Workspace, convolve, fourier_embed, max_pool, paired_stem, rotation, spectrum, transforms
from david.support.seeds import generator

CPU = torch.device("cpu")


def network(frames=8, size=48, width=0.0625, seed=0):
    return C3D(3, frames, size, width).requires_grad_(False).reset(generator(seed, "network"))


def clips_of(count, frames=8, size=48):
    return torch.randn(count, frames, 3, size, size, generator=generator(0, "clips"))


def away(found, expected):
    """The distance between two tensors over the norm of the second."""
    return ((found - expected).norm() / expected.norm()).item()


def test_rotation_by_hand():
    quarter = torch.tensor([[torch.pi / 2]])
    turned = rotation(quarter).view(2, 2) @ torch.tensor([3.0, 4.0])  # i (3 + 4i) = -4 + 3i
    torch.testing.assert_close(turned, torch.tensor([-4.0, 3.0]))


@pytest.mark.parametrize("blocks", [2, 3, 8])
def test_space_is_half_of_the_plane_and_its_way_back(blocks):
    matrices, side = transforms(blocks, 4, CPU), blocks + 2
    alone = 4 if side % 2 == 0 else 1  # frequencies that are their own conjugate
    assert len(matrices["space"]) == 2 * (side**2 + alone) // 2
    torch.testing.assert_close(matrices["space_back"] @ matrices["space"], torch.eye(blocks**2), atol=1e-6, rtol=0)
    # The first frequencies are (0, 0), (0, 1), ...: a row of torch's own transform.
    field = torch.randn(blocks, blocks)
    expected = torch.fft.fft2(field, (side, side))[0, :3]
    found = (matrices["space"] @ field.flatten()).view(-1, 2)[:3]
    torch.testing.assert_close(torch.view_as_complex(found), expected, atol=1e-5, rtol=1e-5)


def test_time_is_the_transform_of_complex_numbers_and_its_way_back():
    matrices, numbers = transforms(2, 5, CPU), torch.randn(5, dtype=torch.complex64)
    expected = torch.fft.fft(numbers, 6)
    total, real, imaginary = (matrices["time"] @ torch.cat([numbers.real, numbers.imag])).view(3, 6)
    torch.testing.assert_close(torch.complex(real, imaginary), expected)
    torch.testing.assert_close(total, real + imaginary)
    back = matrices["time_back"] @ torch.cat([real, imaginary])
    torch.testing.assert_close(back, torch.cat([numbers.real, numbers.imag]))


@pytest.mark.parametrize(
    ("channels", "outputs", "frames", "size"), [(1, 1, 2, 4), (3, 5, 4, 3), (2, 4, 9, 12), (4, 3, 8, 7)]
)
def test_it_is_the_convolution(channels, outputs, frames, size):
    draw = generator(0, "numbers")
    x = torch.randn(3, channels, frames, size, size, generator=draw)
    weight, bias = torch.randn(outputs, channels, 3, 7, 7, generator=draw), torch.randn(outputs, generator=draw)
    expected = conv3d(x, weight, bias, stride=(1, 2, 2), padding=(1, 3, 3))
    found = convolve(x, spectrum(weight, frames, size, Workspace()), bias, Workspace())
    assert found.shape == expected.shape and away(found, expected) < 1e-5


def test_a_tap_alone_moves_the_field():
    """Tap (t, y, x) of the kernel reads the frame t - 1 and the pixel (y - 3, x - 3) away."""
    x, weight = torch.randn(1, 1, 3, 6, 6), torch.zeros(1, 1, 3, 7, 7)
    weight[0, 0, 2, 3, 4] = 1
    found = convolve(x, spectrum(weight, 3, 6, Workspace()), torch.zeros(1), Workspace())[0, 0]
    torch.testing.assert_close(found[:2], x[0, 0, 1:, ::2, 1::2], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[2], torch.zeros(3, 3), atol=1e-6, rtol=0)  # no frame after the last


@pytest.mark.parametrize(("frames", "size", "least"), [(8, 16, 13), (16, 28, 17)])
def test_it_multiplies_seldom(frames, size, least):
    """C3D's second convolution, at 64x64x8 and 112x112x16."""
    kernel = spectrum(torch.zeros(1, 1, 3, 7, 7), frames, size, Workspace())
    assert frames * (size // 2) ** 2 * 147 / kernel.numel() > least


@pytest.mark.parametrize("size", [48, 51])
def test_the_paired_stem_adds_the_same_numbers(size):
    net = network(size=size)
    for own in net.trunk[0].parameters():  # whole ones: their products and sums are exact
        own.copy_(torch.randint(-4, 5, own.shape, generator=generator(0, "weights")))
    clips = clips_of(2, size=size).mul(3).round()
    assert torch.equal(paired_stem(net)(clips), net.trunk[:3](clips.transpose(1, 2)))


def test_max_pool_drops_what_is_left_over():
    x = torch.randn(2, 3, 5, 7, 8)
    for layout in (x, x.transpose(3, 4), x.movedim(1, -1).contiguous().movedim(-1, 1)):
        for kernel in ((1, 2, 2), (2, 2, 2), (3, 1, 2)):
            assert torch.equal(max_pool(layout, kernel), max_pool3d(layout, kernel))


@pytest.mark.parametrize(("frames", "size"), [(8, 48), (9, 51), (12, 64)])
def test_features_are_the_networks_own(frames, size, monkeypatch):
    monkeypatch.setattr("david.fourier.CLIPS", 3)  # two pieces, the second of them smaller
    monkeypatch.setattr("david.fourier.STEM_CLIPS", 2)
    net, clips = network(frames, size), clips_of(5, frames, size)
    found = fourier_embed(net)(clips)
    assert not found.requires_grad and away(found, net.embed(clips)) < 1e-5


def test_it_holds_the_weights_of_the_moment():
    net, clips = network(), clips_of(1)
    expected, embed = net.embed(clips), fourier_embed(net)
    net.reset(generator(5, "network"))
    assert away(embed(clips), expected) < 1e-5
    assert away(fourier_embed(net)(clips), net.embed(clips)) < 1e-5 < away(net.embed(clips), expected)


def test_a_workspace_is_used_again():
    workspace, clips, seen = Workspace(), clips_of(2), []
    for seed in (0, 1):
        net = network(seed=seed)
        assert away(fourier_embed(net, workspace)(clips), net.embed(clips)) < 1e-5
        seen.append({name: memory.data_ptr() for name, memory in workspace.items()})
    assert seen[0] == seen[1]
    assert workspace.take("places", clips, 3, 4).shape == (3, 4) and len(workspace) == len(seen[0])
    other = workspace.take("places", clips.double(), 3, 4), workspace.take("places", clips.to("meta"), 3, 4)
    assert [(own.dtype, own.device.type) for own in other] == [(torch.float64, "cpu"), (torch.float32, "meta")]
