"""Mean: what a class looks like on average, at no cost; k-means centres where a class stores several segments."""

from dataclasses import asdict
from pathlib import Path

from david.data.clips import rounded
from david.partition import given_policy
from david.sets import DistilledSet
from david.start import start_videos


def distill(train, *, ipc, seed, settings, work: Path | None = None, policy: tuple[int, ...] | str | None = None):
    """Store the centres of k-means among each class's real segments; at IPC 1 and L = F its pixel mean.

    Args:
        train: real clips.
        ipc: I, stored videos a class.
        seed: of k-means, and of a policy that is drawn.
        settings: its common fields.
        work: not used.
        policy: as ``temporal.given_policy`` takes it; L = F by default.

    Returns:
        DistilledSet, rounded to 8 bits.
    """
    lengths = given_policy(policy, num_classes=len(train.classes), frames=settings.frames, seed=seed)
    videos = start_videos(train, lengths, ipc=ipc, seed=seed, kind="mean")
    info = {"method": "mean", "ipc": ipc, "seed": seed, "settings": asdict(settings)}
    return DistilledSet(rounded(videos), lengths, list(train.classes), info)
