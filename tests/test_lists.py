"""The lists are parsed without any video: official counts, and what is wrong with its line."""

import csv
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from david.data.readers import folder, hmdb51, kinetics400, ssv2, ucf101
from david.data.readers.core import Listed, leaking, read_csv


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
        ("high_arm_wave", "a01_s10_e03", "s10"),
        ("walk", "walk/me_g02_c1", "g02"),
        ("walk", "walk/me", "walk/me"),
        ("anything", "74225", "74225"),
    ],
)
def test_groups(title, name, group):
    assert Listed(title, name, "train", "").group == group


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
