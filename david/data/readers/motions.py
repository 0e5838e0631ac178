"""The embedded dataset: small rendered films of moving shapes, written as real AVI files in UCF101's layout.

Half the classes differ in what is shown (six shapes that drift alike), half in how it moves (the same three other
shapes, told apart by movement alone). One law gives every clip its three coordinates, x, y and size: a coordinate
runs through its range as its phase goes from 0 to 1. A motion class lets one coordinate run round and round, forwards
or backwards, from a random phase, and freezes the others near the middle. So a single frame of a class has the same
distribution as one of its reverse (MoveLeft and MoveRight), and only the order of frames tells the two apart; and two
frames half a clip apart do not do it either, because the phase has then run most of the way round.
"""

import itertools
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import numpy as np

from david.data.readers import Dataset, digest
from david.data.readers.ucf101 import ucf101
from david.support import files
from david.support.progress import track

VERSION = 3  # raise it when the pixels change
WIDTH, HEIGHT, FRAMES, RATE = 96, 72, 40, 25  # pixels, pixels, frames, frames a second
ROUNDS = 1.8  # how often the fastest group's phase runs through its range in a clip
REACH = 33.0  # pixels from the middle to the border of what the crop to 112 of 160x120 leaves

APPEARANCE = ("Disc", "Square", "Triangle", "Cross", "Ring", "Bars")
MOTION = ("MoveLeft", "MoveRight", "MoveUp", "MoveDown", "Shrink", "Grow")  # x, y and size: down and up
KIND = {name: "appearance" for name in APPEARANCE} | {name: "motion" for name in MOTION}
OBJECTS = ("Ellipse", "Star", "Peanut")  # what moves in the motion classes


@dataclass(frozen=True)
class Nuisance:
    """How much varies that does not tell the classes apart, each from 0 (nothing) to at most 1."""

    texture: float = 0.03  # amplitude of the background's pattern, as a share of the full range of brightness
    colour: float = 0.25  # 0: white objects on dark grey; 1: any hue on any dark hue
    size: float = 0.1  # relative deviation of the object's size from group to group
    position: float = 0.3  # share of its range that a frozen coordinate is drawn from
    speed: float = 0.2  # the slowest group runs at 1 - speed times the speed of the fastest
    noise: float = 0.01  # standard deviation of each pixel in each frame, as a share of the full range

    def __post_init__(self):
        if not all(0 <= value <= 1 for value in asdict(self).values()) or self.size > 0.5:
            raise ValueError(f"{self}: each must lie in [0, 1], and size in [0, 0.5], or objects lose their shape")


def motions(
    root: str | Path | None = None,
    split: int = 1,
    *,
    seed: int = 0,
    nuisance: Nuisance | None = None,
    classes: tuple[str, ...] = APPEARANCE + MOTION,
    clips_per_group: int = 8,
    train_groups: int = 8,
    test_groups: int = 4,
) -> Dataset:
    """The dataset `motions`, rendered on first use (seconds) into a folder in `root`, or the cache folder.

    96x72 pixels, 40 frames, 25 frames a second; groups 1 to `test_groups` are the test split, the next
    `train_groups` the training split. One seed gives the same pixels. Clips may not be mirrored: MoveLeft
    would become MoveRight.
    """
    nuisance = nuisance or Nuisance()
    unknown = [name for name in classes if name not in KIND]
    if unknown or not classes:
        raise ValueError(f"unknown classes {unknown}; known: {', '.join(KIND)}")
    if split != 1:
        raise ValueError(f"split={split}: motions has one split, 1")
    settings = [VERSION, seed, asdict(nuisance), list(classes), clips_per_group, train_groups, test_groups]
    name = f"motions-v{VERSION}-seed{seed}-{digest(settings)[:8]}"
    folder = Path(root or files.cache_folder()).expanduser().absolute() / name
    if not folder.exists():
        files.make_folder(folder.parent)
        with files.locked(folder.with_name(f"{name}.lock")):
            if not folder.exists():  # another process may just have made it
                groups, clips = range(1, test_groups + train_groups + 1), range(1, clips_per_group + 1)
                films = list(itertools.product(classes, groups, clips))
                files.need_space(folder.parent, len(films) * 100_000)
                write(folder, films, test_groups, seed, nuisance)
    return replace(ucf101(folder, name="motions", flip=False), settings=digest(settings))


