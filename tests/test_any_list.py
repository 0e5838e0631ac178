"""Any list at all: a good one is read back as it was written, a bad one gives one error that names file and line."""

import csv
import json
import re
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from david.datasets import Dataset, hmdb51, kinetics400, load, ssv2, ucf101
from david.datasets.core import read_csv

WORD = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="/"), min_size=1, max_size=12)
PHRASE = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
PARTS = st.sampled_from(["train", "test"])


def written(text, name="list.csv"):
    """A file of that name and content in a folder of its own, removed with what is returned."""
    holder = tempfile.TemporaryDirectory()
    path = Path(holder.name) / name
    path.write_text(text, encoding="utf-8", newline="")
    return holder, path


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(PHRASE, PHRASE, PARTS)), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_csv_list_is_read_back(rows, end, mark):
    holder, path = written("")
    with holder:
        with open(path, "w", encoding="utf-8-sig" if mark else "utf-8", newline="") as file:
            csv.writer(file, lineterminator=end).writerows([("folder_name", "label", "split"), *rows])
        classes, listed = read_csv(path)
        assert [(item.name, item.title, item.split) for item in listed] == rows
        assert classes == sorted({row[1] for row in rows})
        assert [item.where for item in listed] == [f"{path}:{i}" for i in range(2, len(rows) + 2)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(PHRASE, st.sampled_from("012"))), st.sampled_from(["\n", " \r\n"]))
def test_any_hmdb51_list_is_read_back(rows, end):
    holder, path = written("".join(f"{name}.avi {number}{end}" for name, number in rows))
    with holder:
        found = [(item.name, item.file, item.split) for item in hmdb51.read_list(path, "wave")]
    named = {"1": "train", "2": "test"}
    assert found == [(name, f"{name}.avi", named[number]) for name, number in rows if number != "0"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(WORD, PHRASE.map(lambda text: text.replace("[", "").replace("]", "") or "x"))))
def test_any_ssv2_list_is_read_back(rows):
    text = json.dumps([{"id": name, "template": f"Moving [{title}] up"} for name, title in rows])
    holder, path = written(text, "train.json")
    with holder:
        listed = ssv2.read_list(path, "train", [f"Moving {title} up" for _, title in rows])
    assert [(item.name, item.title) for item in listed] == [(name, f"Moving {title} up") for name, title in rows]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(PHRASE, st.text("aZ0-_", min_size=11, max_size=11), st.integers(0, 99999))))
def test_any_kinetics400_list_is_read_back(rows):
    holder, path = written("")
    with holder:
        with open(path, "w", encoding="utf-8", newline="") as file:
            content = [(title, name, start, start + 10, "train") for title, name, start in rows]
            csv.writer(file).writerows([kinetics400.COLUMNS, *content])
        listed = kinetics400.read_list(path, "train")
    assert [(i.title, i.name, i.group) for i in listed] == [
        (title, f"{name}_{start:06d}_{start + 10:06d}", name) for title, name, start in rows
    ]


def is_name(text):
    """Whether a file or folder may be called that, on any system."""
    return "\\" not in text


