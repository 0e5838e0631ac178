"""The student and teacher network: the norm-free three-layer C3D of VDSD, "ConvNet3D"."""

import math

import torch
from torch import nn


class C3D(nn.Module):
    """Three blocks of Conv3d(3x7x7, spatial stride 2) - ReLU - MaxPool3d, then a 1x1x1 classifier.

    The network of "Dancing with Still Images" (VDSD), which DAViD follows (section 4.2): channels 64-128-128,
    no normalisation, 3,647,666 parameters for 50 classes. Its head averages over space and over pairs of
    time steps, classifies each and keeps the largest logit over time; written so, it equals VDSD's head
    at 112x112x16 and 64x64x8 and works at every other size as well.

    Args:
        num_classes: number of logits.
        frames: clip length F, at least 8.
        size: height and width of the square frames in pixels, at least 48.
        width: factor on the number of channels; 1.0 is the published network, 0.25 suits a CPU.

    Raises:
        ValueError: a size or length that the pooling would shrink to nothing.
    """

    def __init__(self, num_classes: int, frames: int = 16, size: int = 112, width: float = 1.0):
        super().__init__()
        if frames < 8:
            raise ValueError(f"C3D needs clips of at least 8 frames, got frames={frames}")
        if size < 48:
            raise ValueError(f"C3D needs frames of at least 48x48 pixels, got size={size}")
        if not width > 0:
            raise ValueError(f"C3D width is a positive factor on its channels, got width={width}")
        channels = [3, *(max(1, round(width * c)) for c in (64, 128, 128))]
        pools = [(1, 2, 2), (2, 2, 2), (2, 2, 2)]
        blocks = []
        for inputs, outputs, pool in zip(channels[:-1], channels[1:], pools, strict=True):
            conv = nn.Conv3d(inputs, outputs, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3))
            # ReLU and maximum commute exactly, gradients included; after the pool there is a quarter or less to do.
            blocks += [conv, nn.MaxPool3d(pool), nn.ReLU(inplace=True)]
            size = math.ceil(size / 2) // 2
        self.trunk = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(channels[-1], num_classes)
        self.embed_dim = channels[-1] * (frames // 4) * size * size
        # Clips are stored as (F, H, W, 3), so channels-last costs no copy, and it is the faster layout.
        self.to(memory_format=torch.channels_last_3d)

    def _features(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, F, 3, H, W) -> feature map (B, C, F/4, h, w)."""
        x = clips.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
        return self.trunk(x)

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """Features before the head, for matching and for the reward.

        Args:
            clips: float (B, F, 3, H, W), normalised.

        Returns:
            float (B, embed_dim); embed_dim is 2048 at 112x112x16 and 256 at 64x64x8 at width 1.
        """
        return self._features(clips).flatten(1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips, float (B, F, 3, H, W) -> logits, float (B, num_classes)."""
        steps = self._features(clips).mean((3, 4))  # (B, C, T): each time step, averaged over space
        steps = (steps[:, :, 1:] + steps[:, :, :-1]) / 2  # AvgPool over pairs of steps, stride 1
        logits = self.classifier(self.dropout(steps).transpose(1, 2))  # (B, T-1, num_classes)
        return logits.amax(1)

    def reset(self, generator: torch.Generator) -> "C3D":
        """Draw all weights anew, in place, as ``default_weights`` does.

        One network re-initialised in place replaces the fresh network object that earlier code builds in every
        iteration (and seeds from the clock).
        """
        return default_weights(self, generator)


@torch.no_grad()
def default_weights(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw convolutions and linear layers, in place, from PyTorch's default U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
    return net
