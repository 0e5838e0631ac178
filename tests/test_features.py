"""Distances, coverage and precision by hand; one map for all points; clips of a set as a student gets them."""

import numpy as np
import pytest
import torch
from davidbook import features
from test_reward import CornerTeacher, LinearTeacher
from toy import noise_clips

from david.c3d import C3D
from david.matching import start_videos
from david.partition import partition
from david.reward import TeacherReward
from david.sets import DistilledSet
from david.support.seeds import generator


def line(*places):
    """Features on a line."""
    return torch.tensor(places, dtype=torch.float32)[:, None]


REAL = line(0, 1, 3, 7)  # with k = 1 their radii are 1, 1, 2 and 4


@pytest.mark.parametrize(
    ("synthetic", "k", "coverage", "precision"),
    [
        (line(0.5), 1, 2 / 4, 1),  # in the balls of 0 and 1
        (line(0.5, 5.5), 1, 3 / 4, 1),  # and 5.5 in that of 7
        (line(0.5, -5, 90), 1, 2 / 4, 1 / 3),
        (line(2), 1, 1 / 4, 1),  # at the border of 1's ball: not nearer than its neighbour
        (line(0, 1, 3, 7), 1, 1, 1),
        (line(5), 2, 2 / 4, 1),  # radii 3, 2, 3 and 6
        (line(-50), 3, 0, 0),
    ],
)
def test_coverage_and_precision_by_hand(synthetic, k, coverage, precision):
    assert features.coverage_and_precision(REAL, synthetic, k) == pytest.approx((coverage, precision))


def test_coverage_does_not_depend_on_scale_or_place():
    random = torch.Generator().manual_seed(0)
    real, synthetic = torch.randn(40, 6, generator=random), torch.randn(9, 6, generator=random)
    expected = features.coverage_and_precision(real, synthetic, 5)
    assert features.coverage_and_precision(100 * real + 7, 100 * synthetic + 7, 5) == expected
    assert 0 < expected[0] < 1


@pytest.mark.parametrize("k", [0, 4])
def test_a_neighbour_that_does_not_exist(k):
    with pytest.raises(ValueError, match=rf"a class of 4 real clips has no {k}-th neighbour; choose 1 to 3"):
        features.coverage_and_precision(REAL, line(1), k)


def test_measure_by_hand():
    train = [line(0, 2), line(10, 14)]  # means 1 and 12
    test = [REAL, REAL + 10]
    table = features.measure(train, test, [line(0.5, 5.5), line(13)], k=1)  # means 3 and 13, 8 between them
    assert table["distance"].tolist() == [2, 1]
    assert table["eccentricity"].tolist() == [5, 5]
    assert table["coverage"].tolist() == [3 / 4, 1 / 4]  # 13 lies on 13, and at the border of 17's ball
    assert table["precision"].tolist() == [1, 1]
    assert table["clips"].tolist() == [2, 1]


def test_eccentricity_by_hand():
    means = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])  # around (2, 2)
    torch.testing.assert_close(features.eccentricity(means), torch.tensor([8.0, 20.0, 20.0]).sqrt())


def test_features_of_real_clips_come_class_by_class():
    clips = noise_clips()
    net = LinearTeacher((8, 3, 48, 48))
    found = features.real_features(net, clips)
    for own, positions in zip(found, clips.by_class(), strict=True):
        torch.testing.assert_close(own, net.embed(clips.batch(positions)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [3, 128])
def test_features_of_a_set_are_those_of_its_partitioned_clips(monkeypatch, chunk):
    monkeypatch.setattr(features, "CHUNK", chunk)
    net = C3D(3, 8, 48, 0.125).reset(generator(0)).eval()
    videos = torch.randn(3, 2, 8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    data = DistilledSet(videos, torch.tensor([1, 4, 8]), ["a", "b", "c"])
    found = features.set_features(net, data)
    assert [len(own) for own in found] == [16, 4, 2]
    with torch.no_grad():
        for own, video, length in zip(found, videos, (1, 4, 8)):
            torch.testing.assert_close(own, net.embed(partition(video, length)), rtol=1e-4, atol=1e-5)


def test_the_distance_is_that_of_the_reward():
    train = noise_clips()
    net = C3D(3, 8, 48, 0.125).reset(generator(0)).eval()
    videos = torch.randn(3, 1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    policy = torch.tensor([2, 1, 8])
    expected = TeacherReward(net, train).distance(videos, policy)
    real = features.real_features(net, train)
    found = features.set_features(net, DistilledSet(videos, policy, ["a", "b", "c"]))
    distance = torch.tensor(features.measure(real, real, found, 1)["distance"])
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=0)


def test_as_many_real_clips_begin_with_the_one_that_random_stores():
    train = noise_clips(labels=[0, 1] * 6)
    real = features.real_features(CornerTeacher(), train)
    found = features.as_many(real, [1, 4], seed=3)
    assert [len(own) for own in found] == [1, 4]
    assert len(found[1].unique(dim=0)) == 4 and all((real[1] == row).all(1).any() for row in found[1])
    stored = start_videos(train, torch.tensor([8, 8]), ipc=1, seed=3, kind="real")
    torch.testing.assert_close(found[0], CornerTeacher().embed(stored[0]))
    assert any(not torch.equal(features.as_many(real, [4, 4], seed=s)[1], found[1]) for s in range(3))


def test_a_map_has_every_point_of_every_group():
    near = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    groups = near, near[:3] + 100, near[:1]
    placed, again = features.tsne(*groups), features.tsne(*groups)
    assert [part.shape for part in placed] == [(20, 2), (3, 2), (1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(placed, again))
    gaps = np.linalg.norm(placed[0] - placed[2], axis=1)
    assert gaps.argmin() == 0  # the same point twice: placed beside itself
    assert not np.array_equal(features.tsne(*groups, perplexity=3)[0], placed[0])
