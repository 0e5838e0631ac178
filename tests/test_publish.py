"""Published sets, and what people do with a set: load it by name, train on it, join it, export and score it."""

import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from toy import noise_clips

import david
from david import publish
from david.partition import partition
from david.sets import DistilledSet, join, read_images
from david.support.files import read_json
from david.support.pixels import denormalise, normalise
from david.support.seeds import generator

NAMES = list(publish.published())
QUICK = {"students": 1, "preset": "smoke", "student_steps": 2, "student_batch": 6, "width": 0.125}


@pytest.fixture
def data():
    """Classes of L = 2, 8 and 4; one video of 8 frames each, pixels that 8 bits can show."""
    pixels = torch.randint(0, 256, (3, 1, 8, 48, 48, 3), generator=generator(3), dtype=torch.uint8)
    return DistilledSet(normalise(pixels).contiguous(), torch.tensor([2, 8, 4]), ["a", "b", "c"])


@pytest.mark.parametrize("name", NAMES)
def test_a_published_set_is_whole_and_as_its_card_says(name):
    found, card = david.load_set(name), david.published()[name]
    assert found.classes == card["classes"] and found.policy.tolist() == card["frames_per_segment"]
    assert found.info.items() >= {key: card[key] for key in ("dataset", "method", "ipc", "seed")}.items()
    assert card["licence"].startswith("MIT") and len(card["scores"]["top1 of each student"]) >= 2
    assert (publish.FOLDER / card["file"]).stat().st_size == card["bytes"]
    assert found.videos.numel() == card["pixels"] and torch.equal(normalise(denormalise(found.videos)), found.videos)


def test_published_sets_are_small():
    assert len(NAMES) >= 6 and sum(path.stat().st_size for path in publish.FOLDER.iterdir()) < 8e6


def test_a_score_comes_out_of_the_tracked_file_again():
    """At smoke size: two students are the same twice, on the test clips of a small motions."""
    found = david.load_set("motions-ipc1-david-warmup").subset(["Disc", "MoveLeft", "MoveRight"])
    sizes = {"clips_per_group": 1, "train_groups": 1, "test_groups": 2}
    _, test = david.open_dataset("motions", preset="demo", classes=tuple(found.classes[::-1]), device="cpu", **sizes)
    first, again = (david.evaluate(found, test, **QUICK) for _ in range(2))
    assert first == again and list(first["per_class"]) == found.classes  # in the set's order, not the clips'


def test_publish_and_load_again(data, tmp_path):
    record = {"dataset": "d", "method": "dm", "ipc": 1, "seed": 0, "classes": data.classes, "made": {},
              "frames_per_segment": data.policy.tolist(), "settings": {"student_steps": 3},
              "students": [{"top1": 0.25}]}  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(record))
    data.save(tmp_path / "r.safetensors")
    card = read_json(publish.publish(tmp_path / "r.json", "mine", "CC0", tmp_path))
    path = tmp_path / card["file"]
    found = publish.unpack(path.read_bytes(), card["sha256"], path)
    assert torch.equal(found.videos, data.videos) and found.classes == data.classes and card["scores"]
    assert torch.equal(found.policy, data.policy) and card["bytes"] == path.stat().st_size
    with pytest.raises(ValueError, match=r"mine\.safetensors\.xz is not the file that its card was written for"):
        publish.unpack(path.read_bytes()[:-9], card["sha256"], path)
    other = lzma.compress(lzma.decompress(path.read_bytes()).replace(b"published-set/1", b"published-set/9"))
    with pytest.raises(ValueError, match="has format 'david-published-set/9'; this version reads 'david-published-set"):
        publish.unpack(other, publish.hashlib.sha256(other).hexdigest(), path)
    with pytest.raises(ValueError, match="its pixels are not those that 8 bits can show"):
        publish.pack(DistilledSet(data.videos + 0.004, data.policy, data.classes))


def test_the_dataset_has_every_clip_as_partition_lays_them_out(data):
    plain = data.dataset()
    assert len(plain) == 4 + 1 + 2 and [plain[i][1] for i in range(7)] == [0] * 4 + [1] + [2] * 2
    expected = torch.cat([partition(video, int(length)) for video, length in zip(data.videos, data.policy)])
    assert all(torch.equal(plain[i][0], clip) for i, clip in enumerate(expected))
    assert torch.equal(plain[-1][0], plain[6][0])
    with pytest.raises(IndexError):
        plain[7]
    clip, _ = data.dataset("CTHW", torch.uint8, frames=4)[4]  # L = F: every second frame
    assert clip.shape == (3, 4, 48, 48) and torch.equal(clip.movedim(0, -1), denormalise(data.videos)[1, 0, ::2])
    assert torch.equal(data.dataset(frames=16)[4][0], data.videos[1, 0].repeat_interleave(2, 0))
    assert data.dataset(size=24)[0][0].shape == (8, 3, 24, 24)
    clips, labels = next(iter(DataLoader(data.dataset(dtype=torch.float16), batch_size=7)))
    assert clips.shape == (7, 8, 3, 48, 48) and clips.dtype == torch.float16 and labels.dtype == torch.int64


def test_subsets_and_joins(data):
    first, second = data.subset(["c"]), data.subset(["b", "a"])
    whole = join(second, first)
    assert whole.classes == ["b", "a", "c"] and whole.policy.tolist() == [8, 2, 4]
    assert torch.equal(whole.videos, data.videos[[1, 0, 2]])


