"""What rewards are judged by: students of other seeds, with hand-computed values; and the scores themselves."""

import pandas as pd
import pytest
import torch
from davidbook import rewards
from davidbook.differences import best_of_others, comparisons, said, shown
from toy import noise_clips

from david import preset
from david.data.readers.motions import MOTION
from david.reward import TeacherReward
from david.support.files import read_json
from david.training import load_teacher


def record(seed, length, per_class):
    return {"seed": seed, "frames_per_segment": [length] * 2, "students": [{"per_class": per_class}] * 2}


# Seed -> L -> accuracies of two classes: L = 1 is best for class 0, L = 8 for class 1, but in seed 2 the other way.
TABLE = {0: {1: [0.8, 0.2], 8: [0.4, 0.6]}, 1: {1: [0.6, 0.2], 8: [0.4, 0.8]}, 2: {1: [0.1, 0.9], 8: [0.3, 0.1]}}
RECORDS = [record(seed, length, own) for seed, table in TABLE.items() for length, own in table.items()]


def test_a_seed_without_one_of_the_lengths_is_left_out():
    found = rewards.by_length([*RECORDS, record(3, 8, [0.0, 0.0])])
    assert list(found) == [0, 1, 2] and found[0].loc[8].tolist() == [40, 60] and found[1].index.tolist() == [1, 8]


def test_best_of_others_is_not_chosen_on_its_own_value():
    table = pd.DataFrame({"a": [9.0, 1.0, 1.0], "b": [2.0, 3.0, 3.0], "c": [0.0, 0.0, float("nan")]}, index=[4, 5, 6])
    assert best_of_others(table[["a", "b"]]).to_dict() == {4: 2.0, 5: 1.0, 6: 1.0}
    assert best_of_others(table).to_dict() == {4: 2.0, 5: 1.0}  # the seed that lacks one is out
    assert best_of_others(table.loc[[4]]).to_dict() == {4: 9.0}  # one seed: its own best


def test_the_ceiling_is_chosen_on_other_seeds():
    found = rewards.ceiling(rewards.by_length(RECORDS))
    # Seed 2: others have means [70, 20] at L = 1 and [40, 70] at L = 8, so L = 1 and 8 are chosen: 10 and 10.
    assert found.loc[2].to_dict() == pytest.approx({"best L of each class": 10, "best single L": 20})
    # Seed 0: others have [35, 55] and [35, 45]: the first of the two for class 0, so L = 1 for both.
    assert found.loc[0].to_dict() == pytest.approx({"best L of each class": 50, "best single L": 50})


def test_a_reward_is_judged_by_the_students_of_other_seeds():
    def score(seed, distance):
        rows = [{"iteration": 0, "L": length, "unbiased": [0, 1], "likelihood": [0, 1], "student": [0, 1]}
                | {"distance": own} for length, own in distance.items()]  # fmt: skip
        return {"seed": seed, "rows": rows}

    scores = [score(2, {1: [1.0, 3.0], 8: [2.0, 2.0]}), score(7, {1: [0.0, 0.0], 8: [0.0, 0.0]})]
    found = rewards.judged(scores, rewards.by_length(RECORDS)).set_index("reward")
    assert found["seed"].tolist() == [2] * 4  # no students of seed 7
    assert found.loc["Eq. 1", "policy"] == pytest.approx(70)  # nearest: L = 1 for class 0 and L = 8 for class 1
    assert found.loc["Eq. 1", "rank correlation"] == pytest.approx(1)
    assert found.loc["Eq. 1", "best single L"] == pytest.approx(55)


def test_comparisons_are_told_in_one_way():
    one = pd.Series({0: 1.0, 1: 2.0, 2: 3.0})
    gains = comparisons(
        {("a", "x", "y"): (one + 5, one), ("b", "x", "y"): (one, one + one)}, ["dataset", "row", "less"]
    )
    assert said(gains, "x", "y") == "a +5.0 (+5.0 to +5.0, n = 3); b -2.0 (-4.5 to +0.5, n = 3, not told apart)"
    assert said(gains, "x", "y", brief=True) == "+5.0 on a, -2.0 on b (not told apart)"
    assert said(gains, "x", "z") == "not run yet" and shown(gains)["told apart"].tolist() == ["yes", "no"]


def test_opinions_of_videos_that_are_real_clips(load):
    """At L = F the distance is Eq. 1's, the unbiased one lacks trace / n, and the likelihood is that of the label."""
    scores, train = load("scores"), noise_clips()
    teacher = load_teacher(train, seed=0, settings=preset("smoke").teacher)
    reward, variance = TeacherReward(teacher, train), torch.tensor([4.0, 6.0, 8.0])
    videos = torch.stack([train.batch(positions[:1]) for positions in train.by_class()])
    found = scores.opinions(reward, variance, videos, train.frames)
    distance = torch.tensor(found["distance"])
    assert torch.equal(distance, reward.distance(videos, torch.full((3,), train.frames)))
    assert found["unbiased"] == pytest.approx((distance**2 - variance).tolist(), rel=1e-5)
    whole = train.subset([int(positions[0]) for positions in train.by_class()])
    assert found["likelihood"] == pytest.approx(scores.log_likelihood(teacher, whole).tolist(), abs=1e-4)


def test_the_list_of_records_can_be_made_and_continues(load, tmp_path, monkeypatch):
    """A part, its scores and the oracle that waits for it, at smoke; given again, nothing is made anew."""
    records = load("records")
    small = {"classes": ("Disc", "MoveLeft", "MoveRight"), "clips_per_group": 1, "train_groups": 2, "test_groups": 1}
    monkeypatch.setattr(records, "mixed", lambda motion, seed: small)
    held = records.Part("held-out", records.every("dm"), ("motions",), range(1), held=True, scores=True, motion=2)
    monkeypatch.setattr(records, "PLAN", (held,))
    where, never = (str(tmp_path), None, "smoke"), float("inf")
    assert "4 of 4 records" in (told := records.unit(held, "motions", 0, (), where, never, ())) and "FAILED" not in told
    (score,) = tmp_path.glob("scores-heldout-motions-seed0-*.json")
    assert {row["L"] for row in read_json(score)["rows"]} == {1, 2, 4, 8} and not list(tmp_path.glob("*.safetensors"))
    own = records.opened(records.experiment(held, "motions", 0, *where, ()))
    lengths = records.best_lengths(own, "dm", (0,))
    assert len(lengths) == 3 and set(lengths) <= {1, 2, 4, 8} and records.best_lengths(own, "random", (0,)) is None
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    records.unit(held, "motions", 0, (), where, never, ())
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    broken = records.Part("broken", ("dm:3", "random"), ("motions",), motion=2)
    told = records.unit(broken, "motions", 0, (), where, never, ())
    assert "1 of 2 records" in told and "FAILED dm:3: ValueError" in told  # the other row is made all the same


def test_a_mixture_has_pairs_of_a_motion_and_its_reverse(load):
    for seed in range(4):
        for motion in (0, 2, 4, 6):
            options = load("records").mixed(motion, seed)
            moving = [name for name in options["classes"] if name in MOTION]
            assert options["seed"] == 1000 + seed and len(set(options["classes"])) == 6 and len(moving) == motion
            assert {MOTION.index(name) // 2 for name in moving[::2]} == {MOTION.index(n) // 2 for n in moving[1::2]}
