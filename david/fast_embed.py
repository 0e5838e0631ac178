"""``C3D.embed`` without gradients, as ``distill_precision`` has it: of the real clips, most of an iteration's work."""

import os
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import conv3d, max_pool3d, pad

from david.c3d import C3D

Embed = Callable[[torch.Tensor], torch.Tensor]


def fold(clips: torch.Tensor) -> torch.Tensor:
    """Space to depth: every 2x2 pixels become one of 12 channels, with the zero margin that ``folded_stem`` wants.

    A convolution of 3 channels with stride 2 leaves most of a matrix unit idle; one of 12 with stride 1 does not.

    Args:
        clips: float (B, F, 3, H, W).

    Returns:
        bfloat16 (B, 12, F, ceil(H / 2) + 3, ceil(W / 2) + 3), channels last.
    """
    pixels = clips.movedim(2, -1)
    batch, frames, height, width, channels = pixels.shape
    if height % 2 or width % 2:
        pixels = pad(pixels, (0, 0, 0, width % 2, 0, height % 2))
    rows, columns = pixels.shape[2] // 2, pixels.shape[3] // 2
    folded = clips.new_zeros((batch, frames, rows + 3, columns + 3, 2, 2, channels), dtype=torch.bfloat16)
    blocks = pixels.reshape(batch, frames, rows, 2, columns, 2, channels)
    folded[:, :, 2:-1, 2:-1] = blocks.transpose(3, 4)
    return folded.flatten(4).movedim(-1, 1)


def folded_stem(weight: torch.Tensor) -> torch.Tensor:
    """The first convolution's weights for folded clips: (O, 3, 3, 7, 7), stride 2 -> (O, 12, 3, 4, 4), stride 1.

    Output i of a row takes the pixels 2i - 3 to 2i + 3. With a weight of 0 for pixel 2i - 4 these are the blocks
    i - 2 to i + 1, whole: the same sum.
    """
    blocks = pad(weight, (1, 0, 1, 0)).unflatten(-1, (4, 2)).unflatten(-3, (4, 2))  # (O, 3, T, 4, 2, 4, 2)
    return blocks.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` convolves numbers of bfloat16 faster than those of float32.

    GPUs do from compute capability 8.0 on (not a T4 or a V100), and some processors.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def compiling() -> bool:
    """Whether torch is to compile the networks of distribution matching: the environment has ``DAVID_COMPILE=1``.

    It takes a C++ compiler and up to a minute, once a process: networks of one shape share the code, and new weights
    need none. `benchmarks/distill.py --compile 1` measures what it gains.
    """
    return os.environ.get("DAVID_COMPILE") == "1"


@torch.no_grad()
def round_weights(net: C3D) -> None:
    """Round the weights of ``net``, in place, to numbers of bfloat16.

    A random network is as good with such weights, and then all clips go through the same one, at whatever precision.
    If only the real clips' were rounded, that would move the mean features of all classes by as much and the same way,
    and synthetic clips would learn to make up for it.
    """
    for own in net.parameters():
        own.copy_(own.bfloat16())


@torch.no_grad()
def bfloat16_features(
    clips: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor], pools: list[tuple]
) -> torch.Tensor:
    """``C3D.embed`` of numbers rounded to bfloat16, in the type that ``weights`` have.

    Args:
        clips: float (B, F, 3, H, W), normalised.
        weights, biases: of the convolutions, the first one's from ``folded_stem``.
        pools: kernels of the max-pools.

    Returns:
        float32 (B, D).
    """
    number = weights[0].dtype
    x = conv3d(fold(clips).to(number), weights[0], biases[0], padding=(1, 0, 0))
    x = max_pool3d(x, pools[0]).relu_()
    for weight, bias, pool in zip(weights[1:], biases[1:], pools[1:], strict=True):
        x = x.bfloat16().to(number)
        x = max_pool3d(conv3d(x, weight, bias, stride=(1, 2, 2), padding=(1, 3, 3)), pool).relu_()
    return x.flatten(1).bfloat16().float()


def bfloat16_embed(net: C3D, features: Callable = bfloat16_features) -> Embed:
    """A function like ``net.embed`` with the weights that ``net`` has now, whose products are of bfloat16 numbers.

    Every product is of two bfloat16 numbers and every sum over products is float32, whatever the device: one that
    cannot multiply bfloat16 computes with float32 copies of the same rounded numbers. So results depend on the device
    by a rounding to bfloat16, as where a bias is added, at most.
    Features are float32 again, so that the means over clips are taken in full precision. Those of random networks
    differ from ``net.embed``'s by 0.3 % of their norm, clip by clip, and by 0.2 % after ``round_weights``, of which
    means over clips keep less; two clips differ by about 20 %.

    Args:
        features: ``bfloat16_features``, or what torch compiled of it.
    """
    convolutions, pools = net.trunk[::3], [layer.kernel_size for layer in net.trunk[1::3]]
    weights = [folded_stem(convolutions[0].weight), *(layer.weight for layer in convolutions[1:])]
    number = torch.bfloat16 if multiplies_bfloat16(weights[0].device) else torch.float32
    weights = [w.detach().bfloat16().to(number, memory_format=torch.channels_last_3d) for w in weights]
    biases = [layer.bias.detach().bfloat16().to(number) for layer in convolutions]
    return partial(features, weights=weights, biases=biases, pools=pools)


def frozen_embed(net: C3D, precision: str, features: Callable = bfloat16_features) -> Embed:
    """``net.embed`` for clips that need no gradient, with the weights of the moment.

    Args:
        precision: "float32", which on a GPU torch multiplies in TF32 unless ``torch.backends.cudnn.allow_tf32`` is
            False; or "bfloat16".
        features: see ``bfloat16_embed``.

    Raises:
        ValueError: unknown precision.
    """
    if precision == "float32":
        return net.embed
    if precision == "bfloat16":
        return bfloat16_embed(net, features)
    raise ValueError(f"unknown precision {precision!r} of distillation; choose 'float32' or 'bfloat16'")
