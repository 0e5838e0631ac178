"""Eq. 1 by hand, on the partitioned clips, in its three kinds."""

import numpy as np
import pytest
import torch
from toy import clips_of, noise_clips

from david.reward import TeacherReward
from david.support.pixels import MEAN, STD, normalise


class CornerTeacher:
    """Features are the brightness, 0-255, of one corner of the first frame and of the last: by hand and linear."""

    def embed(self, clips):
        corners = clips[:, [0, -1], 0, 0, 0]
        return (corners * STD[0] + MEAN[0]) * 255


class LinearTeacher:
    """Every value of a clip counts, each with its own weight."""

    def __init__(self, shape):
        self.weight = torch.randn(*shape, 5, generator=torch.Generator().manual_seed(0))

    def embed(self, clips):
        return torch.tensordot(clips, self.weight, 4)


def corner_videos(first, last):
    """uint8 (N, 8, 2, 2, 3): first frames and last frames of these brightnesses."""
    videos = np.zeros((len(first), 8, 2, 2, 3), dtype=np.uint8)
    videos[:, 0], videos[:, -1] = (np.array(values)[:, None, None, None] for values in (first, last))
    return videos


@pytest.fixture
def real():
    """Two classes, alternating, whose mean features are (3, 4) and (6, 8): norms 5 and 10."""
    return clips_of(corner_videos([2, 5, 4, 7], [4, 7, 4, 9]), [0, 1, 0, 1])


def distances(real, kind="paper"):
    """Of synthetic videos whose mean features are (0, 4) and, in two stored videos, (6, 8)."""
    reward = TeacherReward(CornerTeacher(), real, kind)
    synthetic = normalise(torch.from_numpy(corner_videos([0, 0, 4, 8], [3, 5, 8, 8]))).reshape(2, 2, 8, 3, 2, 2)
    return reward, reward.distance(synthetic, torch.tensor([8, 8]))


def test_equation_1_by_hand(real):
    reward, distance = distances(real)
    torch.testing.assert_close(reward.real, torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
    torch.testing.assert_close(distance, torch.tensor([3.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(reward(distance, distance), torch.tensor([0.25, 1.0]), atol=1e-4, rtol=0)


def test_kinds_by_hand(real):
    distance, start = torch.tensor([5.0, 0.0]), torch.tensor([9.0, 3.0])
    expected = {
        "paper": [1 / 6, 1],
        "relative": [1 / (1 + 5 / 5), 1],
        "gain": [1 / 6 - 1 / 10, 1 - 1 / 4],
    }
    for kind, values in expected.items():
        reward = TeacherReward(CornerTeacher(), real, kind)
        torch.testing.assert_close(reward(distance, start), torch.tensor(values))
    assert TeacherReward(CornerTeacher(), real).kind == "paper"


def test_relative_has_no_scale(real):
    doubled = clips_of(corner_videos([4, 10, 8, 14], [8, 14, 8, 18]), [0, 1, 0, 1])
    rewards = [TeacherReward(CornerTeacher(), train, "relative") for train in (real, doubled)]
    distance = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(rewards[0](distance, distance), rewards[1](2 * distance, distance))


@pytest.mark.parametrize("chunk", [3, 128])
def test_distance_is_that_of_the_partitioned_clips(monkeypatch, chunk):
    monkeypatch.setattr("david.data.clips.CHUNK", chunk)
    train = noise_clips()
    teacher, policy = LinearTeacher((8, 3, 48, 48)), [1, 2, 8]
    videos = torch.randn(3, 2, 8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    got = TeacherReward(teacher, train).distance(videos, torch.tensor(policy))
    whole = TeacherReward(teacher, train).distance(videos, torch.tensor([8, 8, 8]))

    for c, length in enumerate(policy):
        repeats = 8 // length
        clips = []
        for video in videos[c]:
            for segment in range(repeats):
                clips.append(torch.stack([video[segment * length + t // repeats] for t in range(8)]))
        synthetic = teacher.embed(torch.stack(clips)).mean(0)
        mean = torch.stack([teacher.embed(train.batch([i]))[0] for i in train.by_class()[c]]).mean(0)
        expected = (synthetic - mean).square().sum().sqrt()
        torch.testing.assert_close(got[c], expected, rtol=1e-4, atol=0)
    assert got[2] == whole[2] and not torch.isclose(got[:2], whole[:2], rtol=1e-2).any()


def test_unknown_kind(real):
    with pytest.raises(ValueError, match="unknown reward 'papre'; choose one of paper, relative, gain"):
        TeacherReward(CornerTeacher(), real, "papre")
