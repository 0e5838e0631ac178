"""The product: distilled sets, which are saved without pickle and give training clips."""

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from david.partition import num_segments
from david.support.pixels import MEAN, STD, denormalise, send
from david.support.seeds import generator as seeded

if TYPE_CHECKING:  # to load a set and train on it takes no reader of videos
    from david.data.clips import Clips


def balanced_labels(num_classes: int, size: int, random: torch.Generator) -> torch.Tensor:
    """``size`` labels in which every class appears equally often, up to one, int64 (size,)."""
    rounds = -(-size // num_classes)
    return torch.cat([torch.randperm(num_classes, generator=random) for _ in range(rounds)])[:size]


def check_header(header: dict) -> None:
    """TypeError where a field of the header of a set's file is of another kind, KeyError where one is not there."""
    for name, kind in (("classes", str), ("frames_per_segment", int)):
        if not isinstance(header[name], list) or not all(type(value) is kind for value in header[name]):
            raise TypeError(f"{name} in its header is not a list of {kind.__name__}")
    if not isinstance(header["info"], dict):
        raise TypeError("info in its header is not a JSON object")


class StoredSet:
    """What distilled sets have in common: batches of their training clips, and their file.

    A subclass is a dataclass with the fields ``classes`` and ``info`` and has ``policy``, ``clips_per_class``
    and ``clips``, as ``DistilledSet`` describes them.

    Attributes:
        format: name and version of the file's format.
        stored: the fields that are tensors of the file.
    """

    format: ClassVar[str]
    stored: ClassVar[tuple[str, ...]]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """What is stored, by name."""
        return {name: getattr(self, name) for name in self.stored}

    @property
    def device(self) -> torch.device:
        return getattr(self, self.stored[0]).device

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored tensors: the budget to report beside IPC."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    @property
    def shape(self) -> tuple[int, int]:
        """F, and the height and width of a clip's frames in pixels."""
        return self.frames, next(iter(self.tensors.values())).shape[-1]

    def to(self, device: torch.device | str) -> Self:
        """The same set, stored on ``device``."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def batch(self, generator: torch.Generator, size: int, natural: bool = False):
        """Training clips, as a student gets them.

        Args:
            generator: CPU generator.
            size: B.
            natural: draw uniformly over all clips, so that a class with many segments is seen more often,
                instead of the same number of clips for each class.

        Returns:
            clips float (B, F, 3, H, W) and labels int64 (B,), on the set's device.
        """
        counts = self.clips_per_class
        if natural:
            labels = torch.multinomial(counts.double(), size, replacement=True, generator=generator)
        else:
            labels = balanced_labels(len(counts), size, generator)
        picks = (torch.rand(size, generator=generator, dtype=torch.float64) * counts[labels]).long()
        return self.clips(labels, picks), send(labels, self.device)

    def numbers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Every training clip once, class by class, as ``clips`` takes them: labels and picks, int64 (N,) each."""
        counts = self.clips_per_class
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        return labels, torch.cat([torch.arange(count) for count in counts.tolist()])

    def dataset(
        self,
        layout: str = "TCHW",
        dtype: torch.dtype = torch.float32,
        size: int | None = None,
        frames: int | None = None,
    ) -> "ClipDataset":
        """Every training clip with its label as a ``torch.utils.data.Dataset``, for anybody's training loop.

        Args:
            layout: of a clip, "TCHW" or "CTHW".
            dtype: a float type for normalised pixels, or ``torch.uint8`` for 0 to 255.
            size: height and width to resize to (bilinear, antialiased); None: as stored.
            frames: as many, evenly spaced, each shown as often as Eq. 4 shows those of a segment; None: as stored.
        """
        return ClipDataset(self, layout, dtype, size, frames)

    def export(self, folder: str | Path, format: str = "mp4") -> dict[str, float]:
        """Write the set for other programs' readers: see ``david.export.export``."""
        from david.export import export  # which takes PyAV

        return export(self, folder, format)

    def preview(self):
        """The first video of every class, moving, for a notebook."""
        from IPython.display import Image

        from david.export import animation

        return Image(data=animation(self), format="gif")

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file whose header carries everything else as JSON; renamed into place when whole.

        Raises:
            ValueError: tensors that are not float32.
        """
        if wrong := {name for name, tensor in self.tensors.items() if tensor.dtype != torch.float32}:
            raise ValueError(f"{path}: {', '.join(sorted(wrong))} must be float32; convert with .float()")
        from david.support.files import atomic  # which wants a system with locks

        header = {
            "format": self.format,
            "classes": self.classes,
            "frames_per_segment": self.policy.tolist(),
            "mean": MEAN,
            "std": STD,
            "info": self.info,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        with atomic(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"david": json.dumps(header)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu"):
        """Read a set of this class, or a ``StoredSet`` of any kind, that ``save`` wrote, onto ``device``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, or not one of ours; the message names the file.
        """
        from david.baselines.static_dynamic import StaticDynamicSet  # which is built on this module

        path = Path(path)
        kinds = {kind.format: kind for kind in ([DistilledSet, StaticDynamicSet] if cls is StoredSet else [cls])}
        if not path.is_file():
            raise FileNotFoundError(f"no distilled set at {path}")
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["david"])
                kind = kinds.get(found := header["format"])
                if kind:
                    check_header(header)
                    tensors = {name: file.get_tensor(name) for name in kind.stored}
                    if not all(tensor.dtype == torch.float32 for tensor in tensors.values()):
                        raise TypeError("its tensors are not float32")
                    return kind._restore({name: tensor.to(device) for name, tensor in tensors.items()}, header)
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a distilled set of david ({error}); write one with DistilledSet.save"
            ) from error
        remedy = "" if cls is StoredSet else "; david.load_set reads sets of every kind"
        raise ValueError(f"{path} has format {found!r}; this version reads {' and '.join(map(repr, kinds))}{remedy}")

    @classmethod
    def _restore(cls, tensors: dict[str, torch.Tensor], header: dict):
        return cls(**tensors, classes=header["classes"], info=header["info"])


@dataclass
class DistilledSet(StoredSet):
    """A few stored videos a class, and the temporal resolution at which each class's videos are cut (Eq. 4).

    Attributes:
        videos: float32 (M, I, F, 3, H, W), normalised by MEAN and STD.
        policy: int64 (M,), L of each class; each stored video becomes F / L training clips.
        classes: M class names.
        info: free JSON about its making: method, settings, seed, versions.
    """

    format = "david-distilled-set/1"
    stored = ("videos",)

    videos: torch.Tensor
    policy: torch.Tensor
    classes: list[str]
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        if len(self.videos) != len(self.classes) or len(self.policy) != len(self.classes):
            raise ValueError(
                f"{len(self.videos)} classes of videos, {len(self.policy)} of policy and {len(self.classes)} names"
            )
        for frames_per_segment in set(self.policy.tolist()):
            num_segments(self.frames, frames_per_segment)

    @property
    def frames(self) -> int:
        return self.videos.shape[2]

    @property
    def ipc(self) -> int:
        return self.videos.shape[1]

    @property
    def clips_per_class(self) -> torch.Tensor:
        """Training clips of each class: IPC * F / L, int64 (M,)."""
        return self.ipc * (self.frames // self.policy)

    def clips(self, labels: torch.Tensor, picks: torch.Tensor) -> torch.Tensor:
        """Training clips by number: clip ``picks[b]`` of class ``labels[b]``, float (B, F, 3, H, W).

        The clips of a class are numbered as ``temporal.partition`` lays them out: segment by segment, video by video.
        """
        lengths = self.policy[labels]
        repeats = self.frames // lengths
        video, segment = picks // repeats, picks % repeats
        frame = (segment * lengths)[:, None] + torch.arange(self.frames) // repeats[:, None]
        places = (send(own, self.device) for own in (labels[:, None], video[:, None], frame))
        return self.videos[tuple(places)]

    def subset(self, classes: list[str]) -> "DistilledSet":
        """The set of some classes, in this order.

        Raises:
            ValueError: one is not in the set, or is named twice.
        """
        for name in classes:
            if name not in self.classes or classes.count(name) > 1:
                known = ", ".join(self.classes)
                raise ValueError(f"class {name!r} is named twice or is not one of the set's: {known}")
        rows = [self.classes.index(name) for name in classes]
        return replace(self, videos=self.videos[rows], policy=self.policy[rows], classes=list(classes))

    @classmethod
    def _restore(cls, tensors, header):
        return cls(tensors["videos"], torch.tensor(header["frames_per_segment"]), header["classes"], header["info"])


def join(first: DistilledSet, second: DistilledSet) -> DistilledSet:
    """The classes of two sets in one.

    Raises:
        ValueError: a class that both have, or videos of other shapes.
    """
    if both := set(first.classes) & set(second.classes):
        raise ValueError(f"both sets have the class {min(both)!r}: take it from one of them by subset()")
    if first.videos.shape[1:] != second.videos.shape[1:]:
        shapes = [tuple(data.videos.shape[1:]) for data in (first, second)]
        raise ValueError(f"videos (IPC, F, 3, H, W) of the sets are {shapes[0]} and {shapes[1]}; they must be alike")
    videos, policy = (torch.cat([getattr(d, name) for d in (first, second)]) for name in ("videos", "policy"))
    return DistilledSet(videos, policy, first.classes + second.classes, {"joined": [first.info, second.info]})


def read_images(
    path: str | Path, classes: list[str], *, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> DistilledSet:
    """A set that somebody else's code distilled: the tensor in a file such as VDSD's and MTT's ``images_best.pt``.

    Args:
        path: a file that ``torch.save`` wrote of one float tensor, (M * I, F, 3, H, W), class by class; nothing in it
            is executed.
        classes: M names, in the order of its labels.
        mean, std: the normalisation of its pixels.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        videos = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a tensor that torch.save wrote ({str(error).splitlines()[0]})") from error
    if not torch.is_tensor(videos) or videos.ndim != 5 or videos.shape[2] != 3 or len(videos) % len(classes):
        found = tuple(videos.shape) if torch.is_tensor(videos) else type(videos).__name__
        raise ValueError(f"{path} holds {found}, not a tensor (M * I, F, 3, H, W) of M = {len(classes)} classes")
    if not videos.is_floating_point() or videos.abs().max() > 100:
        raise ValueError(f"{path} holds {videos.dtype} up to {videos.abs().max():.0f}, not normalised pixels")
    theirs, ours = (
        (torch.tensor(m).view(3, 1, 1), torch.tensor(s).view(3, 1, 1)) for m, s in ((mean, std), (MEAN, STD))
    )
    videos = ((videos.float() * theirs[1] + theirs[0]) - ours[0]) / ours[1]
    videos = videos.unflatten(0, (len(classes), -1)).contiguous()
    return DistilledSet(
        videos, torch.full((len(classes),), videos.shape[2]), list(classes), {"read from": Path(path).name}
    )


class ClipDataset(torch.utils.data.Dataset):
    """The training clips of a set, one by one: see ``StoredSet.dataset``."""

    def __init__(self, data: StoredSet, layout: str, dtype: torch.dtype, size: int | None, frames: int | None):
        if layout not in ("TCHW", "CTHW"):
            raise ValueError(f"layout={layout!r}: choose 'TCHW' or 'CTHW'")
        if not (dtype.is_floating_point or dtype == torch.uint8):
            raise ValueError(f"dtype={dtype}: choose a float type, or torch.uint8")
        for name, value in (("size", size), ("frames", frames)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: at least 1")
        self.data, self.layout, self.dtype, self.size, self.frames = data, layout, dtype, size, frames
        self.labels, self.picks = data.numbers()
        self.classes = data.classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """(clip, label)."""
        index = range(len(self))[index]  # IndexError, and counts from the end
        clip = self.data.clips(self.labels[index : index + 1], self.picks[index : index + 1])[0].detach()
        if self.frames is not None:
            clip = clip[torch.arange(self.frames) * len(clip) // self.frames]
        if self.size is not None and self.size != clip.shape[-1]:
            clip = interpolate(clip, (self.size, self.size), mode="bilinear", antialias=True)
        clip = denormalise(clip).movedim(-1, -3) if self.dtype == torch.uint8 else clip.to(self.dtype)
        clip = clip.movedim(0, 1) if self.layout == "CTHW" else clip
        return clip.contiguous(), int(self.labels[index])


class RealSet:
    """The whole real training set behind the interface of ``DistilledSet``: the full-data reference row."""

    def __init__(self, train: "Clips", info: dict | None = None):
        self.train, self.info = train, info or {}
        self.classes, self.device, self.shape = list(train.classes), train.device, (train.frames, train.size)
        self.policy = torch.full((len(self.classes),), train.videos.shape[1])
        self.labels = torch.as_tensor(train.labels)
        self.clips_per_class = torch.bincount(self.labels, minlength=len(self.classes))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the clips as 8-bit pixels."""
        return len(self.train) * int(torch.tensor(self.train.videos.shape[1:]).prod())

    def batch(self, generator: torch.Generator, size: int):
        """Clips drawn uniformly, flipped where the labels allow it; as ``DistilledSet.batch``."""
        indices = torch.randint(len(self.train), (size,), generator=generator)
        return self._clips(indices, generator), send(self.labels[indices], self.device)

    def _clips(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.train.batch(indices, generator=generator, flip=self.train.flip)


class StillSet(RealSet):
    """The static version of the training set (Eq. 6): of each video one random frame, repeated F times.

    Which frame is fixed for one training and drawn anew for the next: the seed of the generator that draws the
    batches decides.
    """

    @property
    def stored_bytes(self) -> int:
        return super().stored_bytes // self.train.frames

    def _clips(self, indices, generator):
        clips = super()._clips(indices, generator)
        frames = torch.randint(
            self.train.frames, (len(self.train),), generator=seeded(generator.initial_seed(), "the frame of each video")
        )
        places = (send(own, self.device) for own in (torch.arange(len(indices)), frames[indices]))
        still = clips[tuple(places)]  # (B, 3, H, W)
        return still[:, None].expand_as(clips)
