"""The lists are parsed without any video: official counts, what is wrong with its line, and any list at all."""

import csv
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from david.datasets import folder, hmdb51, kinetics400, ssv2, ucf101
from david.datasets.core import Listed, csv_rows, leaking, read_csv


def counts(listed):
    """(training, test) videos."""
    number = Counter(item.split for item in listed)
    return number["train"], number["test"]


# ------------------------------------------------------------------------------------- official counts
@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_counts(test_data, split):
    classes, listed, _ = ucf101.read_lists(test_data, test_data / "splits" / "ucf101", split)
    assert len(classes) == 101 and counts(listed) == {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}[split]
    assert leaking(listed) == 0


def test_the_earlier_papers_lists(test_data):
    classes, listed = read_csv(test_data / "splits" / "ucf101" / "ucf101_splits1.csv")
    assert (len(classes), *counts(listed), leaking(listed)) == (101, 9537, 3783, 0)
    official = ucf101.read_lists(test_data, test_data / "splits" / "ucf101", 1)[1]
    assert {i.name.casefold(): i.split for i in listed} == {i.name.casefold(): i.split for i in official}
    classes, listed = read_csv(test_data / "splits" / "ucf101" / "ucf50_splits1.csv")
    assert (len(classes), *counts(listed), leaking(listed)) == (50, 4662, 1861, 0)
    with pytest.warns(UserWarning, match="647 of 1530 test videos"):
        classes, listed, _ = hmdb51.read_lists(test_data, test_data / "splits" / "hmdb51" / "hmdb51_splits.csv", 1)
    assert (len(classes), *counts(listed)) == (51, 5236, 1530)


def test_ssv2_counts(test_data, tmp_path):
    titles = json.loads((test_data / "splits" / "ssv2" / "class_list.json").read_text())
    rows = json.loads((test_data / "splits" / "ssv2" / "annot_val.json").read_text())
    (tmp_path / "labels.json").write_text(json.dumps({title: str(i) for i, title in enumerate(titles)}))
    (tmp_path / "train.json").write_text("[]")
    content = [{"id": row["id"], "template": titles[row["class"]].replace("something", "[something]")} for row in rows]
    (tmp_path / "validation.json").write_text(json.dumps(content))
    classes, listed, _ = ssv2.read_lists(tmp_path)
    assert len(classes) == 174 and counts(listed) == (0, 24777) and classes == titles
    assert [classes.index(item.title) for item in listed] == [row["class"] for row in rows]


def test_kinetics400_counts(test_data, tmp_path):
    with open(test_data / "splits" / "kinetics400" / "labels_to_id.csv", newline="") as file:
        titles = {row["id"]: row["name"] for row in csv.DictReader(file)}
    lines = (test_data / "splits" / "kinetics400" / "valid_processed.txt").read_text().splitlines()
    rows = [(line.split()[0], titles[line.split()[-1]]) for line in lines]
    with open(tmp_path / "val.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(kinetics400.COLUMNS)
        writer.writerows((title, name[:11], int(name[12:18]), int(name[19:]), "val") for name, title in rows)
    (tmp_path / "train.csv").write_text(",".join(kinetics400.COLUMNS) + "\n")
    classes, listed, _ = kinetics400.read_lists(tmp_path)
    assert len(classes) == 400 and counts(listed) == (0, len(rows))
    assert [(item.name, item.title, item.group) for item in listed] == [(n, t, n[:11]) for n, t in rows]


# -------------------------------------------------------------------------------------- malformed lists
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label,split\na,b,train\n", r"list\.csv:1: the header has no folder_name: mend it to folder_name,label"),
        ("", r"list\.csv:1: the header has no folder_name, label, split"),
        ("folder_name,label,split\na,b,train\na,,test\n", r"list\.csv:3: mend the row"),
        ("folder_name,label,split\r\na,b\r\n", r"list\.csv:2: mend the row"),
        ("folder_name,label,split\na,b,validation\n", r"list\.csv:2: mend the split 'validation' to train or test"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text, newline="")
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "list.csv")


@pytest.mark.parametrize("line", ["name.avi", "name.avi 3", "1", "name.avi one", "name.avi1"])
def test_malformed_hmdb51(tmp_path, line):
    (tmp_path / "wave_test_split1.txt").write_text(f"good.avi 1\n\n{line}\n")
    with pytest.raises(ValueError, match=r"wave_test_split1\.txt:3: mend .*'name\.avi 1'"):
        hmdb51.read_list(tmp_path / "wave_test_split1.txt", "wave")


