import pytest
import torch

from david.qlearning import QLearner, SharedQLearner, hit_rate


def learner(seed=0, **kwargs):
    return QLearner(1, 2, generator=torch.Generator().manual_seed(seed), **kwargs)


def test_equation_2_by_hand():
    q = learner(alpha=0.1, gamma=0.5)
    q.q[0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # state 1 (full resolution) is the first state
    q.update(torch.tensor([0]), torch.tensor([0.7]))
    # Q(1, 0) = 3 + 0.1 * (0.7 + 0.5 * max(Q(0, .)) - 3) = 3 + 0.1 * (0.7 + 1 - 3)
    assert q.q[0, 1, 0].item() == pytest.approx(2.87)
    assert q.state.tolist() == [0]
    assert q.visits.tolist() == [[1, 0]]


def test_equation_3_exploits_with_probability_p():
    q = QLearner(20_000, 4, p=0.7, generator=torch.Generator().manual_seed(0))
    q.q[:, :, 2] = 1.0
    share = (q.act() == 2).float().mean().item()
    assert share == pytest.approx(0.7 + 0.3 / 4, abs=0.01)


def test_warm_up_tries_every_action_in_rounds():
    q = learner(warmup=2)
    seen = []
    for _ in range(4):
        action = q.act()
        seen.append(action.item())
        q.update(action, torch.tensor([0.5]))
    assert seen == [0, 1, 0, 1]
    assert q.visits.tolist() == [[2, 2]]


def test_mean_read_out_ignores_visit_counts():
    q = learner(readout="mean")
    for action, reward in [(0, 0.3), (0, 0.3), (0, 0.3), (1, 0.4)]:
        q.update(torch.tensor([action]), torch.tensor([reward]))
    torch.testing.assert_close(q.mean_reward(), torch.tensor([[0.3, 0.4]], dtype=torch.float64), atol=1e-7, rtol=0)
    assert q.policy().tolist() == [1]


def test_an_action_never_tried_is_never_read_out():
    q = learner(readout="mean")
    q.update(torch.tensor([1]), torch.tensor([-5.0]))
    assert q.policy().tolist() == [1]


def test_classes_do_not_touch_each_other():
    q = QLearner(2, 2, generator=torch.Generator().manual_seed(0))
    q.update(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))
    assert q.q[0].tolist() == [[0, 0], [pytest.approx(0.1), 0]]
    assert q.q[1].tolist() == [[0, 0], [0, pytest.approx(0.2)]]


def test_ties_are_broken_at_random():
    q = QLearner(1000, 4, p=1.0, generator=torch.Generator().manual_seed(0))
    assert q.act().bincount().min() > 200


@pytest.mark.parametrize("readout", ["q", "mean"])
@pytest.mark.parametrize("kind", [QLearner, SharedQLearner])
def test_the_policy_may_be_asked_for_at_any_time(kind, readout):
    """Of two that draw from the same stream, one is asked after every episode: both act alike, and it answers alike."""
    asked, left = (kind(50, 4, p=0.5, readout=readout, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for t in range(8):
        first = asked.policy()
        assert torch.equal(asked.policy(), first)
        assert t or readout == "mean" or kind is SharedQLearner or len(set(first.tolist())) == 4  # ties, at random
        actions = asked.act()
        assert torch.equal(actions, left.act())
        for learner in (asked, left):
            learner.update(actions, actions.float() / 4)
    assert torch.equal(asked.policy(), left.policy())


def test_unknown_read_out():
    with pytest.raises(ValueError, match="readout"):
        learner(readout="best")


@pytest.mark.parametrize("reward", [0.2, 0.9])
def test_from_above_all_that_can_be_gained_what_was_tried_disappoints(reward):
    q = QLearner(1000, 3, p=1.0, q_start=2, generator=torch.Generator().manual_seed(0))
    q.update(torch.full((1000,), 2), torch.full((1000,), reward))  # from L = F to L = F
    torch.testing.assert_close(q.q[:, 2, 2], torch.full((1000,), 2 + 0.1 * (reward + 0.5 * 2 - 2)))
    assert (q.q == 2).sum() == 8 * 1000
    assert set(q.act().tolist()) == {0, 1}


def test_hit_rate_wants_every_action_tried():
    means = torch.tensor([[0.1, float("nan")]])
    with pytest.raises(ValueError, match="some were never tried"):
        hit_rate(means, torch.zeros(1, 2), episodes=4, trials=1, generator=torch.Generator())


def test_one_table_for_all_classes_learns_from_their_mean():
    q = SharedQLearner(3, 2, alpha=0.1, gamma=0.0, warmup=1, readout="mean", generator=torch.Generator())
    for rewards in ([0.0, 0.3, 0.9], [0.1, 0.1, 0.1]):
        chosen = q.act()
        assert chosen.shape == (3,) and len(set(chosen.tolist())) == 1
        q.update(chosen, torch.tensor(rewards))
    assert q.q.shape == (1, 2, 2)
    assert q.mean_reward().tolist() == [pytest.approx([0.4, 0.1])] * 3
    assert q.policy().tolist() == [0, 0, 0]
