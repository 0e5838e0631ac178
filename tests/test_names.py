"""Names are data: never a formula, markup, a pattern or a path, in either normal form, equal in two classes."""

import unicodedata
import warnings
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import write_video
from davidbook import figures, tables
from markdown_it import MarkdownIt
from matplotlib.text import Text
from mdit_py_plugins.dollarmath import dollarmath_plugin

from david import Experiment, Store, preset
from david.data.clips import open_clips
from david.data.readers import load
from david.data.report import describe, duplicates

SMALL = {"width": 64, "height": 48}
SETTINGS = preset("smoke", width=0.125, student_steps=1, student_repeats=1)
NAMES = [
    "cash $$ in", "$a_b^c$", "a$b", "\\$", "_under_", "__init__", "<b>bold</b>", "*star*", "[x]", "[!a]?", "pipe|d",
    "back\\slash", "`tick``s`", "-dash", "--help", "#1", "1. first", "{x}", "{0}", "%s 100%", "a&amp;b", "~home",
    "a:b", "it's \"so\"", "  spaces  ", "concat:x", "naïve", unicodedata.normalize("NFD", "Zürich é"), "ﬁne Ⅷ",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("screenless")
SHADES = np.linspace(0, 255, 8 * 48 * 48 * 3).astype(np.uint8).reshape(1, 8, 48, 48, 3)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("film") / "a.avi", 12, **SMALL).read_bytes()


