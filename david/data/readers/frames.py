"""Unpacked videos: each is a folder of `img_00001.jpg`, `image_00001.jpg` or `frame000001.jpg`, and so on.

The folders lie in class folders or side by side, as `jpegs_112/<name>/` of the earlier papers does. The lists are
their CSV file `folder_name,label,split` or those of UCF101's layout. `decode` reads the chosen images, through the
same sampling, scale and crop as a video's frames. Records and the clips' cache know every image: see `identity`.
"""

from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import assemble, find_root, folder_names, small
from david.data.readers.ucf101 import read_lists


def frames(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
    name: str = "frames",
    flip: bool = True,
) -> Dataset:
    """Read a dataset of frame folders. root: the folder of the frame folders, or of class folders of these.

    lists, split, missing: as in UCF101. flip: whether a mirrored clip keeps its label.
    """
    root = find_root(name, root, missing)
    classes, listed, lists = read_lists(root, lists, split)
    return assemble(
        name,
        classes,
        listed,
        root=root,
        lists=lists,
        places=lambda item: ("", item.title),
        listing=folders,
        missing=missing,
        flip=flip,
    )


def folders(folder: Path) -> dict[str, str]:
    """The folders in `folder` by name, and by `small` name."""
    names = folder_names(folder) if folder.is_dir() else []
    return {small(name): name for name in names} | {name: name for name in names}
