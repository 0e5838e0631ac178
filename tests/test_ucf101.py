"""The layout is read as it is found; what is wrong with it is said with file, line and remedy."""

import shutil
from dataclasses import replace

import pytest
from conftest import write_dataset

from david.data.readers import READERS, load
from david.data.readers.ucf101 import ucf101


@pytest.fixture
def root(tmp_path):
    """Two classes, two training videos and one test video each. All are empty: the reader opens none."""
    lists = {"classInd": [], "trainlist01": [], "testlist01": []}
    for number, name in enumerate(("Archery", "HandstandPushups"), 1):
        (tmp_path / name).mkdir()
        lists["classInd"].append(f"{number} {name}")
        for group, part in ((1, "testlist01"), (8, "trainlist01"), (9, "trainlist01")):
            # UCF101's own quirk: the folder is HandstandPushups, its files are v_HandStandPushups.
            line = f"{name}/v_{name.replace('stand', 'Stand')}_g{group:02d}_c01.avi"
            (tmp_path / line).touch()
            lists[part].append(line if part == "testlist01" else f"{line} {number}")
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_reads_classes_groups_and_splits(root):
    dataset = load("ucf101", root)
    assert dataset.classes == ("Archery", "HandstandPushups")
    assert [(v.name, v.label, v.group) for v in dataset.train] == [
        ("v_Archery_g08_c01", 0, "g08"),
        ("v_Archery_g09_c01", 0, "g09"),
        ("v_HandStandPushups_g08_c01", 1, "g08"),
        ("v_HandStandPushups_g09_c01", 1, "g09"),
    ]
    assert [v.group for v in dataset.test] == ["g01", "g01"]
    assert dataset.train[2].path == root / "HandstandPushups" / "v_HandStandPushups_g08_c01.avi"
    assert dataset.flip and dataset.name == "ucf101"
    assert load("ucf12", root).name == "ucf12"


def test_lists_may_lie_in_four_places(root):
    expected = load("ucf101", root).fingerprint
    inner = root / "ucfTrainTestlist"
    inner.mkdir()
    for path in root.glob("*.txt"):
        path.rename(inner / path.name)
    assert load("ucf101", root).fingerprint == expected
    videos = root / "UCF-101"
    videos.mkdir()
    for name in ("Archery", "HandstandPushups"):
        (root / name).rename(videos / name)
    assert load("ucf101", root).fingerprint == expected  # the archive as unpacked
    assert load("ucf101", videos).fingerprint == expected  # beside the class folders' folder
    inner.rename(root / "elsewhere")
    assert load("ucf101", videos, lists=root / "elsewhere").fingerprint == expected


def test_crlf_blank_lines_and_a_byte_order_mark(root):
    expected = load("ucf101", root)
    for path in root.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n") + b"  \r\n")
    assert load("ucf101", root) == expected


def test_videos_of_another_suffix_are_taken(root):
    names = [video.name for video in load("ucf101", root).train]
    for path in root.glob("*/*.avi"):
        path.rename(path.with_suffix(".mp4"))
    dataset = load("ucf101", root)
    assert [video.name for video in dataset.train] == names
    assert {video.path.suffix for video in dataset.train} == {".mp4"}
    (root / "Archery" / "v_Archery_g08_c01.avi").touch()  # the listed file itself comes first
    assert load("ucf101", root).train[0].path.suffix == ".avi"


def test_the_official_number_of_the_split(root):
    with pytest.raises(FileNotFoundError, match=r"trainlist03\.txt is missing: split=3"):
        load("ucf101", root, split=3)
    for part in ("train", "test"):
        shutil.copy(root / f"{part}list01.txt", root / f"{part}list03.txt")
    assert load("ucf101", root, split=3).fingerprint == load("ucf101", root).fingerprint


def test_a_video_without_a_group_is_its_own(root):
    (root / "Archery" / "holiday [1] (a).mov").touch()
    with open(root / "trainlist01.txt", "a") as file:
        file.write("Archery/holiday [1] (a).mov 1\n")
    assert load("ucf101", root).train[-1].group == "holiday [1] (a)"


def test_the_fingerprint_covers_content_and_not_place(root, tmp_path_factory):
    dataset = load("ucf101", root)
    copy = shutil.copytree(root, tmp_path_factory.mktemp("copy") / "data")
    assert load("ucf101", copy).fingerprint == dataset.fingerprint
    assert load("ucf12", root).fingerprint != dataset.fingerprint
    assert replace(dataset, train=dataset.train[1:]).fingerprint != dataset.fingerprint
    assert replace(dataset, flip=False).fingerprint != dataset.fingerprint


def test_unknown_names_are_refused(root):
    with pytest.raises(ValueError, match=r"unknown dataset 'ufc101'; known: motions, .*Did you mean 'ucf101'\?"):
        load("ufc101", root)
    with pytest.raises(ValueError, match=r"known: motions, ucf101, ucf12") as caught:
        load("imagenet", root)
    assert "mean" not in str(caught.value)
    with pytest.raises(ValueError, match="unknown option 'colour'; known are split, lists, missing, name, flip"):
        load("ucf101", root, colour=True)
    assert set(READERS) >= {"motions", "ucf101", "ucf12"}


