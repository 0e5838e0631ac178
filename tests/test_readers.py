"""Every reader reads its dataset's own layout and codec, says what it found, and its clips can be decoded."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_dataset, write_video
from test_images import unpack

from david.data.clips import open_clips
from david.data.readers import READERS, Dataset, Video, load
from david.data.report import describe, duplicates, second_opinion

SMALL = {"width": 64, "height": 48}
SHAPE = {"frames": 8, "stride": 2, "size": 48, "workers": 1}
CODECS = {".avi": {}, ".mp4": {"codec": "libx264"},
          ".webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8}}  # fmt: skip


def video(path: Path, frames: int = 20) -> Path:
    """A video in the codec of its suffix, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames, **SMALL, **CODECS[path.suffix])


def summary(dataset) -> dict[str, list[tuple[str, str, str]]]:
    """The videos by split: name, class, group."""
    splits = {"train": dataset.train, "test": dataset.test}
    return {part: [(v.name, dataset.classes[v.label], v.group) for v in videos] for part, videos in splits.items()}


def assert_decodes(dataset, tmp_path):
    """All clips can be decoded, and are not blank."""
    for part in ("train", "test"):
        clips = open_clips(dataset, part, **SHAPE, cache=tmp_path / "cache")
        assert len(clips) == len(getattr(dataset, part))
        assert all(clips.videos[row].std() > 10 for row in clips.rows)


def test_all_readers_have_names():
    assert set(READERS) == {
        "motions", "ucf101", "ucf12", "hmdb51", "jhmdb21", "ssv2", "kinetics400", "msraction3d",
        "frames", "folder",
    }  # fmt: skip
    for name in ("hmdb51", "jhmdb21", "ssv2", "kinetics400", "msraction3d", "frames", "folder"):
        with pytest.raises(ValueError, match=f"{name} needs root="):
            load(name)


def test_ucf101_by_the_earlier_papers_list(tmp_path):
    root = write_dataset(tmp_path / "data", classes=("Archery", "HandStand"))
    table = tmp_path / "mini.csv"
    rows = ["v_Archery_g02_c01,Archery,train", "v_Archery_g01_c01,Archery,test"]
    # Their list writes Handstand in the names too, where the files have HandStand.
    rows += ["v_Handstand_g02_c02,HandStand,train", "v_Handstand_g01_c01,HandStand,test"]
    table.write_bytes("\r\n".join(["folder_name,label,split", *rows, ""]).encode())
    dataset = load("ucf101", root, lists=table)
    assert summary(dataset) == {
        "train": [("v_Archery_g02_c01", "Archery", "g02"), ("v_Handstand_g02_c02", "HandStand", "g02")],
        "test": [("v_Archery_g01_c01", "Archery", "g01"), ("v_Handstand_g01_c01", "HandStand", "g01")],
    }
    assert dataset.train[1].path == root / "HandStand" / "v_HandStand_g02_c02.avi"
    with pytest.raises(ValueError, match=r"split=2: .*mini\.csv holds one split"):
        load("ucf101", root, split=2, lists=table)
    with pytest.raises(FileNotFoundError, match=r"none\.csv is not there: lists="):
        load("ucf101", root, lists=tmp_path / "none.csv")


# --------------------------------------------------------------------------------------------------- HMDB51
WAVE = "Wie_man_[winkt]!!_(&)_wave_u_cm_np1_fr_med_"


@pytest.fixture(scope="module")
def hmdb(tmp_path_factory):
    """Two classes; the film of the names with brackets has clips 0 to 2."""
    root = tmp_path_factory.mktemp("hmdb")
    lists = {
        "wave": [(f"{WAVE}0", 2), (f"{WAVE}1", 2), (f"{WAVE}2", 0), ("Other_wave_f_nm_np2_ba_goo_10", 1)],
        "ride_bike": [("A_ride_bike_f_cm_np1_le_bad_0", 1), ("B.b_ride_bike_f_cm_np1_le_bad_0", 2)],
    }
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir()
    for title, lines in lists.items():
        text = "".join(f"{name}.avi {number} \r\n" for name, number in lines)
        (folder / f"{title}_test_split1.txt").write_text(text)
        for i, (name, _) in enumerate(lines):
            video(root / "hmdb51_org" / title / f"{name}.avi", 20 + i)
    return root


