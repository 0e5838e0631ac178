"""Successive halving over temporal resolutions: a best-arm search of the budget that Q-learning has."""

import math

import torch


class SuccessiveHalving:
    """All actions compete for a few iterations, the better half of them for about twice as many, and so on to the last.

    Every class keeps survivors of its own; all classes play in the same episode. Rewards are compared only within a
    round, where all survivors have had the same number of iterations (Jamieson and Talwalkar, 2016).

    Args:
        num_classes: M.
        num_actions: |A|; actions are indices into the action set.
        budget: iterations in all, shared equally by the rounds; an episode has at least one.

    Attributes:
        schedule: one (round, iterations) for each episode.
    """

    def __init__(self, num_classes: int, num_actions: int, *, budget: int):
        rounds = max(1, math.ceil(math.log2(num_actions)))
        sizes = [math.ceil(num_actions / 2**k) for k in range(rounds)]
        self.schedule = [(k, max(1, budget // (rounds * n))) for k, n in enumerate(sizes) for _ in range(n)]
        self.survivors = torch.arange(num_actions).expand(num_classes, -1)
        self.rewards = torch.empty(num_classes, 0)  # of this round's survivors so far
        self.reward_sum = torch.zeros(num_classes, num_actions, dtype=torch.float64)
        self.visits = torch.zeros(num_classes, num_actions, dtype=torch.int64)

    def act(self) -> torch.Tensor:
        """The next action of every class, int64 (M,)."""
        if self.rewards.shape[1] == self.survivors.shape[1]:
            best = self.rewards.topk(math.ceil(self.survivors.shape[1] / 2)).indices.sort().values
            self.survivors, self.rewards = self.survivors.gather(1, best), self.rewards[:, :0]
        return self.survivors[:, self.rewards.shape[1]]

    def update(self, actions: torch.Tensor, rewards: torch.Tensor) -> None:
        """Take in the rewards, float (M,), of ``actions``, int64 (M,), what ``act`` returned."""
        rows = torch.arange(len(actions))
        self.rewards = torch.cat([self.rewards, rewards[:, None]], 1)
        self.reward_sum[rows, actions] += rewards
        self.visits[rows, actions] += 1

    def policy(self) -> torch.Tensor:
        """The action of largest reward in the current round, int64 (M,): after the last episode, the winner."""
        best = self.rewards.argmax(1, keepdim=True)
        return self.survivors.gather(1, best)[:, 0]

    def mean_reward(self) -> torch.Tensor:
        """Mean of an action's rewards over its rounds, float64 (M, A): for display, since rounds differ in length."""
        return self.reward_sum / self.visits
