import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from david.partition import action_set, given_policy, num_segments, partition


def test_by_hand():
    video = torch.tensor([[10, 20, 30, 40], [50, 60, 70, 80]])
    assert partition(video, 4).tolist() == video.tolist()
    assert partition(video, 2).tolist() == [[10, 10, 20, 20], [30, 30, 40, 40], [50, 50, 60, 60], [70, 70, 80, 80]]
    assert partition(video[:1], 1).tolist() == [[10] * 4, [20] * 4, [30] * 4, [40] * 4]


def test_action_sets_of_the_two_tracks():
    assert action_set(16) == (1, 2, 4, 8, 16)
    assert action_set(8) == (1, 2, 4, 8)


@pytest.mark.parametrize("length", [0, 3, 5, 16])
def test_length_must_divide(length):
    with pytest.raises(ValueError, match=r"choose one of \(1, 2, 4, 8\)"):
        num_segments(8, length)


@given(videos=st.integers(1, 3), frames=st.sampled_from([4, 8, 12]), data=st.data())
def test_every_frame_appears_n_times_in_order(videos, frames, data):
    length = data.draw(st.sampled_from(action_set(frames)))
    n = frames // length
    clips = partition(torch.arange(videos * frames).reshape(videos, frames), length)
    assert clips.shape == (videos * n, frames)
    assert clips.flatten().tolist() == torch.arange(videos * frames).repeat_interleave(n).tolist()


def test_adjoint_sums_the_copies():
    video = torch.zeros(1, 4, 2, requires_grad=True)
    partition(video, 2).sum().backward()
    assert torch.equal(video.grad, torch.full((1, 4, 2), 2.0))


def test_given_policy():
    given = {"num_classes": 3, "frames": 8, "seed": 0}
    assert given_policy(None, **given).tolist() == [8, 8, 8]
    assert given_policy((2,), **given).tolist() == [2, 2, 2]
    assert given_policy((1, 8, 4), **given).tolist() == [1, 8, 4]
    drawn = given_policy("any", **given | {"num_classes": 4000})
    assert torch.equal(drawn, given_policy("any", **given | {"num_classes": 4000}))
    assert not torch.equal(drawn, given_policy("any", **given | {"num_classes": 4000, "seed": 1}))
    assert drawn.unique(return_counts=True)[1].tolist() == pytest.approx([1000] * 4, abs=100)
    with pytest.raises(ValueError, match="a policy of 2 lengths does not fit 3 classes"):
        given_policy((1, 2), **given)
    with pytest.raises(ValueError, match="frames_per_segment=3 does not divide"):
        given_policy((3,), **given)
