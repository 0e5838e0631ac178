"""Successive halving: its schedule, and who survives."""

import pytest
import torch

from david.baselines.halving import SuccessiveHalving


@pytest.mark.parametrize(
    ("actions", "budget", "schedule"),
    [
        (4, 48, [(0, 6)] * 4 + [(1, 12)] * 2),
        (5, 60, [(0, 4)] * 5 + [(1, 6)] * 3 + [(2, 10)] * 2),  # 20 iterations a round; 5, 3 and 2 survivors
        (2, 6, [(0, 3)] * 2),
        (1, 5, [(0, 5)]),
        (4, 1, [(0, 1)] * 4 + [(1, 1)] * 2),  # never less than an iteration
    ],
)
def test_schedule(actions, budget, schedule):
    assert SuccessiveHalving(3, actions, budget=budget).schedule == schedule


def play(agent, rewards):
    """All episodes, with the rewards (M, A) of each round; returns the actions (T, M)."""
    tried = []
    for k, _ in agent.schedule:
        chosen = agent.act()
        agent.update(chosen, torch.tensor(rewards[k])[torch.arange(len(chosen)), chosen])
        tried.append(chosen.tolist())
    return tried


def test_each_class_keeps_its_own_survivors():
    agent = SuccessiveHalving(2, 4, budget=8)
    first = [[0.1, 0.4, 0.2, 0.3], [0.9, 0.0, 0.0, 0.8]]
    last = [[1.0, 0.5, 1.0, 0.6], [0.7, 1.0, 1.0, 0.6]]  # in round 1 the order of the survivors turns round for class 0
    tried = play(agent, [first, last])
    assert tried == [[0, 0], [1, 1], [2, 2], [3, 3], [1, 0], [3, 3]]
    assert agent.policy().tolist() == [3, 0]
    assert agent.mean_reward()[0].tolist() == pytest.approx([0.1, 0.45, 0.2, 0.45])
    assert agent.visits.tolist() == [[1, 2, 1, 2], [2, 1, 1, 2]]


def test_the_best_of_a_known_reward_wins():
    rewards = torch.rand(50, 5, generator=torch.Generator().manual_seed(0)).tolist()
    agent = SuccessiveHalving(50, 5, budget=30)
    play(agent, [rewards] * 3)
    assert agent.policy().tolist() == torch.tensor(rewards).argmax(1).tolist()
