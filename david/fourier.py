"""``C3D.embed`` by the convolution theorem: in float32, without gradients, with few multiplications.

A convolution of 3x7x7 taps multiplies 147 times for every output and pair of channels. The product of two spectra
multiplies about a tenth as often, but has to get there and back: that pays on a processor, for a network of full width,
where the same weights meet many clips.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch.nn.functional import conv3d, pad

from david.c3d import C3D

# At once: few enough that the next ones find their memory in the cache, and enough for products of matrices.
STEM_CLIPS, CLIPS = 8, 64


class Workspace(dict):
    """Memory by name, to be used again: fresh pages can cost a processor more than what is computed in them."""

    def take(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """A tensor of that shape, of the type and on the device of ``like``; what it held under this name is lost."""
        count, key = math.prod(shape), (name, like.dtype, like.device)
        if key not in self or len(self[key]) < count:
            self[key] = like.new_empty(count)
        return self[key][:count].view(shape)


def rotation(angles: torch.Tensor) -> torch.Tensor:
    """Multiplication by e^(i angle) as a real matrix: (A, B) -> (2, A, 2, B), real parts before imaginary ones."""
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)])


@functools.cache
def transforms(blocks: int, frames: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The discrete Fourier transforms of a convolution, as real matrices: they are so short that matrices are fastest.

    Taps reach from -2 to 1 in space and from -1 to 1 in time, so a circle of ``blocks + 2`` by ``frames + 1`` places
    keeps what leaves at one end from what matters at the other. The field is real, so one of every two conjugate
    frequencies in space is enough: S of them. With E = frames + 1 there are S x E frequencies in all.

    Returns:
        space (2 S, blocks^2): blocks to frequencies, real and imaginary parts; space_back: the inverse.
        time (3 E, 2 frames): the same along time, of complex numbers; rows are the sum of both parts, the real and
        the imaginary ones. time_back (2 frames, 2 E): the inverse.
        space_taps (2 S, 16) and time_taps (3 E, 6): for the kernel, conjugate, with the combinations of both parts
        that multiply the three of ``time``.
    """
    side, steps = blocks + 2, frames + 1
    frequencies = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    number, mirrored = (f % side @ torch.tensor([side, 1]) for f in (frequencies, -frequencies))
    frequencies, twice = frequencies[number <= mirrored], (number < mirrored)[number <= mirrored]

    def in_space(places: torch.Tensor, sign: int) -> torch.Tensor:
        angles = sign * 2 * math.pi / side * (frequencies @ torch.cartesian_prod(places, places).T).double()
        return rotation(angles)[:, :, 0].transpose(0, 1)  # (S, 2, places^2): what they multiply is real

    def in_time(places: torch.Tensor, sign: int) -> torch.Tensor:
        return rotation(sign * 2 * math.pi / steps * torch.outer(torch.arange(steps), places).double())

    space, time = in_space(torch.arange(blocks), -1), in_time(torch.arange(frames), -1)
    real, imaginary = in_time(torch.arange(-1, 2), 1)
    found = {
        "space": space.flatten(0, 1),
        "space_back": (space * (1 + twice)[:, None, None] / side**2).flatten(0, 1).T,
        "time": torch.cat([time.sum(0), *time]).flatten(1),
        "time_back": time.permute(2, 3, 0, 1).flatten(2).flatten(0, 1) / steps,
        "space_taps": in_space(torch.arange(-2, 2), 1).flatten(0, 1),
        "time_taps": torch.cat([real, imaginary - real, -real - imaginary]).flatten(1),
    }
    return {name: matrix.float().contiguous().to(device) for name, matrix in found.items()}


