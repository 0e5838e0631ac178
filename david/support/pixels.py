"""Pixels as networks take them and as 8 bits show them. This needs torch alone, as training on a distilled set does."""

import functools

import torch

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, of RGB in [0, 1], as in VDSD
STD = (0.229, 0.224, 0.225)
# Clips that go through the network at once: bounds memory whatever the number of classes and IPC are.
CHUNK = 128
# Of memory, for every pixel of a clip that goes through C3D at width 1 and back, in float32: the clip, what is kept for
# the way back, and the gradient of the first layer, which is the largest.
BYTES_A_PIXEL = 200


@functools.cache
def scale_and_shift(device: torch.device, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """1 / (255 STD) and -MEAN / STD, repeated for a row of `width` pixels: float32 (width * 3,) each."""
    mean, std = (torch.tensor(c).repeat(width) for c in (MEAN, STD))
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def normalise(videos: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) in 0-255 -> float32 (..., 3, H, W) less ImageNet's mean, over its deviation.

    The result is a permuted view of memory that is contiguous as (..., H, W, 3): channels last.
    """
    scale, shift = scale_and_shift(videos.device, videos.shape[-2])
    # Over whole rows, as an inner loop over 3 channels is ten times slower on a CPU. A GPU reads bytes and writes
    # floats in one kernel; a CPU would make a float copy for itself, so let that be the result.
    rows, out = videos.flatten(-2), None
    if rows.device.type == "cpu":
        rows = out = rows.to(torch.float32, copy=True)
    return torch.addcmul(shift, rows, scale, out=out).view(videos.shape).movedim(-1, -3)


def denormalise(videos: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) as `normalise` makes it -> uint8 (..., H, W, 3), clamped to 0-255."""
    mean, std = (torch.tensor(c, device=videos.device) for c in (MEAN, STD))
    pixels = (videos.detach().movedim(-3, -1).float() * std + mean) * 255
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


@functools.cache
def pixel_range(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """What black and white are once normalised: float32 (3, 1, 1) each."""
    mean, std = (torch.tensor(c, device=device).view(3, 1, 1) for c in (MEAN, STD))
    return (0 - mean) / std, (1 - mean) / std


@torch.no_grad()
def keep_in_range(videos: torch.Tensor) -> torch.Tensor:
    """Clamp float (..., 3, H, W), in place, to what 8 bits can show; NaN stays NaN."""
    low, high = pixel_range(videos.device)
    return torch.clamp(videos, low, high, out=videos)


def rounded(videos: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) -> the nearest pixels that 8 bits can show, normalised again, contiguous."""
    return normalise(denormalise(videos)).contiguous()


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor on `device`, without waiting for what the device is doing."""
    pinned = tensor.pin_memory() if tensor.device.type == "cpu" and device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
