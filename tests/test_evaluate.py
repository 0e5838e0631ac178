"""Accuracy by hand; students on distilled sets, the teacher's recipe on the real set."""

import pytest
import torch
from toy import counting_clips, noise_clips, shades

from david.evaluate import accuracy, evaluate
from david.runs.settings import preset
from david.sets import DistilledSet, RealSet

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


def test_evaluate_trains_by_the_recipe_of_the_set(monkeypatch):
    train, asked = noise_clips(), []
    monkeypatch.setattr("david.evaluate.train_on", lambda source, **kwargs: asked.append((source, kwargs)) or "net")
    monkeypatch.setattr("david.evaluate.accuracy", lambda net, test: {"top1": 0.5, "net": net, "test": test})
    settings = preset("smoke")
    distilled = DistilledSet(torch.zeros(3, 1, 8, 3, 48, 48), torch.tensor([8, 4, 2]), train.classes)
    for source in (distilled, RealSet(train)):
        result = evaluate(source, train, seed=4, settings=settings)
        assert result == {"seed": 4, "top1": 0.5, "net": "net", "test": train}
    assert asked[0][0] is distilled
    assert [kwargs["stage"] for _, kwargs in asked] == ["student", "teacher"]
    assert all(kwargs["seed"] == 4 and kwargs["settings"] is settings for _, kwargs in asked)


def test_a_student_of_real_clips_recognises_others():
    """From the set to the accuracy, nothing replaced: bright clips against dark ones."""

    def clips(seed):
        train = noise_clips(labels=(0, 1, 0, 1), seed=seed)
        train.videos[train.rows[train.labels == 1]] //= 8
        return train

    train, test = clips(0), clips(1)
    distilled = DistilledSet(
        torch.stack([train.batch(p[:1]) for p in train.by_class()]), torch.tensor([8, 4]), ["bright", "dark"]
    )
    settings = preset("smoke", width=0.125, student_steps=25, student_batch=4, student_lr=0.01)
    found = evaluate(distilled, test, seed=0, settings=settings)
    assert found == {"seed": 0, "top1": 1.0, "top5": 1.0, "per_class": [1.0, 1.0]}
    assert evaluate(distilled, test, seed=0, settings=settings) == found
