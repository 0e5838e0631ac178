"""Accuracy by hand; students on distilled sets, the teacher's recipe on the real set."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import counting_clips, noise_clips, shades

from david.runs.settings import preset
from david.sets import DistilledSet, RealSet
from david.training import accuracy, evaluate, in_order

LABELS = (0, 1, 2, 0, 1, 5, 3, 4, 0)


class TableNet:
    """Says of clip i of `counting_clips` what row i of a table of logits says."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits)

    def __call__(self, clips):
        return self.logits[shades(clips)[0][:, 0]]


@pytest.mark.parametrize("batch", [2, 128])
def test_accuracy_by_hand(batch):
    # Ranked first to last: what the net thinks of each of the nine clips.
    ranking = [
        [0, 1, 2, 3, 4, 5],  # right
        [0, 1, 2, 3, 4, 5],  # second
        [0, 1, 3, 4, 5, 2],  # last: not among the five
        [0, 5, 4, 3, 2, 1],  # right
        [1, 5, 4, 3, 2, 0],  # right
        [0, 1, 2, 3, 5, 4],  # fifth
        [3, 1, 2, 0, 5, 4],  # right
        [0, 1, 2, 3, 5, 4],  # last
        [1, 0, 2, 3, 4, 5],  # second
    ]
    logits = [[-float(row.index(c)) for c in range(6)] for row in ranking]
    found = accuracy(TableNet(logits), counting_clips(LABELS), batch=batch)
    assert found == {
        "top1": pytest.approx(4 / 9),
        "top5": pytest.approx(7 / 9),
        "per_class": pytest.approx([2 / 3, 1 / 2, 0, 1, 0, 0]),
    }


def test_with_fewer_than_five_classes_top_5_is_1():
    logits = [[0.0, 1.0]] * 9  # always the second class
    found = accuracy(TableNet(logits), counting_clips())
    assert found == {"top1": pytest.approx(4 / 9), "top5": 1.0, "per_class": [0.0, 1.0]}


def test_evaluate_trains_on_the_set_and_tests_on_the_clips(monkeypatch):
    train, asked = noise_clips(), []
    monkeypatch.setattr("david.training.train_on", lambda source, **kwargs: asked.append((source, kwargs)) or "net")
    monkeypatch.setattr("david.training.accuracy", lambda net, test: {"top1": 0.5, "net": net, "test": test})
    settings = preset("smoke").student
    distilled = DistilledSet(torch.zeros(3, 1, 8, 3, 48, 48), torch.tensor([8, 4, 2]), train.classes)
    for source in (distilled, RealSet(train)):
        result = evaluate(source, train, seed=4, settings=settings)
        assert result == {"seed": 4, "top1": 0.5, "net": "net", "test": train}
        assert asked.pop() == (source, {"seed": 4, "settings": settings, "device": train.device, "model": None})


def test_a_student_of_real_clips_recognises_others():
    """From the set to the accuracy, nothing replaced: bright clips against dark ones."""

    def clips(seed):
        train = noise_clips(labels=(0, 1, 0, 1), seed=seed)
        train.videos[train.rows[train.labels == 1]] //= 8
        return train

    train, test = clips(0), clips(1)
    distilled = DistilledSet(
        torch.stack([train.batch(p[:1]) for p in train.by_class()]), torch.tensor([8, 4]), train.classes
    )
    settings = preset("smoke", width=0.125, student_steps=25, student_batch=4, student_lr=0.01)
    found = evaluate(distilled, test, seed=0, settings=settings.student)
    assert found == {"seed": 0, "top1": 1.0, "top5": 1.0, "per_class": [1.0, 1.0]}
    assert evaluate(distilled, test, seed=0, settings=settings.student) == found


def permuted(clips, order, names=None):
    """The same clips, whose class ``order[k]`` comes in place k, under other names."""
    names = names or [clips.classes[c] for c in order]
    return replace(clips, labels=np.argsort(order)[clips.labels], classes=names)


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 0, 1], [2, 1, 0], [1, 2, 0]])
def test_classes_of_another_order_are_taken_by_name(order):
    train, test = noise_clips(), noise_clips(seed=1)
    distilled = DistilledSet(torch.zeros(3, 1, 8, 3, 48, 48).normal_(), torch.tensor([8, 4, 2]), train.classes)
    settings = preset("smoke", student_steps=1).student
    expected = evaluate(distilled, test, seed=0, settings=settings)
    assert len(set(expected["per_class"])) > 1 or expected["top1"] in (0, 1)
    assert evaluate(distilled, permuted(test, order), seed=0, settings=settings) == expected


def test_per_class_accuracy_is_in_the_order_of_the_set(monkeypatch):
    monkeypatch.setattr(
        "david.training.train_on", lambda *_, **__: TableNet([[0.0, 1.0]] * 9)
    )  # the set's second class
    clips, settings = counting_clips(), preset("smoke")
    for names, per_class in ((["class 0", "class 1"], [0.0, 1.0]), (["class 1", "class 0"], [0.0, 1.0])):
        distilled = DistilledSet(torch.zeros(2, 1, 8, 3, 2, 2), torch.tensor([8, 8]), names)
        found = evaluate(distilled, clips, seed=0, settings=settings.student)
        assert found["per_class"] == per_class
        assert found["top1"] == pytest.approx(4 / 9 if names[1] == "class 1" else 5 / 9)


@pytest.mark.parametrize(
    ("own", "theirs", "message"),
    [
        (["A", "B", "C"], ["A", "B", "D"], "'C' being in the set alone"),
        (["B", "C", "D"], ["A", "B", "C"], "'A' being in the clips alone"),
        (["A", "B", "C"], ["a", "b", "c"], "'A' being in the set alone"),
        (["A", "B", "B"], ["B", "A", "B"], "'B' being in both, twice"),
        (["A", "B", "C"], ["A", "B"], "'C' being in the set alone"),
    ],
)
def test_classes_of_other_names_are_refused_before_any_training(monkeypatch, own, theirs, message):
    monkeypatch.setattr("david.training.train_on", lambda *_, **__: pytest.fail("a student was trained"))
    distilled = DistilledSet(torch.zeros(3, 1, 8, 3, 2, 2), torch.tensor([8, 8, 8]), own)
    clips = replace(counting_clips([c % len(theirs) for c in range(9)]), classes=theirs)
    with pytest.raises(ValueError, match=message):
        evaluate(distilled, clips, seed=0, settings=preset("smoke").student)


def test_names_may_be_of_either_unicode_form():
    composed, apart = ["Caf\u00e9", "Tai"], ["Tai", "Cafe\u0301"]
    clips = replace(counting_clips(), classes=apart)
    assert in_order(clips, composed).labels.tolist() == [1 - label for label in clips.labels.tolist()]
    assert in_order(clips, apart) is clips
