"""Three lines: from a dataset to the accuracy of its distilled set."""

import pytest
import torch

import david

QUICK = {"width": 0.125, "distill_iterations": 1, "search_episodes": 4, "teacher_steps": 1}


def test_three_lines(root, tmp_path):
    train, test = david.open_dataset("ucf101", root=root, preset="smoke", device="cpu", flip=False)
    small = david.distill(train, method="david", ipc=1, preset="smoke", seed=3, work=tmp_path, **QUICK)
    score = david.evaluate(small, test, students=2, preset="smoke", width=0.125, student_steps=1)
    assert (len(train), len(test), train.frames, train.size) == (4, 2, 8, 48)
    assert small.videos.shape == (2, 1, 8, 3, 48, 48) and small.info["method"] == "david" and small.info["seed"] == 3
    assert set(score) == {"top1", "top1_std", "top5", "top5_std", "per_class"} and list(score["per_class"]) == [
        "A",
        "B",
    ]
    assert score["top5"] == 1 and score["top1"] == pytest.approx(sum(score["per_class"].values()) / 2)
    assert score == david.evaluate(small, test, students=2, preset="smoke", width=0.125, student_steps=1)
    again = david.load_set(small.save(tmp_path / "small.safetensors"))
    assert torch.equal(again.videos, small.videos)


def test_wrong_words_are_named(root):
    train, test = david.open_dataset("ucf101", root=root, preset="smoke", device="cpu")
    with pytest.raises(ValueError, match=r"unknown method 'davdi'.* did you mean 'david'"):
        david.distill(train, method="davdi", preset="smoke")
    with pytest.raises(ValueError, match="unknown preset 'dmeo'"):
        david.open_dataset("ucf101", root=root, preset="dmeo")
    small = david.distill(train, method="random", preset="smoke")
    with pytest.raises(ValueError, match="students=0: at least 1 is trained"):
        david.evaluate(small, test, students=0)