def test_hmdb51(hmdb, tmp_path):
    dataset = load("hmdb51", hmdb)
    assert summary(dataset) == {
        "train": [
            ("A_ride_bike_f_cm_np1_le_bad_0", "ride_bike", "A"),
            ("Other_wave_f_nm_np2_ba_goo_10", "wave", "Other"),
        ],
        "test": [
            ("B.b_ride_bike_f_cm_np1_le_bad_0", "ride_bike", "B.b"),
            (f"{WAVE}0", "wave", "Wie_man_[winkt]!!_(&)"),
            (f"{WAVE}1", "wave", "Wie_man_[winkt]!!_(&)"),
        ],
    }  # fmt: skip
    assert dataset.classes == ("ride_bike", "wave") and dataset.flip
    assert dataset.test[1].path == hmdb / "hmdb51_org" / "wave" / f"{WAVE}0.avi"
    found = load("hmdb51", hmdb / "hmdb51_org", lists=hmdb / "testTrainMulti_7030_splits")
    assert found.fingerprint == dataset.fingerprint == load("hmdb51", hmdb / "hmdb51_org").fingerprint
    assert_decodes(dataset, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no <class>_test_split2\.txt in .*lists="):
        load("hmdb51", hmdb, split=2)


def test_hmdb51_by_the_earlier_papers_list_warns_of_its_leak(hmdb, tmp_path):
    table = tmp_path / "hmdb51_splits.csv"
    rows = [
        f"{WAVE}0,wave,test",
        f"{WAVE}1,wave,test",
        f"{WAVE}2,wave,train",
        "Other_wave_f_nm_np2_ba_goo_10,wave,train",
    ]
    rows += ["A_ride_bike_f_cm_np1_le_bad_0,ride_bike,train", "B.b_ride_bike_f_cm_np1_le_bad_0,ride_bike,test"]
    table.write_text("\r\n".join(["folder_name,label,split", *rows]))
    with pytest.warns(UserWarning, match=r"2 of 3 test videos in .*hmdb51_splits\.csv .* film of a training video"):
        dataset = load("hmdb51", hmdb, lists=table)
    assert (len(dataset.train), len(dataset.test)) == (3, 3)
    assert describe(dataset)["shared"].to_dict() == {"ride_bike": 0, "wave": 2}


# ----------------------------------------------------------------------------------------------------- SSv2
@pytest.fixture(scope="module")
def something(tmp_path_factory):
    """Two labels, three training and two validation videos; labels.json is not in the order of its numbers."""
    root = tmp_path_factory.mktemp("ssv2")
    templates = ["Pushing [something] from left to right", "Covering [something] with [something]"]
    items = [(str(100 + i), templates[i % 2]) for i in range(5)]
    rows = [{"id": name, "label": "x", "template": title, "placeholders": ["a cup"]} for name, title in items]
    lists = {
        "labels": {"Pushing something from left to right": "1", "Covering something with something": "0"},
        "train": rows[:3],
        "validation": rows[3:],
    }
    (root / "labels").mkdir()
    for name, content in lists.items():
        (root / "labels" / f"{name}.json").write_text(json.dumps(content))
    for i, (name, _) in enumerate(items):
        video(root / "20bn-something-something-v2" / f"{name}.webm", 20 + i)
    return root


def test_ssv2(something, tmp_path):
    dataset = load("ssv2", something)
    pushing, covering = "Pushing something from left to right", "Covering something with something"
    assert dataset.classes == (covering, pushing) and not dataset.flip
    assert summary(dataset) == {
        "train": [("100", pushing, "100"), ("101", covering, "101"), ("102", pushing, "102")],
        "test": [("103", covering, "103"), ("104", pushing, "104")],
    }
    assert_decodes(dataset, tmp_path)
    for name in ("train", "validation", "labels"):
        text = (something / "labels" / f"{name}.json").read_text()
        (tmp_path / f"something-something-v2-{name}.json").write_text(text)
    assert load("ssv2", something, lists=tmp_path).fingerprint == dataset.fingerprint
    with pytest.raises(FileNotFoundError, match=r"no something-something-v2-labels\.json or labels\.json in "):
        load("ssv2", something, lists=something)
    with pytest.raises(ValueError, match="one split, 1"):
        load("ssv2", something, split=2)


# ----------------------------------------------------------------------------------------------- Kinetics-400
def kinetics(root: Path, *files: str) -> Path:
    """Lists of two classes and seven clips, and those `files` of them."""
    header = "label,youtube_id,time_start,time_end,split\n"
    root.mkdir(exist_ok=True)
    (root / "train.csv").write_text(
        header + "air drumming,-abcdefghi_,7,17,train\nair drumming,-abcdefghi_,30,40,train\n"
        '"passing, then running",bcdefghijkl,0,10,train\nair drumming,gonegonegon,5,15,train\n'
    )
    (root / "validate.csv").write_text(
        header + 'air drumming,cdefghijklm,1,11,val\n"passing, then running",defghijklmn,2,12,val\n'
        '"passing, then running",lostlostlos,2,12,val\n'
    )
    for i, file in enumerate(files):
        video(root / file, 20 + i)
    return root


def test_kinetics400_in_folders_flat_and_incomplete(tmp_path):
    names = [
        "-abcdefghi__000007_000017", "-abcdefghi__000030_000040", "bcdefghijkl_000000_000010",
        "cdefghijklm_000001_000011", "defghijklmn_000002_000012",
    ]  # fmt: skip
    drum, run = "air drumming", "passing, then running"
    places = ["train/air drumming", "train/air_drumming", f"train/{run}", "validate", "replacement"]
    root = kinetics(tmp_path / "tree", *(f"{place}/{name}.mp4" for place, name in zip(places, names)))
    with pytest.warns(UserWarning, match=r"2 of 7 videos listed in .*gonegonegon_000005_000015.*`missing`"):
        dataset = load("kinetics400", root)
    assert dataset.classes == (drum, run) and dataset.flip
    assert summary(dataset) == {
        "train": [(names[0], drum, "-abcdefghi_"), (names[1], drum, "-abcdefghi_"), (names[2], run, "bcdefghijkl")],
        "test": [(names[3], drum, "cdefghijklm"), (names[4], run, "defghijklmn")],
    }
    assert dataset.missing == ((drum, "gonegonegon_000005_000015"), (run, "lostlostlos_000002_000012"))
    table = describe(dataset)
    assert table.loc[drum].to_dict() == {
        "train": 2, "test": 1, "train_groups": 1, "test_groups": 1, "shared": 0, "missing": 1,
    }  # fmt: skip
    assert_decodes(dataset, tmp_path)
    flat = kinetics(tmp_path / "flat", *(f"{name}.mp4" for name in names))
    with pytest.warns(UserWarning, match="2 of 7"):
        assert load("kinetics400", flat).fingerprint == dataset.fingerprint
    with pytest.raises(FileNotFoundError, match=r"2 of 7 .* missing='skip'"):
        load("kinetics400", flat, missing="error")


def test_a_class_that_is_missing_is_left_out_but_described(tmp_path):
    root = kinetics(tmp_path / "k", "-abcdefghi__000007_000017.mp4", "cdefghijklm_000001_000011.mp4")
    with pytest.warns(UserWarning, match="5 of 7"):
        dataset = load("kinetics400", root)
    assert dataset.classes == ("air drumming",)
    assert describe(dataset)["missing"].to_dict() == {"air drumming": 2, "passing, then running": 3}


# ---------------------------------------------------------------------------------------------- MSR-Action3D
def people(videos) -> set[str]:
    """Whom the videos show, by their names."""
    return {video.name.split("_")[1] for video in videos}


def test_msraction3d(tmp_path):
    """Three actions by six people, of whom the odd train; the files are empty, as the reader opens none."""
    lists = {"classInd": [], "trainlist01": [], "testlist01": []}
    for number, title in enumerate(("wave", "kick", "bend"), 1):
        (tmp_path / title).mkdir()
        lists["classInd"].append(f"{number} {title}")
        for subject in range(1, 7):
            line = f"{title}/a{number:02d}_s{subject:02d}_e01.mp4"
            (tmp_path / line).touch()
            lists["trainlist01" if subject % 2 else "testlist01"].append(line)
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    dataset = load("msraction3d", tmp_path)
    assert dataset.name == "msraction3d" and not dataset.flip and load("msraction3d", tmp_path, flip=True).flip
    assert summary(dataset)["test"][:4] == [
        ("a01_s02_e01", "wave", "s02"), ("a01_s04_e01", "wave", "s04"), ("a01_s06_e01", "wave", "s06"),
        ("a02_s02_e01", "kick", "s02"),
    ]  # fmt: skip
    for seed in range(20):
        held = load("heldout-msraction3d", tmp_path, held_seed=seed)
        assert len(people(held.train)) == 2 and len(people(held.test)) == 1
        assert people(held.train) | people(held.test) == {"s01", "s03", "s05"}

    swapped = replace(dataset, train=dataset.train[3:] + dataset.test[:1], test=dataset.test[1:])
    assert describe(swapped)["shared"].to_dict() == {"wave": 0, "kick": 1, "bend": 1}  # s02 is one person in all

    with pytest.raises(ValueError, match="split=2: msraction3d has one split, 1"):
        load("msraction3d", tmp_path, split=2)
    with open(tmp_path / "trainlist01.txt", "a") as file:
        file.write("\nbend/a03_e02.mp4")
    with pytest.raises(ValueError, match=r"trainlist01\.txt:10: 'a03_e02' does not say whom .* like a01_s01_e01"):
        load("msraction3d", tmp_path)
    (tmp_path / "classInd.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no classInd\.txt in .*: put the three lists .* there"):
        load("msraction3d", tmp_path)


def test_real_msraction3d(test_data, tmp_path):
    root = test_data / "msraction3d"
    dataset, held = load("msraction3d", root), load("heldout-msraction3d", root)
    assert (len(dataset.classes), len(dataset.train), len(dataset.test)) == (20, 283, 273)
    assert people(dataset.train) == {"s01", "s03", "s05", "s07", "s09"}
    assert people(dataset.test) == {"s02", "s04", "s06", "s08", "s10"}
    assert people(held.train) | people(held.test) == people(dataset.train)
    assert not people(held.train) & people(held.test)
    assert_decodes(dataset, tmp_path)


# ---------------------------------------------------------------------------------------------------- JHMDB
def test_jhmdb21(tmp_path):
    """Lists in UCF101's form, names in HMDB51's: the film is the group, so it is held out whole."""
    films = {"Fall_(1)!": "train", "Old_Film": "train", "New_Film": "test"}
    lists = {"classInd": ["1 catch", "2 wave"], "train": [], "test": []}
    for title in ("catch", "wave"):
        (tmp_path / title).mkdir()
        for film, split in films.items():
            lists[split].append(line := f"{title}/{film}_{title}_f_cm_np1_fr_med_0.mp4")
            (tmp_path / line).touch()
    (tmp_path / "classInd.txt").write_text("\n".join(lists["classInd"]))
    for split in ("train", "test"):
        (tmp_path / f"{split}list01.txt").write_text("\n".join(lists[split]))
    dataset, held = load("jhmdb21", tmp_path), load("heldout-jhmdb21", tmp_path)
    assert dataset.name == "jhmdb21" and dataset.flip and (len(dataset.train), len(dataset.test)) == (4, 2)
    assert {dataset.source(video) for video in dataset.test} == {"catch/New_Film", "wave/New_Film"}
    assert len(held.train) == len(held.test) == 2


def test_real_jhmdb21(test_data, tmp_path):
    dataset = load("jhmdb21", test_data / "jhmdb21")
    assert (len(dataset.classes), len(dataset.train), len(dataset.test)) == (21, 665, 257)
    assert not {dataset.source(v) for v in dataset.train} & {dataset.source(v) for v in dataset.test}
    assert_decodes(replace(dataset, train=dataset.train[::8], test=dataset.test[::4]), tmp_path)


# ------------------------------------------------------------------------------------------- frame folders
def test_frames_reader(tmp_path):
    rows = ["v_A_g02_c01,A,train", "v_A_g01_c01,A,test", "v_B_g02_c01,B,train", "v_B_g01_c01,B,test"]
    (tmp_path / "list.csv").write_text("\r\n".join(["folder_name,label,split", *rows]))
    for i, row in enumerate(rows):
        unpack(tmp_path / "jpegs" / row.partition(",")[0], 10 + i)
    flat = load("frames", tmp_path / "jpegs", lists=tmp_path / "list.csv", flip=False)
    assert summary(flat)["test"] == [("v_A_g01_c01", "A", "g01"), ("v_B_g01_c01", "B", "g01")] and not flat.flip
    assert_decodes(flat, tmp_path)
    assert duplicates(flat).empty
    lists = write_dataset(tmp_path / "ucf", clips=1)
    of_ucf = load("frames", tmp_path / "jpegs", lists=lists, name="mine")
    assert of_ucf.train == flat.train and of_ucf.test == flat.test and of_ucf.name == "mine"
    for title in "AB":
        (tmp_path / "jpegs" / title).mkdir()
        for i in (1, 2):
            name = f"v_{title}_g0{i}_c01"
            (tmp_path / "jpegs" / name).rename(tmp_path / "jpegs" / title / name)
    assert load("frames", tmp_path / "jpegs", lists=lists, name="mine").fingerprint == of_ucf.fingerprint


# --------------------------------------------------------------------------------------------- own folders
def test_folder(tmp_path):
    root = tmp_path / "own"
    for title, suffix in (("run", ".avi"), ("walk", ".mp4")):
        for i in range(4):
            video(root / title / f"clip [{i}]{suffix}", 20 + i)
    (root / "walk" / "notes.txt").touch()
    (root / "readme.txt").touch()
    dataset = load("folder", root)
    assert dataset.classes == ("run", "walk") and (len(dataset.train), len(dataset.test)) == (4, 4)
    assert sorted(video.name for video in dataset.train + dataset.test)[0] == "run/clip [0]"
    assert_decodes(dataset, tmp_path)
    video(root / "walk" / "clip [0].avi")
    with pytest.raises(ValueError, match=r"walk/clip \[0\] is already listed at .*: remove one"):
        load("folder", root)
    with pytest.raises(ValueError, match="test_share=1: choose"):
        load("folder", root, test_share=1)
    with pytest.raises(FileNotFoundError, match=r"no videos .* make one a class"):
        load("folder", tmp_path / "own" / "run")


def test_what_a_folder_holds_beside_videos(tmp_path):
    """macOS's companions, texts and pictures are nothing; what may be a video and is not read is named."""
    for title in ("run", "walk"):
        for i in range(4):
            video(tmp_path / title / f"{i}.avi", 10)
    plain = load("folder", tmp_path)
    for name in ("run/._0.avi", "run/.DS_Store", "run/notes.txt", "walk/0.json", "walk/0.jpg", "readme.md"):
        (tmp_path / name).write_bytes(b"companion")
    dataset = load("folder", tmp_path)
    assert dataset.fingerprint == plain.fingerprint and dataset == replace(plain, unread=dataset.unread)
    assert dataset.unread == ("run/notes.txt", "walk/0.jpg", "walk/0.json")
    assert describe(dataset)["unread"].to_dict() == {"run": 1, "walk": 2} and "unread" not in describe(plain)

    (tmp_path / "run" / "gone.avi").symlink_to(tmp_path / "nowhere.avi")
    (tmp_path / "run" / "there").symlink_to(tmp_path / "walk")
    others = ["jump/0.xyz", "jump/1", "run/day 2/a.avi", "run/day 2/b/c.MP4", "stray.mov", ".old/0.avi"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"a video")
    said = r"no class: jump in .* with no video \(.*\.avi.*\) directly in it; not read: 8 files in .*\(\.old/0\.avi, ju"
    with pytest.warns(UserWarning, match=said):
        found = load("folder", tmp_path)
    assert found.fingerprint == plain.fingerprint
    assert sorted(set(found.unread) - set(dataset.unread)) == sorted([*others, "run/gone.avi", "run/there"])
    counts = describe(found)["unread"].to_dict()
    assert counts == {"run": 5, "walk": 2, ".old": 1, "jump": 2, ".": 1}


SUFFIXES_AS_WRITTEN = {  # suffix -> codec: what cameras, phones and programs write, as they spell it
    ".m4v": "libx264", ".MPG": "mpeg2video", ".mpeg": "mpeg1video", ".MTS": "libx264", ".m2ts": "libx264",
    ".3gp": "mpeg4", ".ogv": "libvpx", ".wmv": "wmv2", ".flv": "flv1", ".ts": "mpeg2video", ".MOV": "libx264",
    ".Avi": "mpeg4", ".vob": "mpeg2video", ".asf": "wmv2", ".nut": "mpeg4", ".mkv": "libx264", ".m2v": "mpeg2video",
}  # fmt: skip


def test_whatever_pyav_opens_is_a_video(tmp_path):
    for number, (suffix, codec) in enumerate(SUFFIXES_AS_WRITTEN.items()):
        for title in ("run", "walk"):
            path = tmp_path / title / f"{number}{suffix}"
            path.parent.mkdir(exist_ok=True)
            try:
                write_video(path, 10, codec=codec, **SMALL)
            except (ValueError, OSError):  # no such encoder or muxer in this build
                path.write_bytes(b"")
    dataset = load("folder", tmp_path)
    names = {video.name for video in dataset.train + dataset.test}
    assert len(names) == 2 * len(SUFFIXES_AS_WRITTEN) and not dataset.unread
    lists = tmp_path / "list.csv"
    rows = [f"{number},{title},{part}" for number, (title, part) in enumerate(
        (title, part) for title in ("run", "walk") for part in ("train", "test") for _ in range(4))]  # fmt: skip
    lists.write_text("\n".join(["folder_name,label,split", *rows]))
    assert len(load("ucf101", tmp_path, lists=lists).train) == 8  # found without a suffix


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["walk/a.avi", "run/b.avi", "run/c.avi"],
            r"class walk of .* has 1 video of 1 group \(walk/a\), and some must",
        ),
        (
            ["run/x_g01_a.avi", "run/x_g01_b.avi"],
            r"class run of .* has 2 videos of 1 group \(g01\), .*: add videos of o",
        ),
        (["run/x_g01_a.avi", "walk/x_g01_a.avi", "walk/x_g02_a.avi"], r"class run of .* has 1 video of 1 group"),
    ],
)
def test_a_class_that_no_split_can_part(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        load("folder", tmp_path)


def test_a_link_to_nothing_is_a_missing_video(tmp_path):
    root = write_dataset(tmp_path / "ucf", clips=2)
    path = root / "A" / "v_A_g02_c01.avi"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.avi")
    with pytest.raises(FileNotFoundError, match=r"1 of 6 videos .* \(A/v_A_g02_c01.avi\): complete"):
        load("ucf101", root)
    with pytest.warns(UserWarning, match="1 of 6 videos"):
        assert len(load("ucf101", root, missing="skip").train) == 3


# ---------------------------------------------------------------------------------------------- duplicates
def test_duplicates_are_found_by_content(tmp_path):
    root = write_dataset(tmp_path / "data")
    assert duplicates(load("ucf101", root))["name"].tolist() == ["v_A_g02_c01", "v_B_g02_c01", "v_A_g02_c02",
        "v_B_g02_c02", "v_A_g01_c01", "v_B_g01_c01"]  # fmt: skip
    for i, path in enumerate(sorted(root.glob("*/*.avi"))):
        path.write_bytes(bytes([i]) * 9)
    assert duplicates(load("ucf101", root)).empty
    (root / "B" / "v_B_g01_c01.avi").write_bytes((root / "A" / "v_A_g02_c02.avi").read_bytes())
    assert duplicates(load("ucf101", root)).values.tolist() == [
        [0, "train", "A", "v_A_g02_c02"], [0, "test", "B", "v_B_g01_c01"],
    ]  # fmt: skip


def test_the_known_duplicate_of_ucf101(test_data):
    found = duplicates(load("ucf12", test_data / "ucf12"))
    known = found[found["class"] == "TrampolineJumping"]
    assert known["name"].tolist() == ["v_TrampolineJumping_g08_c01", "v_TrampolineJumping_g12_c05"]


def test_a_second_opinion_on_every_frame(tmp_path):
    pytest.importorskip("decord")
    dataset = load("ucf101", write_dataset(tmp_path))
    damaged = dataset.train[2].path
    damaged.write_bytes(damaged.read_bytes()[:3000])
    table = second_opinion(dataset, videos=4)
    assert table["name"].tolist() == [dataset.train[i].name for i in (0, 1, 3)]
    assert table["pyav"].tolist() == table["decord"].tolist() == [21, 22, 22]
    assert (table["largest difference"] <= 2).all() and (table["share that differs"] < 0.01).all()
    assert len(second_opinion(dataset, videos=1)) == 1


def test_a_second_opinion_on_a_long_video_takes_no_more_memory(tmp_path, monkeypatch):
    pytest.importorskip("decord")
    monkeypatch.setattr("david.data.report.KEPT", 1 << 20)
    peaks = []
    for frames in (30, 180):
        path = write_video(tmp_path / f"{frames}.mp4", frames, codec="libx264", width=320, height=240)
        dataset = Dataset("one", ("any",), (Video(path, "one", 0, "one"),), (), False)
        second_opinion(dataset, videos=1)  # what is loaded once
        tracemalloc.start()
        table = second_opinion(dataset, videos=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert table["pyav"].item() == table["decord"].item() == frames and table["largest difference"].item() <= 2
    assert max(peaks) < 3 << 20  # one frame has 0.2 MiB, the film of 180 frames 40
