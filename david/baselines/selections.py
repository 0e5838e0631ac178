"""Select real clips, or means of them: the methods that distil nothing.

Each is a function ``(train, *, ipc, seed, settings, work) -> DistilledSet``: ``train`` real clips, I stored videos of a
class, what fixes the choice, and the settings of runs, of which most read nothing. ValueError where a class has fewer
clips than it is to store.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from david.data.clips import Clips
from david.data.decode import decode_frames, frame_indices
from david.data.video import DecodeError
from david.data.workers import judged
from david.matching import empty_videos, random_clips, start_videos
from david.partition import given_policy
from david.sets import DistilledSet, RealSet, StillSet
from david.support.pixels import normalise, rounded
from david.support.progress import track
from david.training import embed_clips, load_teacher

Policy = tuple[int, ...] | str | None


def full(train: Clips, *, ipc=None, seed=0, settings=None, work=None) -> RealSet:
    """Full data, the reference: the whole training set behind the interface of a distilled set."""
    return RealSet(train, {"method": "full"})


def still(train: Clips, *, ipc=None, seed=0, settings=None, work=None) -> StillSet:
    """The static version of the training set: what a network can learn without motion (Eq. 6)."""
    return StillSet(train, {"method": "still"})


def random(train: Clips, *, ipc: int, seed: int, settings, work=None, policy: Policy = None) -> DistilledSet:
    """Random real clips, or, partitioned, collages of frames of real clips: DM before its first iteration.

    Args:
        policy: as ``partition.given_policy`` takes it. L = F (the default) is the usual Random baseline; a smaller L
            stores F / L clips of L frames in place of each video: "Random, partitioned".
    """
    check_ipc([len(positions) for positions in train.by_class()], train.classes, ipc)
    lengths = given_policy(policy, num_classes=len(train.classes), frames=train.frames, seed=seed)
    videos = start_videos(train, lengths, ipc=ipc, seed=seed, kind="real")
    return DistilledSet(videos, lengths, list(train.classes), {"method": "random", "seed": seed})


def mean(train: Clips, *, ipc: int, seed: int, settings, work=None, policy: Policy = None) -> DistilledSet:
    """The centres of k-means among a class's real segments, at IPC 1 and L = F its pixel mean, rounded to 8 bits.

    Args:
        seed: of k-means, and of a policy that is drawn.
        policy: as ``partition.given_policy`` takes it; L = F by default.
    """
    lengths = given_policy(policy, num_classes=len(train.classes), frames=train.frames, seed=seed)
    videos = rounded(start_videos(train, lengths, ipc=ipc, seed=seed, kind="mean"))
    return DistilledSet(videos, lengths, list(train.classes), {"method": "mean", "seed": seed})


def keyframe(train: Clips, *, ipc: int, seed: int, settings, work=None) -> DistilledSet:
    """The F key frames, in order, of the videos whose clips ``random`` stores for the same seed.

    The paper names the method and gives no definition; this one is ours. Of a video that is damaged outside its clip,
    the frames of the clip, with a warning; ``info`` names them. ValueError also for clips that were made in memory.
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
            whole = judged(decode_frames, train.paths[pick], train.size)  # OSError: a drive that is gone, say
        except DecodeError as error:
            warnings.warn(f"{error}: KeyFrame takes the clip that the other methods see", stacklevel=2)
            place.copy_(train.batch([pick])[0])
            damaged.append(str(train.names[pick]))
            continue
        place.copy_(normalise(torch.from_numpy(whole[key_frames(whole, train.frames)]).to(train.device)))
    policy = torch.full((len(videos),), train.frames)
    info = {"method": "keyframe", "seed": seed} | ({"damaged": damaged} if damaged else {})
    return DistilledSet(videos, policy, list(train.classes), info)


def herding(train: Clips, *, ipc: int, seed: int, settings, work: Path | None = None) -> DistilledSet:
    """Real clips whose running mean follows the class mean (Welling, "Herding dynamical weights", 2009)."""
    return select(train, herd, name="herding", ipc=ipc, seed=seed, settings=settings, work=work)


