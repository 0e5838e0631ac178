"""What VDSD stores: clips by hand, their numbers, the budget, the file, and gradients through the clips."""

import json
import subprocess
import sys

import pytest
import torch
from test_distilled import rng

from david.baselines.static_dynamic import StaticDynamicSet, hallucinate, load_set
from david.sets import DistilledSet, StoredSet


def make(classes=3, ipc=2, frames=8, size=4) -> StaticDynamicSet:
    """A set of random numbers."""
    random, memories = rng(), 2 * ipc
    static = torch.randn(classes, memories, 3, size, size, generator=random)
    dynamic = torch.randn(classes, memories, frames, 1, size, size, generator=random)
    weight, bias = torch.randn(3, 4, 3, 3, 3, generator=random), torch.randn(3, generator=random)
    return StaticDynamicSet(static, dynamic, weight, bias, [f"class {c}" for c in range(classes)], {"seed": 3})


def same(first, second):
    return all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())


def test_a_kernel_that_copies_the_image_gives_a_still_clip():
    static, dynamic = torch.randn(2, 3, 4, 5), torch.randn(2, 8, 1, 4, 5)
    weight = torch.zeros(3, 4, 3, 3, 3)
    weight[range(3), range(3), 1, 1, 1] = 1
    clips = hallucinate(static, dynamic, weight, torch.zeros(3))
    assert torch.equal(clips, static[:, None].expand(2, 8, 3, 4, 5))


def test_a_kernel_that_copies_the_memory_gives_it_to_every_colour():
    static, dynamic = torch.randn(2, 3, 4, 5), torch.randn(2, 8, 1, 4, 5)
    weight = torch.zeros(3, 4, 3, 3, 3)
    weight[:, 3, 1, 1, 1] = 1
    clips = hallucinate(static, dynamic, weight, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(clips, dynamic + torch.tensor([0.0, 1.0, 2.0])[:, None, None])


def test_a_kernel_reaches_one_frame_and_one_pixel_and_zeros_surround_the_clip():
    dynamic = torch.zeros(1, 8, 1, 5, 5)
    dynamic[0, 0, 0, 0, 2] = 1
    clips = hallucinate(torch.zeros(1, 3, 5, 5), dynamic, torch.ones(3, 4, 3, 3, 3), torch.zeros(3))
    expected = torch.zeros(8, 5, 5)
    expected[:2, :2, 1:4] = 1
    assert torch.equal(clips, expected[None, :, None].expand(1, 8, 3, 5, 5))


def test_clips_are_numbered_video_by_video_then_image_by_image():
    memory = make()
    assert (memory.ipc, memory.frames) == (2, 8)
    assert memory.policy.tolist() == [8] * 3 and memory.clips_per_class.tolist() == [8] * 3
    images, memories = [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 2, 3, 2, 3]
    for c in range(3):
        expected = hallucinate(memory.static[c, images], memory.dynamic[c, memories], memory.weight, memory.bias)
        clips = memory.clips(torch.full((8,), c), torch.arange(8))
        assert clips.shape == (8, 8, 3, 4, 4) and torch.equal(clips, expected)
    assert torch.equal(memory.videos[2], clips[[0, 4]]) and memory.videos.shape == (3, 2, 8, 3, 4, 4)


def test_combinations_are_every_video_once_in_a_random_one_of_four():
    random, drawn = rng(), []
    for _ in range(400):
        labels, picks = make().combinations(random)
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and (picks // 4).tolist() == [0, 1] * 3
        drawn.append(picks % 4)
    counts = torch.stack(drawn).T.contiguous()
    assert all(count.bincount(minlength=4).min() > 70 for count in counts)


def test_batches_are_balanced_clips_of_their_class():
    memory = make()
    clips, labels = memory.batch(rng(), 300)
    assert clips.shape == (300, 8, 3, 4, 4) and labels.bincount().tolist() == [100] * 3
    for c in range(3):
        every = memory.clips(torch.full((8,), c), torch.arange(8))
        distance = (clips[labels == c][:, None] - every).abs().flatten(2).amax(2)
        assert (distance.argmin(1).bincount(minlength=8) > 0).all() and distance.amin(1).max() < 1e-5
    assert torch.equal(memory.batch(rng(), 9)[0], memory.batch(rng(), 9)[0])


@pytest.mark.parametrize(("frames", "size", "share"), [(16, 112, 38 / 48), (8, 64, 22 / 24)])
def test_the_budget_of_the_protocol(frames, size, share):
    """79 % of full videos at 16 frames and 92 % at 8."""
    classes, mebi = (50, 90.9) if frames == 16 else (400, 137.5)
    meta = {"device": "meta"}
    static, dynamic = (
        torch.empty(classes, 2, 3, size, size, **meta),
        torch.empty(classes, 2, frames, 1, size, size, **meta),
    )
    kernel = torch.empty(3, 4, 3, 3, 3, **meta), torch.empty(3, **meta)
    memory = StaticDynamicSet(static, dynamic, *kernel, ["name"] * classes)
    full = classes * frames * 3 * size * size * 4
    assert memory.stored_bytes == full * share + 327 * 4
    assert memory.stored_bytes / 2**20 == pytest.approx(mebi, abs=0.06)
    assert memory.device.type == "meta"


def test_round_trip(tmp_path):
    memory = make()
    path = memory.save(tmp_path / "new folder" / "set.safetensors")
    for loaded in (StaticDynamicSet.load(str(path)), load_set(path)):
        assert type(loaded) is StaticDynamicSet and same(memory, loaded)
        assert (loaded.classes, loaded.info) == (memory.classes, {"seed": 3})
    assert torch.equal(loaded.batch(rng(), 9)[0], memory.batch(rng(), 9)[0])
    assert load_set(path, "meta").bias.device.type == "meta"


def test_the_file_is_json_and_raw_floats_no_pickle(tmp_path):
    memory = make()
    data = memory.save(tmp_path / "set.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ours = json.loads(header.pop("__metadata__")["david"])
    assert set(header) == {"static", "dynamic", "weight", "bias"}
    assert ours["format"] == "david-static-dynamic-set/1" and ours["frames_per_segment"] == [8] * 3
    assert len(data) == 8 + length + memory.stored_bytes


def test_each_kind_of_file_says_what_it_is(tmp_path):
    videos = DistilledSet(torch.zeros(1, 1, 8, 3, 2, 2), torch.tensor([8]), ["a"])
    plain, ours = videos.save(tmp_path / "plain.safetensors"), make().save(tmp_path / "ours.safetensors")
    assert type(load_set(plain)) is DistilledSet
    assert type(StoredSet.load(plain)) is DistilledSet and type(StoredSet.load(ours)) is StaticDynamicSet
    with pytest.raises(ValueError, match=r"plain\.safetensors has format 'david-distilled-set/1'.*'david-static-dyn"):
        StaticDynamicSet.load(plain)
    with pytest.raises(ValueError, match=r"ours\.safetensors has format 'david-static-dynamic-set/1'.*'david-distil"):
        DistilledSet.load(ours)


def test_wrong_files(tmp_path, monkeypatch):
    path = tmp_path / "set.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no distilled set at .*set\.safetensors"):
        load_set(path)
    path.write_text("this is no set\n" * 9)
    with pytest.raises(ValueError, match=r"set\.safetensors is not a distilled set of david"):
        load_set(path)
    path.write_bytes(make().save(path).read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"set\.safetensors is not a distilled set of david"):
        load_set(path)
    monkeypatch.setattr(StaticDynamicSet, "format", "david-static-dynamic-set/99")
    make().save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"set/99'; this version reads 'david-distilled-set/1' and '.*-dynamic-set/1'"):
        load_set(path)


def test_what_does_not_fit_together():
    memory = make()
    with pytest.raises(ValueError, match="3 classes of static, 3 of dynamic memories and 2 names"):
        StaticDynamicSet(**memory.tensors, classes=["a", "b"])
    for static, dynamic in ((3, 3), (4, 2)):
        part = {**memory.tensors, "static": memory.static[:, :static], "dynamic": memory.dynamic[:, :dynamic]}
        with pytest.raises(
            ValueError, match=f"two static and two dynamic memories; a class has {static} and {dynamic}"
        ):
            StaticDynamicSet(**part, classes=memory.classes)


def test_clips_have_a_gradient_to_everything_stored():
    memory = make(classes=2, ipc=1)
    for tensor in memory.tensors.values():
        tensor.requires_grad_()
    memory.clips(torch.tensor([1]), torch.tensor([2])).square().sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in memory.tensors.values())
    # Of class 1, number 2 is image 1 with dynamics 0; nothing else was used.
    assert memory.static.grad.abs().sum((2, 3, 4)).nonzero().tolist() == [[1, 1]]
    assert memory.dynamic.grad.abs().sum((2, 3, 4, 5)).nonzero().tolist() == [[1, 0]]
    assert not memory.videos.requires_grad