def write(folder: Path, films: list, test_groups: int, seed: int, nuisance: Nuisance) -> None:
    """Render all films (class, group, clip) into a folder beside `folder`; rename that when it is whole."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what an interrupted run left
    classes = list(dict.fromkeys(name for name, _, _ in films))

    def film(name: str, group: int, clip: int) -> str:
        line = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
        encode(part / line, render(name, group, clip, seed, nuisance))
        return line

    with files.writing(folder), ThreadPoolExecutor() as pool:  # numpy and the encoder let go of Python's lock
        for name in classes:
            (part / name).mkdir(parents=True)
        jobs = [pool.submit(film, *which) for which in films]
        try:
            lines = [job.result() for job in track(jobs, desc="rendering motions", unit="clip")]
        finally:
            pool.shutdown(cancel_futures=True)
        train = [f"{line} {classes.index(f[0]) + 1}" for f, line in zip(films, lines) if f[1] > test_groups]
        test = [line for f, line in zip(films, lines) if f[1] <= test_groups]
        numbered = [f"{number} {name}" for number, name in enumerate(classes, 1)]
        for list_name, content in {"classInd": numbered, "trainlist01": train, "testlist01": test}.items():
            (part / f"{list_name}.txt").write_text("\n".join(content) + "\n")
        part.rename(folder)


def render(name: str, group: int, clip: int, seed: int, nuisance: Nuisance) -> np.ndarray:
    """One clip: uint8 (40, 72, 96, 3). All classes share a group's look, so that it tells nothing."""
    look = np.random.default_rng([seed, group])
    own = np.random.default_rng([seed, group, clip, zlib.crc32(name.encode())])

    # Of the group: object, hues, brightness, tilt, size, speed, waves. Of the clip: slight changes, movement.
    shape = OBJECTS[group % len(OBJECTS)] if KIND[name] == "motion" else name
    hues, dark, tilt = look.uniform(size=(2, 3)), look.uniform(0.10, 0.30), look.uniform(-0.2, 0.2)
    scale = 1 + nuisance.size * look.uniform(-1, 1)
    speed = 1 - nuisance.speed * look.uniform()
    waves = look.uniform(0.02, 0.25, (4, 2)) * look.choice([-1, 1], (4, 2))  # radians a pixel
    hues = np.clip(hues + own.normal(0, 0.05, hues.shape), 0, 1)
    paint = 1 - 0.6 * nuisance.colour * hues[0]  # 0.4 or brighter, and the ground 0.3 or darker
    ground = dark * (1 - nuisance.colour * hues[1]) + nuisance.texture * texture(waves, own)[..., None]

    x, y, radius = trajectory(name, scale, speed, nuisance.position, own)
    video = np.repeat(ground[None].astype(np.float32), FRAMES, axis=0)
    stamp(video, SHAPES[shape], x, y, radius, tilt + own.uniform(-0.15, 0.15), paint.astype(np.float32))
    noise = own.standard_normal((FRAMES, HEIGHT, WIDTH, 1), dtype=np.float32)
    noise *= 255 * nuisance.noise
    video *= 255
    video += noise
    return np.clip(video, 0, 255, out=video).astype(np.uint8)


def trajectory(name: str, scale: float, speed: float, spread: float, rng) -> tuple[np.ndarray, ...]:
    """x, y and radius of the object in every frame, (40,) each, in pixels from the middle of the picture."""
    time = np.linspace(0, 1, FRAMES)
    phases = np.repeat(0.5 + spread * rng.uniform(-0.5, 0.5, (3, 1)), FRAMES, axis=1)  # of x, y and size: frozen
    if KIND[name] == "motion":
        axis, forwards = divmod(MOTION.index(name), 2)
        phases[axis] = (rng.uniform() + (time if forwards else -time) * ROUNDS * speed) % 1
    else:
        phases += rng.uniform(-0.25, 0.25, (3, 1)) * (time - 0.5)  # a drift, in no particular direction
    way = phases - 0.5
    x, y = 0.9 * way[:2]
    return REACH * x, REACH * y, REACH * 0.4 * scale * 2.4 ** way[2]


