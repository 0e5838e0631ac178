"""Something-Something V2: `<id>.webm`, with `something-something-v2-{train,validation,labels}.json`.

The templates of the videos have brackets, `Putting [something] on [something]`, the labels do not. The labels of
the official test videos are secret, so the test split is the validation list. Clips may not be mirrored: "pushing
something from left to right" would become its opposite. Nothing says who filmed a video: each is its own group.
"""

import json
from pathlib import Path

from david.data.readers import Dataset
from david.data.readers.core import Listed, assemble, find_file, find_root, read_text

OBTAIN = """\
Something-Something V2 is given by Qualcomm to those who accept its research licence.
  1. At https://www.qualcomm.com/developer/software/something-something-v-2-dataset log in, accept the licence,
     and download the labels and every part of the videos.
  2. Unpack both in one folder; the videos with: cat 20bn-something-something-v2-?? | tar zx
  3. david.load("ssv2", root="that folder") expects there
       20bn-something-something-v2/<id>.webm
       labels/labels.json, labels/train.json, labels/validation.json
     or the lists as something-something-v2-labels.json and so on."""


def ssv2(
    root: str | Path | None = None,
    split: int = 1,
    *,
    lists: str | Path | None = None,
    missing: str = "error",
) -> Dataset:
    """Read Something-Something V2. root: the folder of the videos (or of `20bn-something-something-v2/`).

    lists: the folder of the three JSON files, where it is not root, root/labels or one of these beside root.
    missing: "error" or "skip", as in UCF101. There is one split, 1.
    """
    root = find_root("ssv2", root, missing)
    if split != 1:
        raise ValueError(f"split={split}: ssv2 has one split, 1")
    classes, listed, lists = read_lists(root, lists)
    places = ("", "20bn-something-something-v2", "videos")
    return assemble(
        "ssv2", classes, listed, root=root, lists=lists, places=lambda item: places, missing=missing, flip=False
    )


def read_lists(root: Path, lists: str | Path | None = None) -> tuple[list[str], list[Listed], Path]:
    """(classes, videos, where they are listed) of the three JSON files, in or near `root`."""
    places = [root, root / "labels", root.parent, root.parent / "labels"]
    if lists:
        places = [Path(lists).expanduser()]
    labels, train, test = (
        find_file(places, f"something-something-v2-{part}.json", f"{part}.json")
        for part in ("labels", "train", "validation")
    )
    classes = read_labels(labels)
    return classes, read_list(train, "train", classes) + read_list(test, "test", classes), labels.parent


def read_json(path: Path, kind: type):
    """The content of a JSON file, which is a list or a dict; ValueError otherwise."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno} is not JSON ({error.msg}): put the official list there") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds no JSON {kind.__name__}: put the official list there")
    return content


def read_labels(path: Path) -> list[str]:
    """The class names of `labels.json` ({"Approaching something with your camera": "0", ...}) by number."""
    numbers = read_json(path, dict)
    by_number = {str(number): title for title, number in numbers.items()}
    if not numbers or set(by_number) != {str(number) for number in range(len(numbers))}:
        raise ValueError(f"{path}: number the classes 0, 1, 2, ... without a gap")
    return [by_number[str(number)] for number in range(len(numbers))]


def read_list(path: Path, split: str, classes: list[str]) -> list[Listed]:
    """The videos of the training or validation list, in its order."""
    listed, known = [], set(classes)
    for number, item in enumerate(read_json(path, list), 1):
        where = f"{path}: video {number}"
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("template"), str):
            raise ValueError(f'{where}: mend {item!r}, which is not like {{"id": "1", "template": "Lifting [one]"}}')
        title = item["template"].replace("[", "").replace("]", "")
        if title not in known:
            raise ValueError(f"{where}: the template {title!r} is not in the labels: add it, or remove the video")
        listed.append(Listed(title, str(item["id"]), split, where))
    return listed