def kcenter(train: Clips, *, ipc: int, seed: int, settings, work: Path | None = None) -> DistilledSet:
    """Real clips such that no clip of the class is far from a chosen one (K-Center; Sener and Savarese, 2018)."""
    return select(train, k_center, name="kcenter", ipc=ipc, seed=seed, settings=settings, work=work)


def select(train: Clips, choose: Callable, *, name: str, ipc: int, seed: int, settings, work: Path | None):
    """Whole real clips, in the order in which ``choose`` takes them among the features of a teacher.

    The choice has no other randomness, so the seed is a different teacher: that of ``settings.teacher_seed + seed``.
    Seed 0 has the teacher of all other methods.

    Args:
        choose: (features of a class float64 (N, D) on the CPU, count) -> int64 (count,), rows without repetition.
        name: the method's.
        settings: its ``teacher_`` fields.
        work: folder of this run; the teacher is kept beside it, for other runs.
    """
    check_ipc([len(own) for own in train.by_class()], train.classes, ipc)
    recipe = {"seed": settings.teacher_seed + seed, "settings": settings.teacher}
    teacher = load_teacher(train, **recipe, folder=work and work.parent)
    # float64 and one device for the choice: on it, equal distances are always decided in the same way.
    features = embed_clips(teacher, train).cpu().double()
    videos = empty_videos(train, len(train.classes), ipc)
    for c, positions in enumerate(train.by_class()):
        videos[c] = train.batch(positions[choose(features[positions], ipc).numpy()])
    policy = torch.full((len(videos),), train.frames)
    return DistilledSet(videos, policy, list(train.classes), {"method": name, "seed": seed})


def check_ipc(counts: list[int], classes: Sequence[str], ipc: int) -> None:
    """ValueError where the smallest class, of ``counts`` training clips each, has fewer than ``ipc`` to store."""
    available = min(counts)
    if ipc > available:
        raise ValueError(
            f"ipc={ipc} asks for more stored videos than class {classes[counts.index(available)]} has training "
            f"clips ({available}); use at most ipc={available}"
        )


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


def herd(features: torch.Tensor, count: int) -> torch.Tensor:
    """Greedily, the rows whose mean stays nearest to the mean of all, as in the code of DC and VDSD.

    Pick i + 1 minimises ||(i + 1) mean - sum of the picks so far - row|| over the rows not yet picked.

    Args:
        features: float (N, D).
        count: at most N.

    Returns:
        int64 (count,), in the order of picking; the first ``k`` are the picks for a count of ``k``.
    """
    wanted, mean = torch.zeros_like(features[0]), features.mean(0)
    picks = []
    for _ in range(count):
        wanted = wanted + mean  # what the picks still lack, this one included
        distances = (wanted - features).norm(dim=1)
        distances[picks] = torch.inf
        picks.append(int(distances.argmin()))
        wanted = wanted - features[picks[-1]]
    return torch.tensor(picks)


def k_center(features: torch.Tensor, count: int) -> torch.Tensor:
    """Farthest first (Gonzalez, 1985): the row nearest to the mean, then always the one farthest from all picks.

    The largest distance of a row to its nearest pick is then at most twice the smallest possible. (The code of
    earlier work subtracts arrays of different lengths where it means all pairs.)

    Args:
        features: float (N, D).
        count: at most N.

    Returns:
        int64 (count,), in the order of picking; the first ``k`` are the picks for a count of ``k``.
    """
    picks = [int((features - features.mean(0)).norm(dim=1).argmin())]
    nearest = torch.full_like(features[:, 0], torch.inf)  # distance of each row to its nearest pick
    while len(picks) < count:
        nearest = torch.minimum(nearest, (features - features[picks[-1]]).norm(dim=1))
        nearest[picks] = -1  # never again, even if all other rows are copies of picks
        picks.append(int(nearest.argmax()))
    return torch.tensor(picks)
