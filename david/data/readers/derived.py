"""Datasets made of others: "tr-ucf101" is TR-UCF, "heldout-ucf101" keeps UCF101's test set out of a decision."""

from dataclasses import replace
from pathlib import Path

from david.data.readers import Dataset, digest, load
from david.data.readers.folder import draw_groups
from david.support.files import read_json


def tr(name: str, *, classes: str | Path | None = None, **options) -> Dataset:
    """The classes of largest Delta alone (section 4.1, Eq. 6), of both splits; labels are numbered anew.

    classes: the list that notebook 01-tr-ucf writes; default: the one that comes with david, where there is one.
    options: of the reader of `name`.

    FileNotFoundError without a list; ValueError for a list of another dataset, or with a class that is not there.
    """
    path = Path(classes).expanduser() if classes else Path(__file__).with_name(f"tr-{name}.json")
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in Path(__file__).parent.glob("tr-*.json")))
        raise FileNotFoundError(
            f"no list of classes at {path}: notebook 01-tr-ucf writes one, to be given as classes= (david has {known})"
        )
    found = read_json(path)
    if found.get("dataset") != name:
        raise ValueError(f"{path} lists classes of {found.get('dataset')}, not of {name}: give the list of {name}")
    dataset = load(name, **options)
    if absent := sorted(set(found["classes"]) - set(dataset.classes)):
        raise ValueError(f"{path}: class {absent[0]!r} is not in {name}: compute the list anew with notebook 01-tr-ucf")
    titles = [title for title in dataset.classes if title in found["classes"]]
    label_of = {dataset.classes.index(title): label for label, title in enumerate(titles)}
    train, test = (
        tuple(replace(video, label=label_of[video.label]) for video in videos if video.label in label_of)
        for videos in (dataset.train, dataset.test)
    )
    missing = tuple(pair for pair in dataset.missing if pair[0] in titles)
    return replace(dataset, name=f"tr-{name}", classes=tuple(titles), train=train, test=test, missing=missing)


def heldout(name: str, *, held_share: float = 0.3, held_seed: int = 0, **options) -> Dataset:
    """The training videos alone, some groups of which take the place of the test set.

    For every decision that must not see the test set. held_share: at least this share of every class's videos is
    held out, where its groups allow it. held_seed: draws the groups. options: of the reader of `name`.
    """
    if not 0 < held_share < 1:
        raise ValueError(f"held_share={held_share}: choose a share between 0 and 1, such as 0.3")
    dataset = load(name, **options)
    source = [dataset.source(video) for video in dataset.train]
    titles = [dataset.classes[video.label] for video in dataset.train]
    chosen = draw_groups(zip(titles, source), held_share, held_seed)
    parts = {side: [] for side in (False, True)}
    for video, group in zip(dataset.train, source):
        parts[group in chosen].append(video)
    if whole := set(titles) - {dataset.classes[video.label] for video in parts[True]}:
        what = f"class {min(whole)} of {name} has one group of training videos, so none can be held out"
        raise ValueError(f"{what}: heldout-{name} needs two groups in every class")
    settings = digest(dataset.settings, "heldout", held_share, held_seed)
    return replace(
        dataset, name=f"heldout-{name}", train=tuple(parts[False]), test=tuple(parts[True]), settings=settings
    )
