"""Published sets: load one by its name, and publish another from its record and file."""

import hashlib
import json
import lzma
from pathlib import Path

import torch
from safetensors.torch import load, save

from david.sets import DistilledSet, StoredSet, check_header
from david.support.pixels import MEAN, STD, denormalise, normalise
from david.support.values import unknown

FOLDER = Path(__file__).with_name("published")  # NAME.json, a card, and NAME.safetensors.xz, 8-bit pixels
FORMAT = "david-published-set/1"


def published() -> dict[str, dict]:
    """The cards of all published sets, by name: how each was made, what it scores, its licence and hash."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def load_set(name: str | Path, device: torch.device | str = "cpu") -> StoredSet:
    """A published set by its name, or a set of any kind from the file that ``save`` wrote.

    It takes torch, numpy and safetensors alone, and executes nothing that is in the file.

    Args:
        name: such as "motions-ipc1-david-warmup" (``david.published()`` has them all), or a path.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no published set of this name; or the file is damaged, or not one of ours: the message names it.
    """
    text = str(name)
    if Path(text).is_file() or Path(text).suffix or len(Path(text).parts) != 1:
        return StoredSet.load(name, device)
    cards = published()
    if text not in cards:
        error = unknown("published set", text, cards)
        raise ValueError(f"{error}; a file of your own is given with its suffix, as in 'small.safetensors'")
    path = FOLDER / f"{text}.safetensors.xz"
    return unpack(path.read_bytes(), cards[text]["sha256"], path).to(device)


def unpack(content: bytes, sha256: str, path: Path) -> DistilledSet:
    """The set in the bytes of a published file.

    Raises:
        ValueError: they have another hash than the card says, or are no set of this version.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file that its card was written for, its hash differs: install david anew")
    content = lzma.decompress(content)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["david"])
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has format {header['format']!r}; this version reads {FORMAT!r}")
    check_header(header)
    videos = normalise(load(content)["pixels"]).contiguous()
    return DistilledSet(videos, torch.tensor(header["frames_per_segment"]), header["classes"], header["info"])


def pack(data: DistilledSet) -> bytes:
    """The bytes of a published file: 8-bit pixels, compressed without loss.

    Raises:
        ValueError: a set that stores no videos, or pixels that 8 bits cannot show.
    """
    if not isinstance(data, DistilledSet):
        raise ValueError(f"a {type(data).__name__} stores no videos, so it cannot be published as pixels")
    pixels = denormalise(data.videos).cpu().contiguous()
    if not torch.allclose(normalise(pixels), data.videos.cpu(), atol=1e-4):
        raise ValueError("its pixels are not those that 8 bits can show: distil with distill_range='8-bit'")
    header = {"format": FORMAT, "classes": data.classes, "frames_per_segment": data.policy.tolist()}
    header |= {"mean": MEAN, "std": STD, "info": data.info}
    return lzma.compress(save({"pixels": pixels}, {"david": json.dumps(header)}), preset=9 | lzma.PRESET_EXTREME)


def main(arguments: list[str] | None = None) -> None:
    """Publish the set beside a record: its file and its card come into the package's folder."""
    import argparse

    parser = argparse.ArgumentParser(prog="david publish", description=main.__doc__)
    parser.add_argument("record", type=Path, help="the record's JSON file, with the set beside it")
    parser.add_argument("name", help="of the published set, such as motions-ipc1-david")
    parser.add_argument("--licence", required=True, help="under which the set may be used")
    options = parser.parse_args(arguments)
    print(publish(options.record, options.name, options.licence))


def publish(record: Path, name: str, licence: str, folder: Path = FOLDER) -> Path:
    """Write the published file and the card of the set that lies beside a record; returns the card's path.

    Args:
        record: the JSON file of the record.
        name: of the published set.
        licence: under which it may be used; whoever publishes answers for it.

    Raises:
        FileNotFoundError: no set beside the record.
        ValueError: as of ``pack``.
    """
    from david.support.files import write_bytes, write_json  # which want a system with locks

    made = json.loads(record.read_text())
    data = StoredSet.load(record.with_suffix(".safetensors"))
    data.info = {key: made[key] for key in ("dataset", "method", "ipc", "seed")}
    content, top1 = pack(data), [student["top1"] for student in made["students"]]
    path = folder / f"{name}.safetensors.xz"
    card = {
        "name": name,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "pixels": data.videos.numel(),
        "licence": licence,
        "record": record.name,
        "scores": {"top1 of each student": top1, "student_steps": made["settings"]["student_steps"]},
        **{key: made[key] for key in ("dataset", "method", "ipc", "seed", "classes", "frames_per_segment", "made")},
        "settings": made["settings"],
    }
    write_bytes(path, content)
    write_json(folder / f"{name}.json", card)
    return folder / f"{name}.json"