def test_missing_root_or_lists(root, tmp_path):
    with pytest.raises(ValueError, match="ucf101 needs root="):
        load("ucf101", root="")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder: root= must hold"):
        load("ucf101", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no classInd\.txt in .*Archery.*ucfTrainTestlist.* lists="):
        load("ucf101", root / "Archery" / "..", lists=root / "Archery")
    (root / "testlist01.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testlist01\.txt is missing"):
        load("ucf101", root)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("classInd.txt", "three Boxing", r"classInd\.txt:3: mend 'three Boxing'.*'1 ApplyEyeMakeup'"),
        ("classInd.txt", "3", r"classInd\.txt:3: mend"),
        ("classInd.txt", "2 Boxing", r"classInd\.txt:3: remove '2 Boxing', which repeats"),
        ("classInd.txt", "3 Archery", r"classInd\.txt:3: remove"),
        ("classInd.txt", "7 Boxing", r"classInd\.txt: number the classes 1, 2, 3"),
        ("classInd.txt", "3 Boxing", r"no training or no test video of class Boxing is in .*classInd\.txt"),
        ("trainlist01.txt", "v_Archery_g08_c02.avi 1", r"trainlist01\.txt:5: mend .*v_Class_g01_c01\.avi 1"),
        ("trainlist01.txt", "Archery/v_Archery_g08_c02.avi one", r"trainlist01\.txt:5: mend"),
        ("trainlist01.txt", "Archery/v_Archery_g08_c02.avi 2", r":5: mend .*Archery is number 1 in"),
        ("trainlist01.txt", "Boxing/v_Boxing_g08_c02.avi 3", r":5: class 'Boxing' is not in classInd\.txt"),
        ("testlist01.txt", "Archery/v_Archery_g08_c01.avi", r"testlist01\.txt:3: .* already listed at .*:1"),
    ],
)  # fmt: skip
def test_malformed_lists_are_named_with_their_line(root, file, line, message):
    with open(root / file, "a") as handle:
        handle.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        load("ucf101", root)


def test_a_list_that_is_no_text(root):
    (root / "trainlist01.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"trainlist01\.txt is not a text file"):
        load("ucf101", root)
    (root / "classInd.txt").write_text("\n")
    with pytest.raises(ValueError, match="number the classes"):
        load("ucf101", root)


def test_absent_videos(root):
    (root / "Archery" / "v_Archery_g09_c01.avi").unlink()
    message = r"1 of 6 videos listed in .* are not under .* \(Archery/v_Archery_g09_c01\.avi\)"
    with pytest.raises(FileNotFoundError, match=message + ".*missing='skip'"):
        load("ucf101", root)
    with pytest.warns(UserWarning, match=message) as caught:
        dataset = load("ucf101", root, missing="skip")
    assert len(caught) == 1 and len(dataset.train) == 3 and len(dataset.classes) == 2
    shutil.rmtree(root / "Archery")
    with pytest.warns(UserWarning, match=r"3 of 6"):
        dataset = load("ucf101", root, missing="skip")
    assert dataset.classes == ("HandstandPushups",) and {video.label for video in dataset.train} == {0}
    shutil.rmtree(root / "HandstandPushups")
    with (
        pytest.warns(UserWarning, match=r"6 of 6"),
        pytest.raises(ValueError, match="no training or no test video"),
    ):
        load("ucf101", root, missing="skip")
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        ucf101(root, missing="ignore")


def test_a_folder_that_was_completed_is_seen_at_once(root):
    video = root / "Archery" / "v_Archery_g09_c01.avi"
    video.unlink()
    with pytest.raises(FileNotFoundError):
        load("ucf101", root)
    video.touch()
    assert len(load("ucf101", root).train) == 4


def test_real_videos(test_data, tmp_path):
    dataset = load("ucf12", test_data / "ucf12")
    assert (len(dataset.classes), len(dataset.train), len(dataset.test)) == (12, 764, 296)
    assert {video.group for video in dataset.test} == {f"g{i:02d}" for i in range(1, 8)}
    assert not {v.group for v in dataset.train} & {v.group for v in dataset.test}
    with pytest.warns(UserWarning, match="13296 of 13320"):
        real = load("ucf101", test_data / "ucf101_avi", lists=test_data / "splits" / "ucf101", missing="skip")
    assert (len(real.classes), len(real.train), len(real.test)) == (12, 12, 12)
    assert {video.name for video in real.train} <= {video.name for video in dataset.train}


def test_the_shared_writer_writes_this_layout(tmp_path):
    dataset = load("ucf101", write_dataset(tmp_path / "data", clips=1))
    assert [video.name for video in dataset.train + dataset.test] == [
        "v_A_g02_c01", "v_B_g02_c01", "v_A_g01_c01", "v_B_g01_c01",
    ]  # fmt: skip
