"""Tabular Q-learning over temporal resolutions, Eq. 2 and 3: one table a class, all classes in one pass."""

import torch


class QLearner:
    """One Q-table (state x action) for each class; the state is the temporal resolution applied last.

    The rule of the paper is ``warmup=0, readout="q"``: an action is exploited with probability p (Eq. 3), and the
    policy read out is the best action in the last state (Algorithm 1, line 21). It does not say where Q starts. From
    zero, as rewards are positive, the first action tried is reinforced before any other is seen.
    ``warmup`` therefore tries every action that many times first, and ``readout="mean"`` returns the action of the
    largest mean reward instead.

    Args:
        num_classes: M.
        num_actions: |A|; actions and states are indices into the action set.
        alpha: learning rate of Eq. 2.
        gamma: discount of Eq. 2.
        p: exploitation probability of Eq. 3.
        warmup: rounds over all actions before Eq. 3 takes over.
        readout: "q" or "mean".
        q_start: what all of Q starts from. From the largest reward / (1 - gamma) or more, what is tried disappoints,
            so that in each state every other action comes next.
        generator: source of all randomness (CPU).

    Attributes:
        q: float (M, S, A).
        visits: int64 (M, A), how often each action was tried.
        reward_sum: float64 (M, A).
    """

    def __init__(
        self, num_classes, num_actions, *, alpha=0.1, gamma=0.5, p=0.7, warmup=0, readout="q", q_start=0.0, generator
    ):
        if readout not in ("q", "mean"):
            raise ValueError(f"readout={readout!r} is unknown; choose 'q' or 'mean'")
        self.q = torch.full((num_classes, num_actions, num_actions), float(q_start))
        self.visits = torch.zeros(num_classes, num_actions, dtype=torch.int64)
        self.reward_sum = torch.zeros(num_classes, num_actions, dtype=torch.float64)
        # S_0 is full resolution, L = F, the last action: the video before any partition.
        self.state = torch.full((num_classes,), num_actions - 1)
        self.episode = 0
        self.alpha, self.gamma, self.p = alpha, gamma, p
        self.warmup, self.readout, self.generator = warmup, readout, generator

    def act(self) -> torch.Tensor:
        """The next action of every class, int64 (M,): Eq. 3, or the warm-up's next action for all classes."""
        classes, _, actions = self.q.shape
        if self.episode < self.warmup * actions:
            return torch.full((classes,), self.episode % actions)
        exploit = torch.rand(classes, generator=self.generator) < self.p
        random = torch.randint(actions, (classes,), generator=self.generator)
        return torch.where(exploit, self._greedy(self.generator), random)

    def update(self, actions: torch.Tensor, rewards: torch.Tensor) -> None:
        """Eq. 2 for every class at once, with S_{t+1} = A_t.

        Args:
            actions: int64 (M,), what ``act`` returned.
            rewards: float (M,), R_{t+1}.
        """
        rows = torch.arange(len(actions))
        target = rewards + self.gamma * self.q[rows, actions].amax(1)
        self.q[rows, self.state, actions] += self.alpha * (target - self.q[rows, self.state, actions])
        self.visits[rows, actions] += 1
        self.reward_sum[rows, actions] += rewards
        self.state = actions
        self.episode += 1

    def policy(self) -> torch.Tensor:
        """The action of every class that the read-out favours, int64 (M,); to ask for it changes nothing.

        Ties are broken by what the generator would draw next.
        """
        same = torch.Generator().set_state(self.generator.get_state())
        return self._greedy(same) if self.readout == "q" else self.mean_reward().argmax(1)

    def mean_reward(self) -> torch.Tensor:
        """Sample mean of the rewards, float64 (M, A); -inf where an action was never tried."""
        mean = self.reward_sum / self.visits.clamp(min=1)
        return mean.masked_fill(self.visits == 0, -torch.inf)

    def _greedy(self, generator: torch.Generator) -> torch.Tensor:
        # argmax would break the ties of the first table towards the lowest index, L = 1: break them at random.
        values = self.q[torch.arange(len(self.q)), self.state]
        noise = torch.rand(values.shape, generator=generator)
        return torch.where(values == values.amax(1, keepdim=True), noise, -1.0).argmax(1)


class SharedQLearner(QLearner):
    """One Q-table for all classes, rewarded by their mean: one learned L for all, Case B of Table 4."""

    def __init__(self, num_classes: int, num_actions: int, **options):
        super().__init__(1, num_actions, **options)
        self.num_classes = num_classes

    def act(self) -> torch.Tensor:
        return super().act().expand(self.num_classes)

    def update(self, actions: torch.Tensor, rewards: torch.Tensor) -> None:
        super().update(actions[:1], rewards.mean()[None])

    def policy(self) -> torch.Tensor:
        return super().policy().expand(self.num_classes)

    def mean_reward(self) -> torch.Tensor:
        return super().mean_reward().expand(self.num_classes, -1)


def hit_rate(mean: torch.Tensor, std: torch.Tensor, *, episodes: int, trials: int, generator, **rule) -> float:
    """How often a rule reads out the best action, in a simulated environment of known rewards.

    Args:
        mean, std: float (M, A), mean and standard deviation of each class's reward for each action.
        episodes: T.
        trials: repetitions for each class.
        generator: source of all randomness (CPU).
        rule: arguments of ``QLearner``.

    Raises:
        ValueError: a mean that is not finite.

    Returns:
        share of the M * trials learners whose policy is the action of largest mean reward.
    """
    if not mean.isfinite().all():
        raise ValueError("hit_rate takes a mean reward for every class and action; some were never tried")
    mean, std = mean.repeat(trials, 1), std.repeat(trials, 1)
    rows = torch.arange(len(mean))
    learner = QLearner(*mean.shape, generator=generator, **rule)
    for _ in range(episodes):
        actions = learner.act()
        noise = torch.randn(len(mean), generator=generator)
        learner.update(actions, (mean[rows, actions] + std[rows, actions] * noise).float())
    return (learner.policy() == mean.argmax(1)).double().mean().item()
