"""The frames of a video that was unpacked into a folder of numbered images, read by Pillow."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from david.data.video import DecodeError

NAME = re.compile(r"(?:img_|image_|frame_?)(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def image_names(folder: str | Path) -> list[str]:
    """The images of a frame folder in the order of their numbers, which start at 1 or 0 and have no gap."""
    numbered = sorted((int(m[1]), m[0]) for m in map(NAME.fullmatch, os.listdir(folder)) if m)
    if not numbered:
        raise DecodeError(folder, "a directory without images named like frame000001.jpg")
    for wanted, (number, name) in enumerate(numbered, min(numbered[0][0], 1)):
        if number != wanted:
            raise DecodeError(
                folder, f"image number {wanted} is missing" if number > wanted else f"{name} is there twice"
            )
    return [name for _, name in numbered]


def read_images(folder: str | Path, names: list[str]) -> Iterator[np.ndarray]:
    """The images `names` of a frame folder: uint8 (h, w, 3) RGB each, all of one size.

    DecodeError where one cannot be read, or has another size than the first.
    """
    from PIL import Image

    first = None
    for name in names:
        try:
            with Image.open(os.path.join(folder, name)) as image:
                picture = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PNG's damage is a SyntaxError
            raise DecodeError(folder, f"damaged: {name} cannot be read") from error
        first = first or picture.shape
        if picture.shape != first:
            raise DecodeError(folder, "damaged: its frames are not of one size")
        yield picture
