"""Datasets made of others: the classes kept, the groups held out."""

import pytest
from conftest import write_dataset

from david.data.readers import base, check_name, load
from david.data.readers.derived import heldout
from david.support.files import write_json


@pytest.fixture
def classes(tmp_path):
    """A list of three classes, not in their order."""
    path = tmp_path / "tr.json"
    write_json(path, {"dataset": "motions", "classes": ["Grow", "Disc", "MoveUp"]})
    return path


def test_the_classes_of_a_tr_subset(classes):
    whole, subset = load("motions"), load("tr-motions", classes=classes)
    assert subset.name == "tr-motions" and subset.classes == ("Disc", "MoveUp", "Grow")
    for part in ("train", "test"):
        videos = {video.name: whole.classes[video.label] for video in getattr(whole, part)}
        kept = {video.name: subset.classes[video.label] for video in getattr(subset, part)}
        assert kept == {name: title for name, title in videos.items() if title in subset.classes}
    assert subset.fingerprint != whole.fingerprint and subset.flip == whole.flip


def test_lists_that_do_not_fit(classes, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no list of classes at .*none\.json: notebook 01-tr-ucf writes one"):
        load("tr-motions", classes=tmp_path / "none.json")
    write_json(classes, {"dataset": "ucf101", "classes": ["Archery"]})
    with pytest.raises(ValueError, match=r"tr\.json lists classes of ucf101, not of motions"):
        load("tr-motions", classes=classes)
    write_json(classes, {"dataset": "motions", "classes": ["Disc", "Dsc"]})
    with pytest.raises(ValueError, match=r"tr\.json: class 'Dsc' is not in motions"):
        load("tr-motions", classes=classes)


def test_held_out_groups_are_training_groups():
    whole, held = load("motions"), load("heldout-motions")
    assert held.name == "heldout-motions" and held.classes == whole.classes
    assert sorted(v.name for v in held.train + held.test) == sorted(v.name for v in whole.train)
    for label in range(len(held.classes)):
        train, test = ({v.group for v in part if v.label == label} for part in (held.train, held.test))
        assert train and test and not train & test
        share = sum(v.label == label for v in held.test) / sum(v.label == label for v in whole.train)
        assert 0.3 <= share < 0.5
    names = [v.name for v in held.test]
    assert names == [v.name for v in heldout("motions").test] != [v.name for v in heldout("motions", held_seed=1).test]
    assert len({held.fingerprint, heldout("motions", held_seed=1).fingerprint, whole.fingerprint}) == 3
    with pytest.raises(ValueError, match="held_share=1: choose a share between 0 and 1"):
        heldout("motions", held_share=1)


def test_a_class_of_one_group_has_none_to_hold_out(tmp_path):
    write_dataset(tmp_path / "ucf")  # its training videos are all of g02
    with pytest.raises(ValueError, match=r"class A of ucf101 has one group .* needs two groups in every class"):
        load("heldout-ucf101", tmp_path / "ucf")


def test_names(classes):
    assert base("tr-heldout-ucf101") == base("ucf101") == "ucf101"
    with pytest.raises(ValueError, match=r"unknown dataset 'motion'.*Did you mean 'motions'"):
        check_name("tr-motion")
    assert load("heldout-tr-motions", classes=classes).classes == ("Disc", "MoveUp", "Grow")
