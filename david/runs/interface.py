"""Do it in three lines: open a dataset, distil it, evaluate the set."""

from pathlib import Path
from statistics import mean, stdev

import torch

from david import training
from david.data.clips import Clips, open_clips
from david.data.readers import load
from david.runs.methods import method as find_method
from david.runs.settings import Settings
from david.runs.settings import preset as find_preset
from david.sets import RealSet, StoredSet
from david.support.seeds import derive


def open_dataset(
    name: str, root: str | Path | None = None, *, preset: str = "demo", device=None, **options
) -> tuple[Clips, Clips]:
    """The training and the test clips of a dataset; what was not decoded yet is decoded first, into the cache.

    Args:
        name: of a reader, such as "motions", which makes its own videos, or "ucf101".
        root: the dataset's folder.
        preset: whose clip length, size and distance of frames are taken.
        device: where to put the clips; a CUDA device if there is one.
        options: of the reader, such as ``split=2``.

    Raises:
        ValueError: unknown dataset, preset or option.
    """
    shape = find_preset(preset)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dataset = load(name, root, **options)
    sampling = {"frames": shape.frames, "stride": shape.stride, "size": shape.size}
    return tuple(open_clips(dataset, split, **sampling).to(device) for split in ("train", "test"))


def distill(
    train: Clips,
    method: str = "david",
    *,
    ipc: int = 1,
    preset: str = "demo",
    seed: int = 0,
    work: str | Path | None = None,
    **changes,
) -> StoredSet | RealSet:
    """A distilled set of the clips.

    Args:
        train: real clips, on the device to compute on.
        method: a row of the tables: "david", "dm:4", "random", ...; see ``david.method``.
        ipc: stored videos of a class.
        preset: settings to start from; clip length and size are those of the clips.
        seed: fixes everything random.
        work: a folder for what an interrupted run continues from; a run of other clips, settings or seed takes another.
        changes: to the preset, such as ``distill_iterations=50``.

    Raises:
        ValueError: unknown method, preset or setting.
    """
    folder = Path(work).expanduser() / "run" if work else None
    return find_method(method).distill(
        train, ipc=ipc, seed=seed, settings=_fitting(train, preset, changes), work=folder
    )


def evaluate(
    distilled: StoredSet | RealSet,
    test: Clips,
    *,
    students: int = 3,
    model: training.Model | None = None,
    preset: str = "demo",
    seed: int = 0,
    **changes,
) -> dict:
    """Train students on a set, and test their last iterates.

    Args:
        distilled: the set; a set of real clips is trained on by the teacher's recipe.
        test: real clips of the same classes.
        students: how many, each of its own weights and batches.
        model: another network than C3D: called with the number of classes, F and the size of frames, it returns a
            module that takes normalised clips (B, F, 3, H, W) and gives logits (B, M).
        preset, seed, changes: as ``distill`` has them.

    Returns:
        "top1" and "top5", means over students; "top1_std" and "top5_std", deviations over them (None for one student);
        "per_class", class name -> mean accuracy; all fractions of 1.

    Raises:
        ValueError: no student; set and clips are not of the same classes or shape; pixels that are not normalised.
    """
    if students < 1:
        raise ValueError(f"students={students}: at least 1 is trained")
    if distilled.shape != (test.frames, test.size):
        own, other = ("{} frames of {} pixels".format(*shape) for shape in (distilled.shape, (test.frames, test.size)))
        raise ValueError(f"the set has {own}, the test clips {other}: open them with the set's frames and size")
    if isinstance(distilled, StoredSet) and (most := max(t.abs().max() for t in distilled.tensors.values())) > 100:
        raise ValueError(f"the set's pixels reach {most:.0f}, so they are not normalised: see david.support.pixels")
    settings = _fitting(test, preset, changes)
    recipe = settings.teacher if isinstance(distilled, RealSet) else settings.student
    seeds = [derive(seed, "student", k) for k in range(students)]
    found = [training.evaluate(distilled, test, seed=own, settings=recipe, model=model) for own in seeds]
    result = {}
    for name in ("top1", "top5"):
        values = [one[name] for one in found]
        result |= {name: mean(values), f"{name}_std": stdev(values) if students > 1 else None}
    per_class = [mean(own) for own in zip(*(one["per_class"] for one in found))]
    return result | {"per_class": dict(zip(distilled.classes, per_class, strict=True))}


def _fitting(clips: Clips, preset: str, changes: dict) -> Settings:
    return find_preset(preset, **changes).replace(frames=clips.frames, size=clips.size)