@settings(deadline=None, max_examples=60)
@given(
    st.lists(PHRASE.filter(is_name), min_size=1, max_size=5, unique=True),
    st.lists(st.tuples(st.integers(0, 99), WORD.filter(is_name), st.booleans()), max_size=20),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_any_ucf101_list_is_read_back(titles, rows, end, mark):
    rows = [(titles[number % len(titles)], f"{stem}.avi", labelled) for number, stem, labelled in rows]
    texts = {
        "classInd.txt": [f"{number} {title}" for number, title in enumerate(titles, 1)],
        "trainlist01.txt": [f"{t}/{file} {titles.index(t) + 1}" if label else f"{t}/{file}" for t, file, label in rows],
        "testlist01.txt": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in texts.items():
            text = "\ufeff" * mark + "".join(line + end for line in lines)
            (Path(folder) / name).write_text(text, encoding="utf-8", newline="")
        classes, listed, _ = ucf101.read_lists(Path(folder), None, 1)
    assert classes == titles
    assert [(item.title, item.file, item.name) for item in listed] == [(t, f, Path(f).stem) for t, f, _ in rows]


# ------------------------------------------------------------------------------- one bad line among good ones
HEADER = "label,youtube_id,time_start,time_end,split"
BAD_LINES = [  # how to read a file; its name, its header, a good line, and lines that no list may hold
    (lambda path: ucf101.read_classes(path), "classInd.txt", [], "{} Class{}",
     st.sampled_from(["Archery", "1", "² Archery", "one Archery", "1.5 Archery"]) | WORD),
    (lambda path: ucf101.read_list(path, "train", ["A"]), "trainlist01.txt", [], "A/v_A_g{:02d}_c{}.avi 1",
     st.sampled_from(["A/v_A 1", "v.avi 1", "A/v.avi one", "A/v.avi 2", "B/v.avi 1", "A/B/v.avi 1"]) | WORD),
    (lambda path: hmdb51.read_list(path, "wave"), "wave_test_split1.txt", [], "film{}_wave_{}.avi 1",
     st.sampled_from(["film.avi", "film.avi 3", "1", "film.avi 1 train", "film.avi ²"])),
    (lambda path: read_csv(path), "list.csv", ["folder_name,label,split"], "video{},class{},train",
     st.sampled_from(["a,b,validation", "a,b", ",b,train", "a,,test", "a", '"a,b,train']) | WORD),
    (lambda path: kinetics400.read_list(path, "train"), "train.csv", [HEADER], "a class,video{}_____,{},17,train",
     st.sampled_from(["a,b,1,11,test", "a,b,one,11,train", "a,b,1.5,11,train", "a,b,²,11,train", "a,b,1", "a"]) | WORD),
]  # fmt: skip


@pytest.mark.parametrize(("read", "name", "header", "good", "bad"), BAD_LINES, ids=[row[1] for row in BAD_LINES])
def test_a_bad_line_is_named(read, name, header, good, bad):
    @settings(deadline=None, max_examples=30)
    @given(bad, st.integers(0, 6), st.integers(0, 6))
    def check(line, before, after):
        lines = [good.format(i, i) for i in range(1, before + after + 1)]
        holder, path = written("\n".join([*header, *lines[:before], line, *lines[before:], ""]), name)
        with holder, pytest.raises(ValueError) as caught:
            read(path)
        # A quote that is never closed is found where the file ends.
        last = len(header) + before + 1 + (after if line.startswith('"') else 0)
        assert re.match(rf"{re.escape(str(path))}:{last}\b", str(caught.value))

    check()


# ------------------------------------------------------------------------------------------ anything at all
def mixed(*good):
    """Texts of good lines, parts of them, and anything; sometimes bytes that are no text."""
    line = st.sampled_from(good) | st.sampled_from(good).flatmap(lambda g: st.sampled_from([g[1:], g[:-1], g + " 1"]))
    line |= st.text(max_size=12)
    text = st.lists(line, max_size=8).map("\n".join) | st.text(max_size=60)
    return text.map(lambda t: t.encode("utf-8", "surrogatepass")) | st.binary(max_size=40)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
TITLES = st.sampled_from(["Lifting [one]", "Lifting one", "Dropping one"])
ITEM = st.fixed_dictionaries({}, optional={"id": st.integers(1, 9) | ANYTHING, "template": TITLES | ANYTHING})
GOOD = st.fixed_dictionaries({"id": st.text("123"), "template": TITLES})
LABELS = st.dictionaries(TITLES | st.text(max_size=4), st.sampled_from([0, "0", 1, "1"]) | ANYTHING, max_size=3)


def as_json(*contents):
    """JSON of such contents; sometimes a part of it."""
    text = st.one_of(*contents).map(json.dumps)
    return (text | text.map(lambda t: t[:-1])).map(str.encode)


UCF101 = {
    "classInd.txt": mixed("1 A", "2 B", "3 A"),
    "trainlist01.txt": mixed("A/v_A_g01_c01.avi 1", "B/v_B_g01_c01.avi 2", "B/v_B_g03_c01.avi"),
    "testlist01.txt": mixed("A/v_A_g02_c01.avi", "B/v_B_g02_c01.avi"),
}
CSV = mixed("folder_name,label,split", "v_A_g01_c01,A,train", "v_A_g02_c01,A,test", '"v_A_g02_c01","A"')
KINETICS = mixed(HEADER, "A,v_A_g01_c01,0,10,train", "A,v_A_g02_c01,0,10,val", '"A, B",v,0,10,val')
HMDB51 = mixed("v_A_g01_c01.avi 1", "v_A_g02_c01.avi 2", "v_B_g01_c01.avi 1", "v.avi 0")
LISTS = {  # reader -> the names of its lists and what may be in them
    "ucf101": UCF101,
    "hmdb51": {
        f"{title}_test_split1.txt": mixed("v_A_g01_c01.avi 1", "v_A_g02_c01.avi 2", "v.avi 0") for title in "AB"
    },
    "ssv2": {
        "labels.json": as_json(st.just({"Lifting one": "0", "Dropping one": 1}), LABELS, ANYTHING),
        "train.json": as_json(st.lists(GOOD), st.lists(GOOD | ITEM | ANYTHING, max_size=4), ANYTHING),
        "validation.json": as_json(st.lists(GOOD), st.lists(ITEM, max_size=4)),
    },
    "kinetics400": {"train.csv": KINETICS, "val.csv": KINETICS},
    "csv": {"list.csv": CSV},
}


@pytest.mark.parametrize("name", LISTS)
def test_anything_gives_a_dataset_or_one_clear_error(name):
    @settings(deadline=None, max_examples=60)
    @given(st.fixed_dictionaries(LISTS[name]), st.sampled_from(["error", "skip"]))
    def check(contents, missing):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is skipped
            for video in ("A/v_A_g01_c01.avi", "A/v_A_g02_c01.avi", "B/v_B_g01_c01.avi", "1.webm", "2.webm"):
                (Path(folder) / video).parent.mkdir(exist_ok=True)
                (Path(folder) / video).touch()
            for file, data in contents.items():
                (Path(folder) / file).write_bytes(data)
            try:
                if name == "csv":
                    found = load("ucf101", folder, lists=Path(folder) / "list.csv", missing=missing)
                else:
                    found = load(name, folder, missing=missing)
            except (ValueError, FileNotFoundError) as error:
                assert folder in str(error)
            else:
                assert isinstance(found, Dataset) and found.train and found.test

    check()
