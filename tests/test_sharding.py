"""Ranks share the classes out, and what a class becomes does not depend on who else is in its share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_matching import SGD
from toy import noise_clips

from david.algorithm import david
from david.data.clips import Clips
from david.matching import Distiller, Features, noise, start_videos
from david.reward import TeacherReward
from david.runs import sharding
from david.runs.methods import method
from david.sets import DistilledSet
from david.support.seeds import generator
from david.training import load_teacher

POLICY = torch.tensor([8, 2, 1, 4, 8])


@pytest.fixture(scope="module")
def train():
    """Five classes of 4, 4, 4, 4 and 2 clips, which may be mirrored."""
    return noise_clips(labels=(0, 1, 2, 3, 4, 4) + (0, 1, 2, 3) * 3, flip=True)


def shares(size) -> list[range]:
    """The classes of each of so many ranks."""
    return [range(5 * rank // size, 5 * (rank + 1) // size) for rank in range(size)]


def some(policy, classes):
    return policy[classes.start : classes.stop]


def test_one_rank_has_all_classes_and_nobody_to_talk_to():
    with sharding.group("cpu") as device:
        assert (device, sharding.size(), sharding.rank(), sharding.share(3)) == ("cpu", 1, 0, range(3))
        part = torch.zeros(3, 2)
        assert sharding.gather(part, 3) is part
        assert sharding.spread(3, lambda k: 10 * k) == [0, 10, 20] and sharding.first(lambda: "mine") == "mine"


def test_every_rank_has_a_gpu(monkeypatch):
    """As far as it can be seen without one: which GPU a rank takes, and what it talks through."""
    joined, chosen = [], []
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, timeout: joined.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: joined.append("left"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for wanted, got in [(None, "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")]:
        with sharding.group(wanted) as device:
            assert device == torch.device(got)
    assert joined == ["cpu:gloo,cuda:nccl", "left"] * 2 + ["gloo", "left"] and chosen == [torch.device("cuda:1")] * 2
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="rank 2 of this machine finds 2 GPUs; use torchrun --nproc-per-node=2"):
        with sharding.group():
            pytest.fail("there is no third GPU")


@given(st.integers(1, 40), st.integers(1, 40))
def test_shares_are_consecutive_and_even(size, more):
    count = size + more - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "size", lambda: size)
        shares = [sharding.share(count, rank) for rank in range(size)]
    assert [c for share in shares for c in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_classes(monkeypatch):
    monkeypatch.setattr(sharding, "size", lambda: 6)
    with pytest.raises(ValueError, match="6 processes have only 5 classes to share; start at most 5"):
        sharding.share(5)


@pytest.mark.parametrize("shape", [(3, 16), (5, 7), (1, 24), (40, 2, 3, 3), (33, 17)])
def test_noise_row_by_row_is_that_of_one_call(shape):
    whole = torch.randn(shape, generator=generator(3, "start"))
    assert torch.equal(torch.stack(list(noise(shape[0], shape[1:], generator(3, "start")))), whole)


def test_the_noise_start_of_all_classes_is_one_stream(train):
    videos = start_videos(train, POLICY, ipc=2, seed=3, kind="noise")
    assert torch.equal(videos, torch.randn(5, 2, 8, 3, 48, 48, generator=generator(3, "start")))


def test_real_clips_of_all_classes_are_one_stream(train, monkeypatch):
    """The draws that records were made with: a permutation a class, one after the other, and then the coins."""
    monkeypatch.setattr("david.data.clips.CHUNK", 4)
    random = generator(3, "iteration", 7)
    own = [torch.as_tensor(positions) for positions in train.by_class()]
    picks = torch.cat([o[torch.randperm(len(o), generator=random)[:3]] for o in own])
    coins = torch.rand(len(picks), generator=random)
    seen, mirrored, batch = [], [], Clips.batch

    def seeing(self, indices, *, generator, flip):
        clips = batch(self, indices, generator=generator, flip=flip)
        seen.append(indices)
        mirrored.append((clips != batch(self, indices)).flatten(1).any(1))
        return clips

    monkeypatch.setattr(Clips, "batch", seeing)
    settings = SGD.replace(distill_batch_real=3)
    Features(train, seed=3, settings=settings.distill).draw(7)
    whole = torch.cat(seen), torch.cat(mirrored)
    assert torch.equal(whole[0], picks) and torch.equal(whole[1], coins < 0.5)
    seen.clear(), mirrored.clear()
    Features(train, seed=3, settings=settings.distill, classes=range(1, 3)).draw(7)
    part = slice(3, 9)
    assert torch.equal(torch.cat(seen), whole[0][part]) and torch.equal(torch.cat(mirrored), whole[1][part])


@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("size", [2, 3])
def test_shares_together_are_the_whole(train, start, size):
    settings = SGD.replace(distill_start=start, distill_lr=1000.0).distill

    def videos(classes=None):
        policy = POLICY if classes is None else some(POLICY, classes)
        distiller = Distiller(train, policy, ipc=2, seed=5, settings=settings, classes=classes)
        begun = distiller.videos.clone()
        distiller.run(2)
        return begun, distiller.videos, distiller.identity()

    begun, done, identity = videos()
    parts = [videos(classes) for classes in shares(size)]
    assert torch.equal(torch.cat([part[0] for part in parts]), begun)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), done, rtol=1e-4, atol=1e-4)
    assert (done - begun).abs().mean() > 1e-2
    assert len({identity, *(part[2] for part in parts)}) == size + 1


def test_distances_together_are_the_whole(train):
    teacher = load_teacher(train, seed=0, settings=SGD.replace(teacher_steps=1).teacher)
    videos = start_videos(train, POLICY, ipc=1, seed=0, kind="noise")
    whole = TeacherReward(teacher, train).distance(videos, POLICY)
    parts = [
        TeacherReward(teacher, train, classes=classes).distance(some(videos, classes), some(POLICY, classes))
        for classes in shares(3)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)


def test_searches_together_are_the_whole(train):
    """Each with the draws of all classes: Eq. 3 explores after the first episode."""
    settings = SGD.replace(search_episodes=4, search_warmup=0, distill_iterations=2).algorithm
    teacher = load_teacher(train, seed=0, settings=SGD.replace(teacher_steps=1).teacher)

    def found(classes=None):
        reward = TeacherReward(teacher, train, classes=classes)
        return david(train, reward, ipc=1, seed=2, settings=settings, classes=classes, synthesis=False)

    whole, parts = found(), [found(classes) for classes in shares(2)]
    assert torch.equal(torch.cat([part.policy for part in parts]), whole.policy)
    assert [name for part in parts for name in part.classes] == whole.classes
    for episode, *own in zip(*(made.info["search"]["episodes"] for made in (whole, *parts)), strict=True):
        assert [length for part in own for length in part["frames_per_segment"]] == episode["frames_per_segment"]
        assert [r for part in own for r in part["reward"]] == pytest.approx(episode["reward"], rel=1e-4)
        assert sum(part["forward"] for part in own) == episode["forward"]


def test_one_agent_for_all_classes_is_not_shared_out(train, monkeypatch):
    """The first of two ranks makes the set alone, and talks to nobody."""
    monkeypatch.setattr(sharding, "size", lambda: 2)
    monkeypatch.setattr(sharding, "joined", lambda *_: pytest.fail("there are no parts"))
    found = method("david:shared")
    settings = SGD.replace(search_episodes=4, distill_iterations=1, teacher_steps=1)
    assert not found.sharded and method("david").sharded
    whole = found.distill(train, ipc=1, seed=0, settings=settings)
    assert whole.classes == train.classes and len(set(whole.policy.tolist())) == 1


def test_what_ranks_made_is_put_together(monkeypatch):
    """Two ranks of one class each, which hear what the other would say."""

    def episode(c):
        return {
            "frames_per_segment": [8 - c], "start": [2.0 + c], "distance": [1.0 + c], "reward": [0.5 + c],
            "iterations": 3, "forward": 10 + c, "backward": 4 + c, "seconds": 1.5 + c,
        }  # fmt: skip

    infos = [
        {
            "curve": [[0, 1.0 + c], [3, 0.5 + c]],
            "search": {"actions": [1, 8], "episodes": [episode(c)]},
            "sweep": [{"iteration": 0, "distance": [[1.0 + c], [2.0 + c]]}],
        }
        for c in (0, 1)
    ]
    monkeypatch.setattr(sharding, "size", lambda: 2)
    monkeypatch.setattr(sharding, "gather", lambda part, count: torch.cat([part, part + 1]))
    monkeypatch.setattr(sharding, "spread", lambda count, function: infos)
    part = DistilledSet(torch.zeros(1, 1, 8, 3, 2, 2), torch.tensor([1]), ["a"], infos[0])
    whole = sharding.joined(part, ["a", "b"])
    assert whole.classes == ["a", "b"] and whole.policy.tolist() == [1, 2] and len(whole.videos) == 2
    assert whole.info["curve"] == [[0, 3.0], [3, 2.0]]
    assert whole.info["sweep"] == [{"iteration": 0, "distance": [[1.0, 2.0], [2.0, 3.0]]}]
    assert whole.info["search"] == {
        "actions": [1, 8],
        "episodes": [
            {
                "frames_per_segment": [8, 7], "start": [2.0, 3.0], "distance": [1.0, 2.0], "reward": [0.5, 1.5],
                "iterations": 3, "forward": 21, "backward": 9, "seconds": 2.5,
            }
        ],
    }  # fmt: skip
