"""The product: the clips it gives, its file, and what a reader sees who opens the wrong file."""

import json

import pytest
import torch
from safetensors.torch import save_file
from toy import counting_clips, noise_clips, shades

from david.partition import partition
from david.sets import DistilledSet, RealSet, StillSet

POLICY = (1, 2, 4, 8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def distilled():
    """Four classes, two videos each, 8 frames of 4x4 pixels; no two values are equal."""
    videos = torch.arange(4 * 2 * 8 * 3 * 4 * 4, dtype=torch.float32).reshape(4, 2, 8, 3, 4, 4)
    info = {"method": "david", "seed": 3, "search": {"actions": [1, 2, 4, 8], "rewards": [0.25, None]}}
    return DistilledSet(videos, torch.tensor(POLICY), ["Zürich", "b c", "B", "D"], info)


def test_clips_are_numbered_as_partition_lays_them_out(distilled):
    assert distilled.clips_per_class.tolist() == [16, 8, 4, 2]
    for c, length in enumerate(POLICY):
        expected = partition(distilled.videos[c], length)
        assert torch.equal(distilled.clips(torch.full((len(expected),), c), torch.arange(len(expected))), expected)


def test_numbers_count_every_training_clip_once(distilled):
    labels, picks = distilled.numbers()
    assert labels.tolist() == [0] * 16 + [1] * 8 + [2] * 4 + [3] * 2
    assert picks.tolist() == [*range(16), *range(8), *range(4), *range(2)]
    expected = torch.cat([partition(videos, length) for videos, length in zip(distilled.videos, POLICY)])
    assert torch.equal(distilled.clips(labels, picks), expected)


def test_batch_gives_every_partitioned_clip_with_its_label(distilled):
    clips, labels = distilled.batch(rng(), 400)
    assert clips.shape == (400, 8, 3, 4, 4) and labels.dtype == torch.int64
    for c, length in enumerate(POLICY):
        expected = partition(distilled.videos[c], length)
        same = (clips[labels == c][:, None] == expected[None]).flatten(2).all(2)
        assert (same.sum(1) == 1).all()  # each clip of the batch is one of the class
        assert same.any(0).all()  # and each of the class was drawn


@pytest.mark.parametrize("size", [3, 4, 9, 24])
def test_batches_are_class_balanced(distilled, size):
    counts = distilled.batch(rng(), size)[1].bincount(minlength=4)
    assert counts.sum() == size and counts.max() - counts.min() <= 1


def test_remainder_of_a_batch_goes_to_random_classes(distilled):
    random = rng()
    counts = torch.cat([distilled.batch(random, 1)[1] for _ in range(400)]).bincount()
    assert counts.min() > 70


def test_natural_batches_follow_the_number_of_clips(distilled):
    counts = distilled.batch(rng(), 3000, natural=True)[1].bincount()
    torch.testing.assert_close(counts / 3000, torch.tensor([16, 8, 4, 2]) / 30, atol=0.03, rtol=0)


def test_batches_follow_the_generator(distilled):
    first, again, other = (distilled.batch(rng(seed), 12) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_stored_bytes_by_hand(distilled):
    assert distilled.stored_bytes == 4 * 2 * 8 * 3 * 4 * 4 * 4  # classes, IPC, F, colours, H, W, bytes of a float
    assert (distilled.ipc, distilled.frames) == (2, 8)


def test_round_trip(distilled, tmp_path):
    path = distilled.save(tmp_path / "new folder" / "set.safetensors")
    loaded = DistilledSet.load(str(path))
    assert torch.equal(loaded.videos, distilled.videos) and loaded.videos.dtype == torch.float32
    assert torch.equal(loaded.policy, distilled.policy) and loaded.policy.dtype == torch.int64
    assert (loaded.classes, loaded.info) == (distilled.classes, distilled.info)
    assert torch.equal(loaded.batch(rng(), 9)[0], distilled.batch(rng(), 9)[0])
    assert [p.name for p in path.parent.iterdir()] == ["set.safetensors"]
    assert DistilledSet.load(path).device.type == "cpu" and DistilledSet.load(path, "meta").device.type == "meta"


def test_save_takes_videos_that_need_a_gradient_or_are_not_contiguous(distilled, tmp_path):
    wild = distilled.videos.permute(0, 1, 2, 3, 5, 4).requires_grad_()
    path = DistilledSet(wild, distilled.policy, distilled.classes).save(tmp_path / "set.safetensors")
    assert torch.equal(DistilledSet.load(path).videos, wild.detach())


def test_the_file_is_json_and_raw_floats_no_pickle(distilled, tmp_path):
    data = distilled.save(tmp_path / "set.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header["videos"] == {
        "dtype": "F32",
        "shape": [4, 2, 8, 3, 4, 4],
        "data_offsets": [0, distilled.stored_bytes],
    }
    assert data[8 + length :] == distilled.videos.numpy().tobytes()
    ours = json.loads(header["__metadata__"]["david"])
    assert ours["frames_per_segment"] == list(POLICY) and ours["mean"] == [0.485, 0.456, 0.406]


def broken_files(path, whole):
    """Name and a function that puts a wrong file at `path`; `whole` is the content of a right one."""
    right = {"format": DistilledSet.format, "classes": ["a"], "frames_per_segment": [8], "info": {}}
    videos = torch.zeros(1, 1, 8, 3, 2, 2)

    def ours(header, **tensors):
        return lambda: save_file(tensors or {"videos": videos}, path, metadata={"david": json.dumps(header)})

    wrong = {
        "format": [[]], "frames_per_segment": [8, [0], ["8"], [3], [8, 8]], "classes": [{"a": 1}, [1]],
        "info": [None],
    }  # fmt: skip
    return {
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("this is no set\n" * 9),
        "header cut": lambda: path.write_bytes(whole[:100]),
        "videos cut": lambda: path.write_bytes(whole[:-100]),
        "foreign": lambda: save_file({"videos": videos}, path),
        "foreign metadata": lambda: save_file({"videos": videos}, path, metadata={"format": "pt"}),
        "no JSON": lambda: save_file({"videos": videos}, path, metadata={"david": "{"}),
        "a list": ours([]),
        "null": ours(None),
        "no policy": ours({"format": right["format"]}),
        "no videos": ours(right, images=videos),
        "flat videos": ours(right, videos=torch.zeros(1, 8)),
        "whole numbers": ours(right, videos=videos.long()),
        **{f"{name} {value}": ours(right | {name: value}) for name, values in wrong.items() for value in values},
    }


@pytest.mark.parametrize("name", broken_files(None, None))
def test_corrupt_or_foreign_file_gives_one_error_that_names_it(distilled, tmp_path, name):
    path = tmp_path / "set.safetensors"
    broken_files(path, distilled.save(path).read_bytes())[name]()
    with pytest.raises(ValueError, match=r"set\.safetensors is not a distilled set of david .*DistilledSet\.save"):
        DistilledSet.load(path)


def test_file_of_another_version(distilled, tmp_path, monkeypatch):
    monkeypatch.setattr(DistilledSet, "format", "david-distilled-set/99")
    path = distilled.save(tmp_path / "set.safetensors")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"set\.safetensors has format 'david-distilled-set/99'.*reads '.*/1'"):
        DistilledSet.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no distilled set at .*none\.safetensors"):
        DistilledSet.load(tmp_path / "none.safetensors")


def test_policy_must_divide_and_lengths_agree(distilled):
    with pytest.raises(ValueError, match="frames_per_segment=3 does not divide the 8 frames"):
        DistilledSet(distilled.videos, torch.tensor([8, 8, 3, 8]), distilled.classes)
    with pytest.raises(ValueError, match="4 classes of videos, 3 of policy and 4 names"):
        DistilledSet(distilled.videos, torch.tensor([8, 8, 8]), distilled.classes)


def test_real_set_is_the_training_set():
    train = counting_clips()
    real = RealSet(train)
    assert real.clips_per_class.tolist() == [5, 4] and real.policy.tolist() == [8, 8]
    assert real.stored_bytes == 9 * 8 * 2 * 2 * 3
    clips, labels = real.batch(rng(), 900)
    number, frame = shades(clips)
    assert (frame == torch.arange(8)).all() and torch.equal(number[:, 0] % 2, labels)
    assert number[:, 0].bincount().min() > 60  # uniform over clips
    assert torch.equal(real.batch(rng(), 900)[0], clips)


def test_still_set_repeats_one_frame_of_each_video():
    train = counting_clips()
    still, random = StillSet(train), rng()
    clips, labels = (torch.cat(parts) for parts in zip(still.batch(random, 300), still.batch(random, 300)))
    number, frame = shades(clips)
    assert (frame == frame[:, :1]).all() and (number == number[:, :1]).all()
    assert torch.equal(number[:, 0] % 2, labels)
    seen = {(n, f) for n, f in zip(number[:, 0].tolist(), frame[:, 0].tolist())}
    assert len(seen) == 9 and len({f for _, f in seen}) > 2  # the same frame in every batch of one training
    again, other = (StillSet(train).batch(torch.Generator().manual_seed(s), 300)[0] for s in (rng().initial_seed(), 5))
    assert torch.equal(again, clips[:300])
    assert {(n, f) for n, f in zip(*(x[:, 0].tolist() for x in shades(other)))} != seen
    assert still.stored_bytes == RealSet(train).stored_bytes // 8
    # Paired with the real set: the same videos in the same batches.
    assert torch.equal(shades(RealSet(train).batch(rng(), 300)[0])[0], number[:300])


@pytest.mark.parametrize("flip", [True, False])
def test_real_set_mirrors_only_where_labels_allow_it(flip):
    train = noise_clips(flip=flip)
    clips, _ = RealSet(train).batch(rng(), 20)
    every = torch.cat([train.batch(range(len(train))), train.batch(range(len(train))).flip(-1)])
    which = (clips[:, None, 0, 0, 0] == every[None, :, 0, 0, 0]).all(2).int().argmax(1)
    assert torch.equal(clips, every[which])
    assert (which >= len(train)).any() == flip