def spectrum(weight: torch.Tensor, frames: int, size: int, workspace: Workspace, name: str = "kernel") -> torch.Tensor:
    """The kernel of a convolution at every frequency, for inputs of ``frames`` frames of ``size`` pixels.

    Args:
        weight: float (O, C, 3, 7, 7), of a convolution with stride (1, 2, 2) and padding (1, 3, 3).
        workspace: what is returned lies there, under ``name``.

    Returns:
        float (S, 3, E, 4 C, O): see ``transforms``; for C3D's second convolution 184 MB at 64x64x8 and 870 MB at
        112x112x16. The four pixels of a 2x2 block are channels of their own, which takes the stride away: tap k of a
        row is pixel (k + 1) % 2 of block (k + 1) // 2 - 2.
    """
    matrices = transforms(math.ceil(size / 2), frames, weight.device)
    taps = pad(weight, (1, 0, 1, 0)).unflatten(-1, (4, 2)).unflatten(-3, (4, 2))  # (O, C, T, 4, 2, 4, 2)
    taps = taps.permute(3, 5, 2, 4, 6, 1, 0)
    outputs = taps.shape[-1]
    found = matrices["space_taps"] @ taps.reshape(16, -1)
    found = found.view(len(found) // 2, 6, -1)
    kernel = workspace.take(name, weight, len(found), 3 * (frames + 1), found.shape[-1])
    torch.matmul(matrices["time_taps"], found, out=kernel)
    return kernel.view(len(found), 3, frames + 1, -1, outputs)


def convolve(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, workspace: Workspace) -> torch.Tensor:
    """``conv3d(x, weight, bias, stride=(1, 2, 2), padding=(1, 3, 3))``, but for rounding.

    Args:
        x: float (B, C, T, H, H).
        kernel: the ``spectrum`` of the weight, for T frames of H pixels.
        bias: float (O,).
        workspace: for what is in between, and for the result.

    Returns:
        float (B, O, T, ceil(H / 2), ceil(H / 2)), a permuted view.
    """
    batch, _, frames, size, _ = x.shape
    blocks, odd, count = math.ceil(size / 2), size % 2, len(kernel)
    matrices = transforms(blocks, frames, x.device)
    x = pad(x.movedim(1, -1), (0, 0, 0, odd, 0, odd)).unflatten(3, (blocks, 2)).unflatten(2, (blocks, 2))
    x = x.permute(2, 4, 1, 0, 3, 5, 6)  # places by (T, B, 4 C)
    x = workspace.take("places", x, *x.shape).copy_(x).view(blocks**2, -1)
    spectra = torch.mm(matrices["space"], x, out=workspace.take("space", x, 2 * count, x.shape[1]))
    y = workspace.take("products", x, count, 2 * frames, batch * len(bias))
    parts = x.new_empty(2, frames + 1, batch, len(bias))
    # One frequency of space at a time: what is between the two transforms along time stays in the cache.
    each = zip(spectra.view(count, 2 * frames, -1), kernel, y, strict=True)
    for one, (sums, differences, negatives), out in each:
        both, real, imaginary = (matrices["time"] @ one).view(3, frames + 1, batch, -1)
        # A product of two complex numbers by three of real ones (Gauss).
        shared = both @ sums
        torch.baddbmm(shared, imaginary, negatives, out=parts[0])
        torch.baddbmm(shared, real, differences, out=parts[1])
        torch.mm(matrices["time_back"], parts.view(2 * (frames + 1), -1), out=out)
    places = workspace.take("places", x, blocks**2, frames * batch * len(bias))
    torch.mm(matrices["space_back"], y.view(2 * count, -1), out=places)
    return places.view(blocks, blocks, frames, batch, -1).add_(bias).permute(3, 4, 2, 0, 1)


def paired_stem(net: C3D) -> Callable[[torch.Tensor], torch.Tensor]:
    """The first block of ``net``, (B, F, 3, H, W) -> (B, C, F, h, w), on two neighbouring pixels as six channels.

    The same sums as with three channels, which leave more of a processor's vectors empty.
    """
    first, pool = net.trunk[:2]
    weight = pad(first.weight, (1, 0)).unflatten(-1, (4, 2)).permute(0, 5, 1, 2, 3, 4).flatten(1, 2)
    weight, bias = weight.contiguous(memory_format=torch.channels_last_3d), first.bias.clone()

    def stem(clips: torch.Tensor) -> torch.Tensor:
        pairs = pad(clips.movedim(2, -1), (0, 0, 4, 2 + clips.shape[-1] % 2)).unflatten(3, (-1, 2)).flatten(4)
        x = conv3d(pairs.movedim(-1, 1), weight, bias, stride=(1, 2, 1), padding=(1, 3, 0))
        return pool(x).relu_()

    return stem


def max_pool(x: torch.Tensor, kernel: tuple[int, int, int]) -> torch.Tensor:
    """``max_pool3d(x, kernel)`` of a tensor in any layout, where that would make a copy first."""
    for dim, step in zip((2, 3, 4), kernel, strict=True):
        count = x.shape[dim] // step
        parts = x.narrow(dim, 0, count * step).unflatten(dim, (count, step)).unbind(dim + 1)
        x = functools.reduce(torch.maximum, parts)
    return x


def fourier_embed(net: C3D, workspace: Workspace | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function like ``net.embed`` with the weights that ``net`` has now, in float32 and without gradients.

    It is for square clips that are all of one size and length.

    All but the first convolution, whose three channels are too few, go by ``convolve``. Features differ from those of
    ``net.embed`` by a few millionths of their norm.

    Args:
        workspace: that of an earlier call, whose function is void from now on.
    """
    workspace = Workspace() if workspace is None else workspace
    stem, pools, spectra = paired_stem(net), [pool.kernel_size for pool in net.trunk[4::3]], {}
    weights, biases = zip(*((layer.weight.clone(), layer.bias.clone()) for layer in net.trunk[3::3]), strict=True)

    @torch.no_grad()
    def embed(clips: torch.Tensor) -> torch.Tensor:
        return torch.cat([some(part) for part in clips.split(CLIPS)])

    def some(clips: torch.Tensor) -> torch.Tensor:
        x = torch.cat([stem(few) for few in clips.split(STEM_CLIPS)])
        for i, (weight, bias, pool) in enumerate(zip(weights, biases, pools, strict=True)):
            if i not in spectra:
                spectra[i] = spectrum(weight, *x.shape[2:4], workspace, f"kernel {i}")
            x = max_pool(convolve(x, spectra[i], bias, workspace), pool).relu_()
        return x.flatten(1)

    return embed