@pytest.mark.parametrize(
    ("labels", "train", "message"),
    [
        ('{"A": "0", "B": "2"}', "[]", r"labels\.json: number the classes 0, 1, 2"),
        ('{"A": "0", "B": "0"}', "[]", r"labels\.json: number the classes"),
        ("{}", "[]", r"labels\.json: number the classes"),
        ("[]", "[]", r"labels\.json holds no JSON dict"),
        ('{"A": 0,\n', "[]", r"labels\.json:2 is not JSON"),
        ('{"A": 0}', '[{"id": 1, "template": "[B]"}]', r"train\.json: video 1: the template 'B' is not in the labels"),
        ('{"A": 0}', '[{"id": 1, "template": "A"}, {"id": 2}]', r"train\.json: video 2: mend"),
    ],
)
def test_malformed_ssv2(tmp_path, labels, train, message):
    for name, text in (("labels", labels), ("train", train), ("validation", "[]")):
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        ssv2.read_lists(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,abcdefghijk,1,11,test", r"train\.csv:2: the split 'test' is not train: remove"),
        ("a,abcdefghijk,1.5,11,train", r"train\.csv:2: mend '1\.5', '11': whole seconds"),
        ("a,abcdefghijk,1", r"train\.csv:2: mend the row"),
    ],
)
def test_malformed_kinetics400(tmp_path, row, message):
    (tmp_path / "train.csv").write_text(",".join(kinetics400.COLUMNS) + f"\n{row}\n")
    with pytest.raises(ValueError, match=message):
        kinetics400.read_list(tmp_path / "train.csv", "train")


# ---------------------------------------------------------------------------------------------- groups
@pytest.mark.parametrize(
    ("title", "name", "group"),
    [
        ("Archery", "v_Archery_g08_c01", "g08"),
        ("wave", "Wie_man_winkt!!_wave_u_cm_np1_fr_med_0", "Wie_man_winkt!!"),
        ("ride_bike", "A_(b)_[c]_ride_bike_f_nm_np12_le_goo_103", "A_(b)_[c]"),
        ("drumming", "-_abcdefg-__000007_000017", "-_abcdefg-_"),
        ("drumming", "abcdefghijk_7_17", "abcdefghijk_7_17"),
        ("walk", "walk/me_g02_c1", "g02"),
        ("walk", "walk/me", "walk/me"),
        ("anything", "74225", "74225"),
    ],
)
def test_groups(title, name, group):
    assert Listed(title, name, "train", "").group == group


# -------------------------------------------------------------------------------------- any list at all
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


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_any_text_gives_a_list_or_one_clear_error(text):
    holder, path = written(text)
    with holder:
        for parse in (
            lambda: read_csv(path),
            lambda: hmdb51.read_list(path, "wave"),
            lambda: ssv2.read_labels(path),
            lambda: ssv2.read_list(path, "train", []),
            lambda: kinetics400.read_list(path, "train"),
            lambda: csv_rows(path),
        ):
            try:
                parse()
            except ValueError as error:
                assert str(path) in str(error)


# ------------------------------------------------------------------------------------ the split of `folder`
VIDEOS = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 9), st.integers(1, 20)), unique=True)


@settings(deadline=None)
@given(VIDEOS, st.floats(0.05, 0.95), st.integers(0, 99), st.randoms())
def test_a_drawn_split_keeps_groups_together(videos, share, seed, rng):
    listed = [Listed(t, f"{t}/v_g{g:02d}_c{c:02d}", "train", "") for t, g, c in videos]
    drawn = folder.draw(listed, share, seed)
    assert [item.name for item in drawn] == [item.name for item in listed]
    sides = {item.group: item.split for item in drawn}
    assert all(item.split == sides[item.group] for item in drawn)
    train = {item.title for item in drawn if item.split == "train"}
    assert train == {title for title, _, _ in videos}  # no class is left without a training video
    rng.shuffle(listed)
    assert {i.name: i.split for i in folder.draw(listed, share, seed)} == {i.name: i.split for i in drawn}


def test_a_drawn_split_has_its_share_and_depends_on_the_seed():
    listed = [Listed(title, f"{title}/{i}", "train", "") for title in "AB" for i in range(10)]
    splits = [folder.draw(listed, 0.3, seed) for seed in range(5)]
    for drawn in splits:
        assert Counter((item.title, item.split) for item in drawn) == {
            ("A", "train"): 7, ("A", "test"): 3, ("B", "train"): 7, ("B", "test"): 3,
        }  # fmt: skip
    assert len({tuple(item.split for item in drawn) for drawn in splits}) == 5
