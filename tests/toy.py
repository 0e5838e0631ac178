"""Real clips made in memory: of noise, or of frames that say which they are."""

import numpy as np
import torch

from david.data.clips import Clips
from david.support.pixels import denormalise


def clips_of(videos, labels, flip=False) -> Clips:
    """Real clips from uint8 videos (N, F, H, W, 3), whose rows in memory run backwards."""
    labels = np.asarray(labels)
    count = len(labels)
    return Clips(
        videos=torch.from_numpy(videos[::-1].copy()),
        rows=np.arange(count)[::-1].copy(),
        labels=labels,
        classes=[f"class {c}" for c in range(labels.max() + 1)],
        groups=np.array(["g01"] * count),
        names=np.array([f"clip {i}" for i in range(count)]),
        flip=flip,
        fingerprint="toy",
    )


def noise_clips(labels=(0, 1, 2, 0, 1, 2, 0, 1), seed=0, flip=False, size=48, frames=8) -> Clips:
    """Clips of noise that C3D can take, of classes that alternate."""
    rng = np.random.default_rng(seed)
    videos = rng.integers(0, 256, (len(labels), frames, size, size, 3), dtype=np.uint8)
    videos += 40 * np.asarray(labels, dtype=np.uint8)[:, None, None, None, None]
    return clips_of(videos, labels, flip)


def counting_clips(labels=(0, 1, 0, 1, 0, 1, 0, 1, 0)) -> Clips:
    """Clips of 2x2 pixels in which frame f of clip i has the brightness 10 i + f."""
    shades = (10 * np.arange(len(labels))[:, None] + np.arange(8)).astype(np.uint8)
    return clips_of(np.broadcast_to(shades[:, :, None, None, None], (*shades.shape, 2, 2, 3)), labels)


def shades(videos):
    """What `counting_clips` has written: (clip, frame) of every frame, each int64 (..., F)."""
    pixels = denormalise(videos)
    assert (pixels == pixels[..., :1, :1, :1]).all()
    number = pixels[..., 0, 0, 0].long()
    return number // 10, number % 10
