"""Tell where the clips of a set lie among real ones, in a teacher's features: distance, coverage, precision, a map.

Features are lists with one tensor a class, float (n_c, D), on the CPU.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from david.c3d import C3D
from david.data.clips import CHUNK, Clips
from david.matching import random_clips
from david.sets import StoredSet
from david.training import embed_clips


def real_features(net: C3D, clips: Clips) -> list[torch.Tensor]:
    """The features of every real clip, unflipped."""
    features = embed_clips(net, clips).cpu()
    return [features[torch.as_tensor(own)] for own in clips.by_class()]


@torch.no_grad()
def set_features(net: C3D, data: StoredSet) -> list[torch.Tensor]:
    """The features of every training clip of a set: partitioned, as a student gets them."""
    device = next(net.parameters()).device
    parts = zip(*(numbers.split(CHUNK) for numbers in data.numbers()))
    features = torch.cat([net.embed(data.clips(labels, picks).to(device)) for labels, picks in parts]).cpu()
    return list(features.split(data.clips_per_class.tolist()))


def as_many(real: list[torch.Tensor], counts: Iterable[int], seed: int) -> list[torch.Tensor]:
    """``counts[c]`` random clips of each class: the control that tells better clips from more clips.

    One clip a class is the one that the method Random stores at this seed, in the order of ``train.by_class()``.
    """
    return [own[random_clips(range(len(own)), n, seed=seed, label=c)] for c, (own, n) in enumerate(zip(real, counts))]


def means(features: list[torch.Tensor]) -> torch.Tensor:
    """The mean feature of each class, (M, D)."""
    return torch.stack([own.mean(0) for own in features])


def eccentricity(means: torch.Tensor) -> torch.Tensor:
    """How far each class mean (M, D) lies from the mean of them all, (M,): little in the centre, much at the edge."""
    return (means - means.mean(0)).norm(dim=1)


def coverage_and_precision(real: torch.Tensor, synthetic: torch.Tensor, k: int) -> tuple[float, float]:
    """Whether synthetic clips (S, D) lie where real ones (N, D) do, within one class.

    The neighbourhood of a real clip is the ball that reaches to its k-th nearest other real clip.

    Returns:
        coverage, the share of the real clips with a synthetic one in their neighbourhood (Naeem et al., 2020); and
        precision, the share of the synthetic clips in that of a real one (Kynkäänniemi et al., 2019).

    Raises:
        ValueError: k is not at least 1 and less than N.
    """
    if not 0 < k < len(real):
        raise ValueError(f"a class of {len(real)} real clips has no {k}-th neighbour; choose 1 to {len(real) - 1}")
    real, synthetic = real.double(), synthetic.double()
    radii = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the nearest of all is the clip itself
    inside = torch.cdist(real, synthetic) < radii[:, None]
    return inside.any(1).double().mean().item(), inside.any(0).double().mean().item()


def measure(train: list, test: list, synthetic: list, k: int) -> pd.DataFrame:
    """What can be said of a set without a map, from features of the real clips and of its own, class by class.

    Returns:
        M rows: distance, the d of Eq. 1, from the mean of the training clips to the mean of the set's; eccentricity,
        of the set's means; coverage and precision with k neighbours of the test clips, since Random would cover the
        training clips that it stores; and clips, how many the set has.
    """
    judged = [coverage_and_precision(own, new, k) for own, new in zip(test, synthetic, strict=True)]
    table, centres = pd.DataFrame(judged, columns=["coverage", "precision"]), means(synthetic)
    distance, outward = (centres - means(train)).norm(dim=1).numpy(), eccentricity(centres).numpy()
    return table.assign(distance=distance, eccentricity=outward, clips=list(map(len, synthetic)))


def tsne(*groups: torch.Tensor, perplexity: float = 30, seed: int = 0) -> list[np.ndarray]:
    """One t-SNE map of all groups of points together: (n, 2) for (n, D) each.

    t-SNE cannot place a new point on a map that exists, so what is to be seen on one map is fitted at once, and the
    place of each point depends on all others. It starts from the first two principal components, which scikit-learn
    draws by the seed where there are many points. Perplexity is capped at a third of all points.
    """
    from sklearn.manifold import TSNE  # takes a second to import

    points = torch.cat(groups).numpy()
    perplexity = min(perplexity, (len(points) - 1) / 3)
    placed = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(points)
    return np.split(placed, np.cumsum([len(group) for group in groups])[:-1])
