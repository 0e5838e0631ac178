"""KeyFrame: Random's videos, each stored as key frames of all of it instead of as one window.

The paper names the method and gives no definition; this one is ours.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from david.baselines.random import check_ipc
from david.data.clips import normalise
from david.data.decode import decode_frames, frame_indices
from david.data.video import DecodeError
from david.sets import DistilledSet
from david.start import empty_videos, random_clips
from david.support.progress import track


def distill(train, *, ipc, seed, settings, work: Path | None = None) -> DistilledSet:
    """The F key frames, in order, of the videos whose clips ``random.distill`` stores for the same seed.

    Of a video that is damaged outside its clip, the frames of the clip, with a warning; ``info`` names them.

    Args:
        train: real clips that know their files.
        ipc: I, stored videos a class.
        seed: which videos.
        settings, work: unused; every method takes them.

    Raises:
        ValueError: a class has fewer than ``ipc`` clips, or the clips were made in memory.
    """
    check_ipc([len(own) for own in train.by_class()], train.classes, ipc)
    if train.paths is None:
        raise ValueError("KeyFrame reads whole videos, and these clips have no paths: take them from clips.open_clips")
    videos = empty_videos(train, len(train.classes), ipc)
    picks = [random_clips(own, ipc, seed=seed, label=c).numpy() for c, own in enumerate(train.by_class())]
    chosen = track(np.concatenate(picks), desc="key frames", unit="video")
    damaged = []
    for place, pick in zip(videos.flatten(0, 1), chosen, strict=True):
        try:
            whole = decode_frames(train.paths[pick], train.size)
        except DecodeError as error:
            if isinstance(error.__cause__, OSError):  # not of the file: a drive that is gone, say
                raise
            warnings.warn(f"{error}: KeyFrame takes the clip that the other methods see", stacklevel=2)
            place.copy_(train.batch([pick])[0])
            damaged.append(str(train.names[pick]))
            continue
        place.copy_(normalise(torch.from_numpy(whole[key_frames(whole, train.frames)]).to(train.device)))
    policy = torch.full((len(videos),), train.frames)
    info = {"method": "keyframe", "seed": seed} | ({"damaged": damaged} if damaged else {})
    return DistilledSet(videos, policy, list(train.classes), info)


def key_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """Which frames of a video sum it up: of each k-means cluster of its frames, the one nearest to the centroid.

    Frames are compared as grey thumbnails of 16x16. Of fewer than ``count`` different ones, all are taken, each
    repeated in place, about equally often.

    Args:
        frames: uint8 (T, H, W, 3).
        count: k, F of the clip.

    Returns:
        int64 (count,), ascending; always the same for the same frames.
    """
    from sklearn.cluster import KMeans

    small = [Image.fromarray(f).convert("L").resize((16, 16), Image.Resampling.BOX) for f in frames]
    grey = np.stack([np.asarray(picture, dtype=np.float64).ravel() for picture in small])
    # k-means cannot split copies, and warns of it: one point for all frames that look alike, weighted by their number.
    points, first, weights = np.unique(grey, axis=0, return_index=True, return_counts=True)
    means = KMeans(min(count, len(points)), n_init=10, random_state=0).fit(points, sample_weight=weights)
    distances = means.transform(points)  # (points, k)
    distances[means.labels_[:, None] != np.arange(distances.shape[1])] = np.inf  # a key frame is of its own cluster
    chosen = np.unique(first[distances.argmin(0)])
    return chosen[frame_indices(len(chosen), count, stride=1)]
