"""Make the moving picture of the front page from published sets: python -m davidbook.front."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import david
from david.support.pixels import denormalise

NAMES = ("motions-ipc1-random", "motions-ipc1-david-warmup")  # above and below
CLASSES = ["Disc", "Square", "MoveLeft", "MoveRight", "MoveUp", "Shrink"]


def picture(path: str | Path, milliseconds: int = 250) -> Path:
    """Write a GIF: a column a class, a row a set; the last frame stands for a second."""
    rows = [denormalise(david.load_set(name).subset(CLASSES).videos[:, 0]).numpy() for name in NAMES]
    frames = []
    for t in range(rows[0].shape[1]):
        whole = np.concatenate([np.concatenate(list(row[:, t]), 1) for row in rows])
        frames.append(Image.fromarray(whole))
    pace = [milliseconds] * (len(frames) - 1) + [1000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=pace, loop=0)
    return Path(path)


if __name__ == "__main__":
    print(picture(sys.argv[1] if len(sys.argv) > 1 else "book/images/front.gif"))
