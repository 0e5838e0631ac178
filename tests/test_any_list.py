"""Any list at all: a good one is read back as it was written, a bad one gives one error that names file and line."""

import csv
import json
import re
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from david.data.readers import Dataset, hmdb51, kinetics400, load, ssv2, ucf101
from david.data.readers.core import read_csv

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
UNCLOSED = '"a,b,train'  # the row goes on to the end of the file
JUNK = WORD.filter(lambda text: '"' not in text)
BAD_LINES = [  # how to read a file; its name, its header, a good line, and lines that no list may hold
    (lambda path: ucf101.read_classes(path), "classInd.txt", [], "{} Class{}",
     st.sampled_from(["Archery", "1", "² Archery", "one Archery", "1.5 Archery"]) | JUNK),
    (lambda path: ucf101.read_list(path, "train", ["A"]), "trainlist01.txt", [], "A/v_A_g{:02d}_c{}.avi 1",
     st.sampled_from(["A/v_A 1", "v.avi 1", "A/v.avi one", "A/v.avi 2", "B/v.avi 1", "A/B/v.avi 1"]) | JUNK),
    (lambda path: hmdb51.read_list(path, "wave"), "wave_test_split1.txt", [], "film{}_wave_{}.avi 1",
     st.sampled_from(["film.avi", "film.avi 3", "1", "film.avi 1 train", "film.avi ²"])),
    (lambda path: read_csv(path), "list.csv", ["folder_name,label,split"], "video{},class{},train",
     st.sampled_from(["a,b,validation", "a,b", ",b,train", "a,,test", "a", UNCLOSED]) | JUNK),
    (lambda path: kinetics400.read_list(path, "train"), "train.csv", [HEADER], "a class,video{}_____,{},17,train",
     st.sampled_from(["a,b,1,11,test", "a,b,one,11,train", "a,b,1.5,11,train", "a,b,²,11,train", "a,b,1", "a"]) | JUNK),
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
        number = len(header) + before + 1 + (after if line == UNCLOSED else 0)
        assert re.match(rf"{re.escape(str(path))}:{number}\b", str(caught.value))

    check()


# ------------------------------------------------------------------------------------------ anything at all
SHORT = st.text(max_size=4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SHORT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=5,
)
ITEM = st.fixed_dictionaries({}, optional={"id": ANYTHING, "template": st.just("Lifting one") | ANYTHING})
ODD_JSON = ANYTHING | st.lists(ITEM, max_size=3) | st.dictionaries(SHORT, st.sampled_from([0, "0", 1]) | ANYTHING)
LISTS = {  # reader -> its lists, by name, as they should be
    "ucf101": {
        "classInd.txt": "1 A\n2 B\n",
        "trainlist01.txt": "A/v_A_g01_c01.avi 1\nB/v_B_g01_c01.avi 2\n",
        "testlist01.txt": "A/v_A_g02_c01.avi\nB/v_B_g02_c01.avi\n",
    },
    "hmdb51": {
        f"{title}_test_split1.txt": f"v_{title}_g01_c01.avi 1 \nv_{title}_g02_c01.avi 2 \nv.avi 0\n" for title in "AB"
    },
    "ssv2": {
        "labels.json": '{"Lifting one": "0",\n "Dropping one": 1}',
        "train.json": '[{"id": "1", "template": "Lifting [one]"},\n {"id": 2, "template": "Dropping [one]"}]',
        "validation.json": '[{"id": "3", "template": "Lifting [one]"},\n {"id": 4, "template": "Dropping one"}]',
    },
    "kinetics400": {
        "train.csv": f"{HEADER}\nA,v_A_g01_c01,0,10,train\nB,v_B_g01_c01,0,10,train\n",
        "val.csv": f'{HEADER}\r\nA,v_A_g02_c01,0,10,val\r\n"B",v_B_g02_c01,0,10,val',
    },
    "csv": {
        "list.csv": 'folder_name,label,split\nv_A_g01_c01,A,train\n"v_A_g02_c01",A,test\nv_B_g01_c01,B,test\n',
    },
}
FILES = [f"{x}/v_{x}_g0{i}_c01{rest}" for x in "AB" for i in (1, 2) for rest in (".avi", "_000000_000010.mp4")]
FILES += [f"{i}.webm" for i in (1, 2, 3, 4)]


def near(file, good):
    """What else may be in a list: the good one, changed in one place; any text; bytes that are no text; odd JSON."""
    places = st.integers(0, len(good))
    changed = st.builds(lambda a, b, text: good[: min(a, b)] + text + good[max(a, b) :], places, places, SHORT)
    if file.endswith("json"):
        changed |= ODD_JSON.map(json.dumps)
    texts = st.just(good) | changed | changed | st.text(max_size=60)
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40)


@pytest.mark.parametrize("name", LISTS)
def test_anything_gives_a_dataset_or_one_clear_error(name):
    good = {file: text.encode() for file, text in LISTS[name].items()}
    outcomes = []

    @settings(deadline=None, max_examples=60)
    @given(st.fixed_dictionaries({file: near(file, text) for file, text in LISTS[name].items()}), st.booleans())
    @example(good, False)
    def check(contents, skip):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is skipped
            for file in FILES:
                (Path(folder) / file).parent.mkdir(exist_ok=True)
                (Path(folder) / file).touch()
            for file, data in contents.items():
                (Path(folder) / file).write_bytes(data)
            of = {"lists": Path(folder) / "list.csv"} if name == "csv" else {}
            try:
                found = load("ucf101" if name == "csv" else name, folder, missing="skip" if skip else "error", **of)
            except (ValueError, FileNotFoundError) as error:
                assert folder in str(error)
                outcomes.append("error")
            else:
                assert isinstance(found, Dataset) and found.train and found.test
                outcomes.append("dataset")

    check()
    assert set(outcomes) == {"dataset", "error"}
