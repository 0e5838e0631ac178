"""The search finds what a known reward favours, and goes on after an interruption without redoing an episode."""

import pytest
import torch
from toy import noise_clips

from david.algorithm import learn_policy
from david.runs.costs import expected_costs, search_costs
from david.runs.settings import RULES, preset
from david.support.files import read_json

BEST = (1, 2, 8, 4, 8, 1)  # the best L of six classes


class KnownReward:
    """Largest at the L of BEST, with a little noise that differs from episode to episode."""

    identity = "known"

    def __init__(self, noise=0.0, raise_at=None):
        self.noise, self.raise_at = torch.Generator().manual_seed(7), raise_at
        self.scale, self.episodes, self.begun = noise, 0, False

    def distance(self, videos, policy):
        if not self.begun and self.episodes == self.raise_at:
            raise KeyboardInterrupt
        self.episodes += self.begun  # called twice an episode: before the first iteration and after the last
        self.begun = not self.begun
        return (policy.log2() - torch.tensor(BEST).log2()).abs() + self.scale * videos.mean((1, 2, 3, 4, 5))

    def __call__(self, distance, start):
        noise = self.scale * torch.randn(len(distance), generator=self.noise)
        return 0.2 - 0.01 * distance + noise


class FakeDistiller:
    """In place of the real one: counts its steps and keeps what it was asked for."""

    made = []

    def __init__(self, train, policy, *, ipc, seed, settings, classes, experts):
        self.policy, self.seed, self.ipc, self.steps = policy.tolist(), seed, ipc, 0
        self.videos = torch.randn(len(policy), 1, 1, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
        self.made.append(self)

    def step(self):
        self.steps += 1

    def distilled(self):
        return self.videos + self.steps


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr("david.algorithm.Distiller", FakeDistiller)
    monkeypatch.setattr(FakeDistiller, "made", [])
    return FakeDistiller.made


@pytest.fixture(scope="module")
def train():
    return noise_clips(labels=range(len(BEST)))


def settings(**changes):
    own = {"search_warmup": 2, "search_readout": "mean", "search_episodes": 10, "distill_range": "free"}
    return preset("smoke", **own | changes)


def search(train, reward, *, seed=0, work=None, **changes):
    return learn_policy(train, reward, ipc=1, seed=seed, settings=settings(**changes).algorithm, work=work)


def untimed(episodes):
    """The episodes without their seconds, which no second run repeats."""
    return [{name: value for name, value in episode.items() if name != "seconds"} for episode in episodes]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_warm_up_rule_finds_the_best_action_of_every_class(train, made, seed):
    found = search(train, KnownReward(noise=0.001), seed=seed)
    assert found.policy.tolist() == list(BEST)
    assert found.actions == (1, 2, 4, 8)


def test_result_holds_every_episode(train, made):
    found = search(train, KnownReward(), search_episodes=9, search_beta=0.1, distill_iterations=30)
    assert len(found.episodes) == len(made) == 9
    assert [e["frames_per_segment"] for e in found.episodes] == [d.policy for d in made]
    assert [e["frames_per_segment"] for e in found.episodes[:8]] == [[length] * 6 for length in (1, 2, 4, 8)] * 2
    assert {d.steps for d in made} == {3} and {d.ipc for d in made} == {1}  # Eq. 5
    for c, best in enumerate(BEST):
        for a, length in enumerate((1, 2, 4, 8)):
            distance = abs(torch.tensor(length / best).log2().item())
            assert found.mean_reward[c, a].item() == pytest.approx(0.2 - 0.01 * distance)
    assert found.episodes[0]["start"] == found.episodes[0]["distance"] == [0, 1, 3, 2, 3, 0]
    assert found.episodes[0]["reward"] == pytest.approx([0.2, 0.19, 0.17, 0.18, 0.17, 0.2])


def test_an_episode_is_rewarded_for_what_would_be_stored(train, made, tmp_path):
    seen = []

    class Seen(KnownReward):
        def distance(self, videos, policy):
            seen.append(videos)
            return super().distance(videos, policy)

    one = settings(search_warmup=0, search_episodes=1, search_beta=1.0, distill_iterations=3)
    learn_policy(train, Seen(), ipc=1, seed=0, settings=one.algorithm)
    (distiller,) = made
    assert torch.equal(seen[0], distiller.videos) and torch.equal(seen[1], distiller.videos + 3) and len(seen) == 2


def test_the_papers_rule_repeats_what_it_tried_first(train, made):
    """Rewards are positive and Q starts at 0: at p = 1 no state ever sees a second action."""
    changes = {"search_warmup": 0, "search_readout": "q", "search_p": 1.0, "search_gamma": 0.0}
    found = search(train, KnownReward(), **changes, search_episodes=12)
    tried = [[8] * 6] + [episode["frames_per_segment"] for episode in found.episodes]  # S_0 is full resolution
    assert len(set(tried[1])) > 1  # no warm-up: each class goes its own way
    for c in range(6):
        first = {}
        for t in range(12):
            assert tried[t + 1][c] == first.setdefault(tried[t][c], tried[t + 1][c])
        assert found.policy[c] == first.get(tried[12][c], found.policy[c])
    assert found.policy.tolist() != list(BEST)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_interrupted_search_goes_on_where_it_was(train, made, tmp_path, after):
    changes = {"search_warmup": 1, "search_p": 0.5}
    whole = search(train, KnownReward(), **changes)
    made.clear()
    work, journal = tmp_path, tmp_path / "search.json"
    with pytest.raises(KeyboardInterrupt):
        search(train, KnownReward(raise_at=after), work=work, **changes)
    assert len(read_json(journal)["episodes"] if journal.exists() else []) == after
    made.clear()
    resumed = search(train, KnownReward(), work=work, **changes)
    assert len(made) == 10 - after
    assert untimed(resumed.episodes) == untimed(whole.episodes) == untimed(read_json(journal)["episodes"])
    assert torch.equal(resumed.policy, whole.policy) and torch.equal(resumed.mean_reward, whole.mean_reward)
    made.clear()
    assert search(train, KnownReward(), work=work, **changes).episodes == resumed.episodes and not made
    with pytest.raises(ValueError, match=r"search\.json is the journal of another search"):
        search(train, KnownReward(), seed=1, work=work, **changes)


def test_episodes_of_one_warm_up_round_share_their_noise(train):
    """Seen through the real distiller: the videos before the first iteration."""
    starts = []

    class Seen(KnownReward):
        def distance(self, videos, policy):
            if not self.begun:
                starts.append(videos.clone())
            return super().distance(videos, policy)

    search(train, Seen(), distill_start="noise", width=0.05)
    for first in (0, 4):
        for t in range(first + 1, first + 4):
            assert torch.equal(starts[first], starts[t])
    firsts = [starts[t].flatten()[0].item() for t in (0, 4, 8, 9)]
    assert len(starts) == 10 and len(set(firsts)) == 4


def test_same_seed_same_search(train, made):
    runs = [untimed(search(train, KnownReward(0.001), seed=seed, search_warmup=0).episodes) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_episodes_say_what_they_cost(train, made):
    """Six classes of one real clip; the passes of one episode at L = 1, 2, 4, 8 of 8 frames, by hand."""
    changes = {"search_warmup": 1, "search_episodes": 0, "distill_iterations": 30, "search_beta": 0.1}
    episodes = search(train, KnownReward(), **changes).episodes
    assert [e["iterations"] for e in episodes] == [3] * 4  # search_episodes = 0: the warm-up alone
    assert [e["backward"] for e in episodes] == [3 * 6 * n for n in (8, 4, 2, 1)]
    assert [e["forward"] for e in episodes] == [3 * 6 + 2 * 6 * n for n in (8, 4, 2, 1)]
    assert all(e["seconds"] >= 0 for e in episodes)


def test_without_an_early_stage_the_start_is_rewarded(train, made):
    found = search(train, KnownReward(), **RULES["start"], search_episodes=9)
    assert {d.steps for d in made} == {0} and found.policy.tolist() == list(BEST)
    assert all(e["distance"] == e["start"] and e["iterations"] == e["backward"] == 0 for e in found.episodes)
    assert [e["forward"] for e in found.episodes[:4]] == [6 * n for n in (8, 4, 2, 1)]
    with pytest.raises(
        ValueError, match="search_beta=0 rewards videos as they start, so it needs distill_start='real' or 'mean'"
    ):
        search(train, KnownReward(), **RULES["start"], distill_start="noise")


def test_expected_costs_are_those_of_a_search_that_tries_all_alike(train, made):
    """Of one class with one real clip a batch: 8 + 4 + 2 + 1 = 15 clips a round over the actions."""
    changes = {"search_warmup": 2, "search_episodes": 8, "distill_iterations": 30, "search_beta": 0.1}
    one = settings(**changes, distill_batch_real=1)
    expected = expected_costs(one, ipc=1)
    assert expected["episodes"] == 8 and expected["iterations"] == 24
    assert expected["evaluations"] == 24 + 2 * 2 * 15 + 3 * 2 * 15
    spent = search_costs(search(train, KnownReward(), **changes).episodes, one)
    assert spent["flops"] == pytest.approx(6 * expected["flops"])


def test_early_stages_once_cost_beta_of_the_grid():
    paper = preset("paper", distill_start="real")
    grid, once, start = (expected_costs(paper.with_rule(rule), ipc=1)["flops"] for rule in ("grid", "once", "start"))
    assert once / grid == pytest.approx(1 / 50, rel=2e-3) and start / grid < 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_halving_finds_the_best_action_of_every_class(train, made, seed):
    found = search(train, KnownReward(noise=0.001), seed=seed, search_agent="halving", search_episodes=12)
    assert found.policy.tolist() == list(BEST)
    first, last = [d.seed for d in made][:4], [d.seed for d in made][4:]
    assert len(set(first)) == len(set(last)) == 1 and first[0] != last[0]  # common random numbers within a round


def test_a_shared_agent_takes_the_action_of_largest_mean_reward(train, made):
    """Distances of BEST from L = 1, 2, 4, 8 in octaves: means 7/6 to 11/6; the smallest is at L = 2 or 4."""
    found = search(train, KnownReward(), search_agent="shared")
    distances = [sum(abs(torch.tensor(length / b).log2().item()) for b in BEST) / 6 for length in (1, 2, 4, 8)]
    assert torch.allclose(found.mean_reward, 0.2 - 0.01 * torch.tensor(distances).double().expand(6, -1))
    assert set(found.policy.tolist()) == {(1, 2, 4, 8)[distances.index(min(distances))]}


def test_agents_that_cannot_be(train):
    with pytest.raises(ValueError, match="search_episodes=0 stands for the warm-up alone"):
        search(train, KnownReward(), search_episodes=0, search_warmup=0)


def test_steps_that_only_make_noise_end_a_search(made, train):
    """Within black and white nothing becomes infinite; the teacher's distance tells."""

    class Seen(KnownReward):
        length, seen = torch.ones(len(BEST)), iter(())

        def distance(self, videos, policy):
            return torch.full((len(BEST),), next(self.seen))

    for after, fails in ((0.9, False), (1.1, True)):
        reward = Seen()
        reward.seen = iter([0.2, after] * 10)
        if fails:
            with pytest.raises(FloatingPointError, match=r"from 0.2 to 1.1; lower distill_lr"):
                search(train, reward, distill_range="8-bit")
        else:
            search(train, reward, distill_range="8-bit")