def texture(waves: np.ndarray, rng) -> np.ndarray:
    """A still pattern of plane waves with phases of the clip's own, within -1 and 1: (72, 96)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    phases = rng.uniform(0, 2 * np.pi, len(waves))
    angles = waves @ np.stack([columns.ravel(), rows.ravel()]) + phases[:, None]
    return np.cos(angles).mean(axis=0).reshape(HEIGHT, WIDTH)


def stamp(video: np.ndarray, shape, x, y, radius, tilt: float, paint: np.ndarray) -> None:
    """Paint `shape` into every frame of `video` (40, 72, 96, 3) in place, its edge blended over one pixel."""
    half = int(np.ceil(radius.max())) + 2  # only a patch around the object is computed
    left, top = (np.rint(c).astype(int) - half for c in (WIDTH / 2 + x, HEIGHT / 2 + y))
    grid = np.arange(2 * half, dtype=np.float32) + 0.5
    u = ((left - WIDTH / 2 - x)[:, None, None] + grid) / radius[:, None, None]
    v = ((top - HEIGHT / 2 - y)[:, None, None] + grid[:, None]) / radius[:, None, None]
    cos, sin = np.cos(tilt), np.sin(tilt)
    distance = shape(cos * u + sin * v, cos * v - sin * u) * radius[:, None, None]  # in pixels
    cover = np.clip(0.5 - distance, 0, 1).astype(np.float32)[..., None]
    for frame, j, i, part in zip(video, top, left, cover):
        inside = frame[max(0, j) : j + 2 * half, max(0, i) : i + 2 * half]  # the rest of the patch is empty
        part = part[max(0, -j) :, max(0, -i) :][: inside.shape[0], : inside.shape[1]]
        inside += part * (paint - inside)


def box(u, v, width, height):
    """Distance to the edge of a box with these half sides."""
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def petals(u, v, count, depth):
    """A round shape whose radius swings `count` times between 1 and 1 - 2 depth."""
    return np.hypot(u, v) - (1 - depth + depth * np.cos(count * np.arctan2(v, u)))


# Distance to the edge in units of the object's radius, below 0 inside; u to the right, v downwards, at most
# 1.
SHAPES = {
    "Disc": lambda u, v: np.hypot(u, v) - 0.85,
    "Square": lambda u, v: box(u, v, 0.75, 0.75),
    "Triangle": lambda u, v: np.maximum(v - 0.5, 0.866 * np.abs(u) - 0.5 * v - 0.5),
    "Cross": lambda u, v: np.minimum(box(u, v, 0.95, 0.28), box(u, v, 0.28, 0.95)),
    "Ring": lambda u, v: np.abs(np.hypot(u, v) - 0.74) - 0.2,
    "Bars": lambda u, v: np.maximum(box(u, v, 0.8, 0.85), 0.17 - np.abs(np.abs(v) - 0.34)),
    "Ellipse": lambda u, v: (np.hypot(u, v / 0.55) - 0.95) * 0.7,
    "Star": lambda u, v: petals(u, v, 5, 0.22),
    "Peanut": lambda u, v: petals(u, v, 2, 0.25),
}


def encode(path: Path, video: np.ndarray) -> None:
    """Write uint8 (T, H, W, 3) as UCF101 is: MPEG-4 in AVI, no B-frames; with a finer quantiser."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = video.shape[2], video.shape[1], "yuv420p"
        stream.codec_context.codec_tag = "XVID"
        stream.options = {"qmin": "2", "qmax": "2", "bf": "0", "threads": "1"}
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