# What a reader does who has a set and torch, and neither videos nor what reads them; in another process, where nothing
# else was imported.
ELSEWHERE = """
import sys
sys.modules |= dict.fromkeys(("av", "decord", "fcntl", "resource"))  # to import one is an error
{statement}
data = load({path!r})
import torch
from david.training import Settings, train_on
assert type(data).__name__ == {kind!r}
train_on(data, seed=0, settings=Settings(steps=1, batch=4, width=0.125))
assert not {{"david.data.video", "david.data.cache", "david.data.workers", "david.data.clips"}} & set(sys.modules)
"""


@pytest.mark.parametrize("kind", ["DistilledSet", "StaticDynamicSet"])
@pytest.mark.parametrize(
    "statement",
    [
        "from david import load_set as load",
        "from david.baselines.static_dynamic import load_set as load",
        "from david.sets import StoredSet; load = StoredSet.load",
        "import david; david.DistilledSet; load = david.load_set",
    ],
)
def test_a_set_is_loaded_and_trained_on_by_whoever_has_torch_alone(tmp_path, statement, kind):
    videos = DistilledSet(torch.zeros(2, 1, 8, 3, 48, 48), torch.tensor([8, 2]), ["a", "b"])
    path = (videos if kind == "DistilledSet" else make(classes=2, ipc=1, size=48)).save(tmp_path / "set.safetensors")
    code = ELSEWHERE.format(statement=statement.format(kind=kind), path=str(path), kind=kind)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_subclass_of_ones_own_changes_no_loading(tmp_path):
    class Mine(DistilledSet):
        pass

    path = DistilledSet(torch.zeros(1, 1, 8, 3, 2, 2), torch.tensor([8]), ["a"]).save(tmp_path / "set.safetensors")
    assert [type(kind.load(path)) for kind in (DistilledSet, StoredSet, Mine)] == [DistilledSet, DistilledSet, Mine]