def put(root, film, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(film)
    return root


def test_a_dataset_from_files_to_table(tmp_path, film, monkeypatch):
    """Every name as a class, a file and a part of the folders' paths; the root is relative, and looks like more."""
    monkeypatch.chdir(tmp_path)
    place = "[x] $1$ {y} file:a"
    files = [name.replace("/", "") for name in NAMES]
    root = put(tmp_path / place, film, *(f"{a}/{b}_{i}.avi" for a, b in zip(files, files[::-1]) for i in (1, 2)))
    dataset = load("folder", place, name=NAMES[8] + "/../" + NAMES[1])
    composed = sorted(unicodedata.normalize("NFC", name) for name in files)
    assert sorted(dataset.classes) == composed and len(dataset.train) == len(dataset.test) == len(NAMES)
    clips = open_clips(dataset, "train", frames=8, stride=1, size=48, cache=tmp_path / "[cache]")
    assert len(clips) == len(NAMES) and len(list((tmp_path / "[cache]" / "clips").iterdir())) == 1
    assert list(describe(dataset).index) == list(dataset.classes) and len(duplicates(dataset)) == 2 * len(NAMES)
    for _ in range(2):
        store = Store(tmp_path / "[runs] $2", published=tmp_path / "*")
        experiment = Experiment("folder", SETTINGS, store, root=root)
        records = experiment.table(["random"], seeds=[0])
    assert records[0]["classes"] == list(dataset.classes) and not records[0]["published"]
    assert experiment.distilled(records[0]).classes == list(dataset.classes)


class Cells(HTMLParser):
    """The text of every element of a page, and the names of all elements."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data.replace("\u00a0", " "))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_table(name):
    record = {
        "dataset": name, "method": "random", "ipc": 1, "seed": 0, "stored_bytes": 1, "clips_per_class": [1],
        "classes": [name], "seconds": {"distill": 1}, "students": [{"top1": 0.5, "per_class": [0.5]}],
    }  # fmt: skip
    page = Cells(tables.show(tables.accuracy_table([record], beside=name)).data)
    assert f"ours, {name}, %" in page.texts and f"paper, {name}, %" in page.texts
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td"}
    figures.style()
    assert "mathjax_ignore" in pd.DataFrame({"class": [name]})._repr_html_()


@pytest.mark.parametrize("name", [*NAMES, "a\nb", "``"])
def test_a_name_in_markdown(name):
    """Read as a page of the book is: one piece of text, or of code, and nothing else."""
    markdown = MarkdownIt("commonmark").use(dollarmath_plugin)
    (paragraph,) = (token for token in markdown.parse(f"The class {tables.verbatim(name)}.") if token.children)
    kinds = {token.type for token in paragraph.children}
    assert kinds <= {"text", "code_inline"}
    assert "".join(token.content for token in paragraph.children) == f"The class {name}.".replace("\n", " ")


def test_names_without_markup_stay_what_they_are():
    for name in ("MoveLeft", "high_arm_wave", "a01_high-arm wave", "Zürich", "v1.2"):
        assert tables.verbatim(name) == name


def drawn(names):
    """Every figure that prints the names of classes, of these classes."""
    names, count = list(names), len(names)
    delta = pd.DataFrame({"delta": np.linspace(0, 1, count), "error": 0.1}, index=names)
    rewards = pd.DataFrame({"class": names * 2, "L": [1] * count + [2] * count, "reward": 0.5, "iteration": 0})
    yield figures.strips(SHADES.repeat(count, 0), names)
    yield figures.counts(pd.DataFrame({"train": 1, "test": 2}, index=names))
    yield figures.policies(np.ones((1, count)), names, [1, 2])
    yield figures.rewards(np.ones((count, 2)), names, [1, 2])
    yield figures.by_class({"dm": np.ones((2, count))}, names, "accuracy")
    points = np.random.default_rng(0).normal(size=(count, 2))
    yield figures.feature_map(points, points, names, {"dm": points})
    yield figures.deltas({"test set": delta})
    yield figures.reward_histograms(rewards, names)
    curve = pd.DataFrame({0: [1.0, 2.0]}, index=[0, 1])
    yield figures.curves({name: {"dm": curve} for name in names}, figures.COLOURS, "reward")


def test_a_name_in_a_figure(monkeypatch):
    seen = []
    split = Text._preprocess_math

    def told(self, text):
        seen.append(split(self, text))
        return seen[-1]

    monkeypatch.setattr(Text, "_preprocess_math", told)
    names = [unicodedata.normalize("NFC", name) for name in NAMES]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # so many classes do not fit a figure
        for figure in drawn(names):
            seen.clear()
            figure.canvas.draw()
            assert {text for text, formula in seen if not formula} >= set(names)
            plt.close(figure)
    strange = "th\udce9 $$"  # a file's name that is no text
    assert figures.plain(strange) == r"th? \$\$"
    figures.animation(SHADES, titles=[strange])


# ------------------------------------------------------------------------------- normal forms, equal names
NFC, NFD = (unicodedata.normalize(form, "Zürich é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("disk", "listed"), [(NFC, NFD), (NFD, NFC), (NFD, NFD), (NFC, NFC)])
def test_either_normal_form_is_one_name(tmp_path, film, disk, listed):
    files = [f"{disk}/v_{disk}_g0{g}_c01.avi" for g in (1, 2)]
    put(tmp_path, film, *files)
    (tmp_path / "classInd.txt").write_text(f"1 {listed}")
    for part, group in (("train", 1), ("test", 2)):
        (tmp_path / f"{part}list01.txt").write_text(f"{listed}/v_{listed}_g0{group}_c01.avi")
    (tmp_path / "list.csv").write_text(
        f"folder_name,label,split\nv_{listed}_g01_c01,{listed},train\nv_{listed}_g02_c01,{listed},test"
    )
    found = {
        "lists": load("ucf101", tmp_path),
        "csv": load("ucf101", tmp_path, lists=tmp_path / "list.csv"),
        "folder": load("folder", tmp_path),
    }
    for path in tmp_path.glob("*.*"):
        path.unlink()
    (tmp_path / f"{disk}_test_split1.txt").write_text(f"v_{listed}_g01_c01.avi 1\nv_{listed}_g02_c01.avi 2")
    found["hmdb51"] = load("hmdb51", tmp_path)
    for dataset in found.values():
        assert dataset.classes == (NFC,) and all(video.path.is_file() for video in dataset.train + dataset.test)
    assert {found[name].train[0].name for name in ("lists", "csv", "hmdb51")} == {f"v_{NFC}_g01_c01"}
    assert found["lists"].fingerprint == found["csv"].fingerprint

    def prints(root):
        return load("folder", put(root, film, *files)).fingerprint

    other = put(tmp_path / "other", film, *(unicodedata.normalize("NFC", file) for file in files))
    assert prints(tmp_path / "this") == load("folder", other).fingerprint


def test_two_folders_that_read_alike_are_refused(tmp_path, film):
    put(tmp_path, film, f"{NFC}/a.avi", f"{NFC}/b.avi", f"{NFD}/c.avi")
    with pytest.raises(ValueError, match=f"two folders in .* are called '{NFC}' .*: rename one of them"):
        load("folder", tmp_path)


def test_equal_names_in_two_classes(tmp_path, film):
    put(tmp_path, film, *(f"{title}/{i}.avi" for title in ("A", "B") for i in (1, 2)))
    (tmp_path / "classInd.txt").write_text("1 A\n2 B")
    (tmp_path / "trainlist01.txt").write_text("A/1.avi 1\nB/1.avi 2")
    (tmp_path / "testlist01.txt").write_text("A/2.avi\nB/2.avi")
    rows = [f"{i},{title},{part}" for i, part in ((1, "train"), (2, "test")) for title in "AB"]
    (tmp_path / "list.csv").write_text("\n".join(["folder_name,label,split", *rows]))
    for dataset in (load("ucf101", tmp_path), load("ucf101", tmp_path, lists=tmp_path / "list.csv")):
        assert [video.name for video in dataset.train + dataset.test] == ["A/1", "B/1", "A/2", "B/2"]
        assert [video.path.parent.name for video in dataset.train] == ["A", "B"]
        clips = open_clips(dataset, "train", frames=8, stride=1, size=48, cache=tmp_path / "cache")
        assert clips.names.tolist() == ["A/1", "B/1"] and clips.labels.tolist() == [0, 1]
    flat = put(tmp_path / "flat", film)
    for i in (1, 2):
        (flat / str(i)).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"list\.csv:3: 1 is already listed at .*list\.csv:2: remove one"):
        load("frames", flat, lists=tmp_path / "list.csv")  # here both rows mean one folder
