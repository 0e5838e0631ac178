"""How time and memory of an iteration grow with classes, IPC, frames and size, for DM and for DAViD's mix of L.

    python benchmarks/growth.py
    python benchmarks/growth.py --width 1 --size 64 --clips 64 --classes 10 50 101 --sizes 64 112    # a GPU

One axis at a time leaves a base point: the first of `--classes`, `--base` stored videos a class, `--frames` and
`--size`. Every point has a process of its own. Memory is the peak while a Distiller is made and steps, over what the
process held before, so without the training clips; beside it stands what has to be held: stored videos and momentum.
On a CPU it is what is in use, not what the allocator keeps for later.

The base has 16 stored videos a class because an iteration sends at most 128 clips through the network at once: with
fewer, ten classes are less than one such chunk, and memory still grows with what fills it.
"""

from statistics import median

import measure
import torch
from davidbook.projection import along, iteration_flops

from david.matching import Distiller

METHODS = ("dm", "david")
# glibc keeps what was freed in small pieces, which moves the peak from run to run by more than we look for. With this
# it gives back to the system whatever is larger than a MiB, and the peak is that of what is in use.
STEADY = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def point(
    method: str, classes: int, ipc: int, frames: int, size: int, *, clips: int, width: float, precision: str,
    repeats: int, device: torch.device, start: str = "noise",
) -> dict:  # fmt: skip
    """Seconds of ``repeats`` iterations after a first one, and peak memory of all; to be called in a new process.

    Returns:
        the point's place, "segments" (mean F / L), "seconds" (a list), "peak_bytes", "stored_bytes" (videos),
        "state_bytes" (of the optimisers), "held_bytes" (of both, if they are on the device), "data_bytes" (uint8
        training clips) and "FLOP" (needed).
    """
    shape = {"frames": frames, "size": size, "width": width}
    settings = measure.settings_of(**shape, clips=clips, precision=precision, distill_start=start)
    train = measure.noise_clips(classes, clips, frames, size, device)
    policy = measure.policy_of(method, classes, frames)
    # What torch and its libraries take once is not the distiller's.
    one = measure.noise_clips(1, 1, frames, size, device)
    Distiller(one, measure.policy_of("dm", 1, frames), ipc=1, seed=0, settings=settings.distill).step()
    with measure.Peak(device) as peak:
        distiller = Distiller(train, policy, ipc=ipc, seed=0, settings=settings.distill)
        distiller.step()
        spent = [measure.seconds(distiller.step, device) for _ in range(repeats)]
    state = [v for o in distiller.optimizers for own in o.state.values() for v in own.values() if torch.is_tensor(v)]
    stored, segments = distiller.videos, (frames / policy).mean().item()
    kept = sum(tensor.nbytes for tensor in state)
    return {
        "method": method, "classes": classes, "ipc": ipc, "frames": frames, "size": size,
        "segments": segments,
        "seconds": spent,
        "peak_bytes": peak.own,
        "stored_bytes": stored.nbytes,
        "state_bytes": kept,
        "held_bytes": (stored.nbytes + kept) if stored.device.type == device.type else 0,  # else they are on the host
        "data_bytes": train.videos.nbytes,
        "FLOP": sum(iteration_flops(settings, classes=classes, ipc=ipc, segments=segments)),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure point by point, print a line for each, write the record."""
    numbers = {"classes": (10, 50, 100), "ipcs": (1, 5, 10, 50), "sizes": (48, 64, 112), "lengths": (8, 16)}
    numbers |= {"base": 16, "frames": 8, "size": 48, "clips": 16, "repeats": 2}
    options, load = measure.options(__doc__, arguments, **numbers), measure.load()
    base = {"classes": options.classes[0], "ipc": options.base, "frames": options.frames, "size": options.size}
    axes = {"classes": options.classes, "ipc": options.ipcs, "frames": options.lengths, "size": options.sizes}
    places = [base, *({**base, axis: value} for axis, values in axes.items() for value in values)]
    places = [place for i, place in enumerate(places) if place not in places[:i]]
    setting = {name: getattr(options, name) for name in ("clips", "width", "precision", "repeats")}
    points = []
    for method in METHODS:
        for place in places:
            found = measure.apart(point, method, **place, **setting, device=options.device, environment=STEADY)
            points.append(found)
            first = next(p for p in points if p["method"] == method)
            slower = median(found["seconds"]) / median(first["seconds"])
            peak, held = (found[name] / 2**20 for name in ("peak_bytes", "held_bytes"))
            said = f"{slower:6.2f} x the base's time, peak {peak:6.1f} MiB, must hold {held:6.1f}"
            print(f"{method:6} {place}: {said}", flush=True)
    result = {
        "what": "an iteration of distribution matching, along one axis at a time",
        "setting": setting,
        "base": base,
        "axes": {axis: [p[axis] for p in along(points, base, axis, method="dm")] for axis in axes},
        "points": points,
        "rates": measure.rates(options.device, *sorted({"float32", options.precision})),
    }
    print(measure.write("growth", options.out, options.device, load, result).name)


if __name__ == "__main__":
    main()
