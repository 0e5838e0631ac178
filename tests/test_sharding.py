"""Ranks share the classes out, and what a class becomes does not depend on who else is in its share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_matching import SGD
from toy import noise_clips

from david.data.clips import Clips
from david.matching import Distiller, Features
from david.method_dm import distill
from david.reward import TeacherReward
from david.runs import sharding
from david.start import noise, start_videos
from david.support.loop import Loop
from david.support.seeds import generator
from david.training import load_teacher

POLICY = torch.tensor([8, 2, 1, 4, 8])


@pytest.fixture(scope="module")
def train():
    """Five classes of 4, 4, 4, 4 and 2 clips, which may be mirrored."""
    return noise_clips(labels=(0, 1, 2, 3, 4, 4) + (0, 1, 2, 3) * 3, flip=True)


@pytest.fixture
def ranks(monkeypatch):
    """Call it with (function, size): what the function returns on each rank of so many, which do not communicate."""

    def on_each(function, size):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(sharding, "size", lambda: size)
            patch.setattr(sharding, "gather", lambda part, count: part)
            for rank in range(size):
                patch.setattr(sharding, "rank", lambda rank=rank: rank)
                found.append(function())
        return found

    return on_each


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


def test_more_ranks_than_classes(ranks):
    with pytest.raises(ValueError, match="6 processes have only 5 classes to share; start at most 5"):
        ranks(lambda: sharding.share(5), 6)


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
    Features(train, seed=3, settings=settings).draw(7)
    whole = torch.cat(seen), torch.cat(mirrored)
    assert torch.equal(whole[0], picks) and torch.equal(whole[1], coins < 0.5)
    seen.clear(), mirrored.clear()
    Features(train, seed=3, settings=settings, classes=range(1, 3)).draw(7)
    part = slice(3, 9)
    assert torch.equal(torch.cat(seen), whole[0][part]) and torch.equal(torch.cat(mirrored), whole[1][part])


@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("size", [2, 3])
def test_shares_together_are_the_whole(train, ranks, start, size):
    settings = SGD.replace(distill_start=start, distill_lr=1000.0)

    def videos():
        distiller = Distiller(train, POLICY, ipc=2, seed=5, settings=settings)
        begun = distiller.videos.clone()
        distiller.run(2)
        return begun, distiller.videos, distiller.identity()

    begun, done, identity = videos()
    parts = ranks(videos, size)
    assert torch.equal(torch.cat([part[0] for part in parts]), begun)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), done, rtol=1e-4, atol=1e-4)
    assert (done - begun).abs().mean() > 1e-2
    assert len({identity, *(part[2] for part in parts)}) == size + 1


def test_distances_together_are_the_whole(train, ranks):
    teacher = load_teacher(train, settings=SGD.replace(teacher_steps=1))
    videos = start_videos(train, POLICY, ipc=1, seed=0, kind="noise")

    def distance():
        classes = sharding.share(5)
        return TeacherReward(teacher, train).distance(videos[classes.start : classes.stop], POLICY)

    torch.testing.assert_close(torch.cat(ranks(distance, 3)), distance(), rtol=1e-4, atol=1e-5)


def test_every_rank_has_a_checkpoint_of_its_own(train, ranks, monkeypatch, tmp_path):
    run, step, steps = Loop.run, Distiller.step, []
    monkeypatch.setattr(Loop, "run", lambda *args, **options: run(*args, **options, every=1))
    monkeypatch.setattr(Distiller, "step", lambda self: steps.append((self.classes, self.iteration)) or step(self))

    def videos(iterations, work=tmp_path):
        settings = SGD.replace(distill_iterations=iterations)
        monkeypatch.setattr("david.method_dm.DistilledSet", lambda videos, *_: videos)
        monkeypatch.setattr(Distiller, "identity", lambda self: f"but for the iterations, {self.classes}")
        return distill(train, ipc=1, seed=0, settings=settings, work=work)

    ranks(lambda: videos(1), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{k}-of-2.safetensors" for k in (0, 1)]
    steps.clear()
    parts = ranks(lambda: videos(2), 2)
    assert steps == [(range(0, 2), 1), (range(2, 5), 1)]
    torch.testing.assert_close(torch.cat(parts), videos(2, None), rtol=1e-4, atol=1e-4)
    steps.clear()
    ranks(lambda: videos(2), 3)  # other shares: from the beginning
    assert [iteration for _, iteration in steps] == [0, 1] * 3