def test_a_set_of_somebody_elses_code(data, tmp_path):
    """A file as VDSD's and MTT's code writes it, in another normalisation."""
    pixels = denormalise(data.videos).flatten(0, 1).movedim(-1, -3).float() / 255
    torch.save((pixels - 0.5) / 0.25, tmp_path / "images_best.pt")
    found = read_images(tmp_path / "images_best.pt", data.classes, mean=(0.5,) * 3, std=(0.25,) * 3)
    torch.testing.assert_close(found.videos, data.videos, atol=1e-5, rtol=0)
    assert found.policy.tolist() == [8, 8, 8] and found.ipc == 1


class Flat(nn.Module):
    """A student of another shape."""

    def __init__(self, classes, frames, size):
        super().__init__()
        self.head = nn.Linear(3 * frames, classes)

    def forward(self, clips):
        return self.head(clips.mean((3, 4)).flatten(1))


def test_a_student_of_another_shape(data):
    test = noise_clips()
    data.classes = list(test.classes)
    first, again = (david.evaluate(data, test, model=Flat, **QUICK) for _ in range(2))
    assert (
        first == again and 0 <= first["top1"] <= 1 and first != david.evaluate(data, test, model=Flat, seed=1, **QUICK)
    )


class Code:
    """What a pickle would run."""

    def __reduce__(self):
        return print, ("executed",)


def wrong_uses(data, folder):
    """What -> (a wrong use of a set, what its one sentence says)."""
    test = noise_clips()
    torch.save([1, 2], folder / "list.pt")
    torch.save(torch.zeros(4, 8, 3, 8, 8), folder / "four.pt")
    torch.save(255 * torch.ones(3, 8, 3, 8, 8), folder / "bytes.pt")
    torch.save(Code(), folder / "code.pt")
    (folder / "torn.safetensors").write_bytes(data.save(folder / "whole.safetensors").read_bytes()[:-50])
    named = DistilledSet(data.videos, data.policy, list(test.classes))
    bright = DistilledSet(denormalise(data.videos).movedim(-1, -3).float(), data.policy, list(test.classes))
    small = DistilledSet(data.videos[..., ::2, ::2].contiguous(), data.policy, list(test.classes))
    return {
        "an unknown name": (lambda: david.load_set("motions-ipc1-davd"), "did you mean 'motions-ipc1-david'"),
        "a torn file": (lambda: david.load_set(folder / "torn.safetensors"), "torn.safetensors is not a distilled set"),
        "other classes": (lambda: david.evaluate(data, test, **QUICK), "not of the same classes"),
        "pixels of 0-255": (lambda: david.evaluate(bright, test, **QUICK), "reach 255, so they are not normalised"),
        "another size": (
            lambda: david.evaluate(small, test, **QUICK),
            "8 frames of 24 pixels, the test clips 8 frames",
        ),
        "no student": (lambda: david.evaluate(named, test, **QUICK | {"students": 0}), "at least 1 is trained"),
        "a layout": (lambda: data.dataset("HWTC"), "choose 'TCHW' or 'CTHW'"),
        "a dtype": (lambda: data.dataset(dtype=torch.int64), "choose a float type"),
        "no frames": (lambda: data.dataset(frames=0), "frames=0: at least 1"),
        "a class that is not there": (
            lambda: data.subset(["d"]),
            "class 'd' is named twice or is not one of the set's",
        ),
        "a class twice": (lambda: join(data, data.subset(["b"])), "both sets have the class 'b'"),
        "videos of two sizes": (lambda: join(small, data), "(1, 8, 3, 24, 24) and (1, 8, 3, 48, 48)"),
        "not a tensor": (lambda: read_images(folder / "list.pt", data.classes), "list.pt holds list, not a tensor"),
        "a number of classes": (lambda: read_images(folder / "four.pt", data.classes), "of M = 3 classes"),
        "bytes as they are": (lambda: read_images(folder / "bytes.pt", data.classes), "not normalised pixels"),
        "code in a pickle": (lambda: read_images(folder / "code.pt", data.classes), "is not a tensor that torch.save"),
    }


def test_a_wrong_use_ends_in_one_sentence(data, tmp_path, capsys):
    for what, (use, said) in wrong_uses(data, tmp_path).items():
        with pytest.raises(ValueError, match=re.escape(said)) as caught:
            use()
        assert "\n" not in str(caught.value), what
    assert "executed" not in capsys.readouterr().out


def test_torch_numpy_and_safetensors_suffice():
    """To load a published set by name and to train somebody else's model on it."""
    code = """
import sys
for name in ("av", "decord", "pandas", "fcntl", "joblib", "filelock", "tqdm", "PIL", "scipy", "matplotlib"):
    sys.modules[name] = None
import david, torch
found = david.load_set("motions-ipc1-random")
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 16 * 16, 12))
step = torch.optim.SGD(net.parameters(), 0.01)
for _ in range(100):
    for clips, labels in torch.utils.data.DataLoader(found.dataset("CTHW", size=16, frames=4), 12, shuffle=True):
        step.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(clips), labels)
        loss.backward()
        step.step()
print("loss", loss.item() < 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout) == (0, "loss True\n"), done.stderr


def test_the_picture_of_the_front_page(tmp_path):
    """Is made of published sets, so the one that is shown is that of their pixels."""
    from davidbook.front import picture

    paths = [picture(tmp_path / "front.gif"), Path(__file__).parents[1] / "book" / "images" / "front.gif"]
    with Image.open(paths[0]) as made, Image.open(paths[1]) as shown:
        assert made.size == shown.size == (6 * 48, 2 * 48) and made.n_frames == shown.n_frames == 8
        assert np.array_equal(made.convert("RGB"), shown.convert("RGB"))
