"""Clips are served as batches, normalised; the right frames of the right videos, the bad ones named and left out."""

import json
import os
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_dataset, write_video
from test_cache import SHAPE, poisoned

from david.c3d import C3D
from david.data import workers
from david.data.cache import decode_report
from david.data.clips import CHUNK, Clips, open_clips
from david.data.decode import decode_clip
from david.data.readers import load
from david.support.pixels import BYTES_A_PIXEL, MEAN, STD, denormalise, keep_in_range, normalise, rounded


@pytest.fixture
def clips():
    """Ten clips of noise in a memory map, in three classes, whose rows are not in order."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 16, 16, 3), dtype=np.uint8)
    return Clips(
        videos=pixels,
        rows=np.array([11, 0, 1, 2, 9, 8, 7, 3, 4, 5]),
        labels=np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0]),
        classes=["a", "b", "c"],
        groups=np.array(["g01", "g02"] * 5),
        names=np.array(list("abcdefghij")),
        flip=True,
        fingerprint="0" * 16,
        paths=np.array([f"{name}.avi" for name in "abcdefghij"]),
    )


def test_normalise_is_imagenet_and_channels_last():
    videos = torch.randint(0, 256, (2, 4, 16, 20, 3), dtype=torch.uint8)
    got = normalise(videos)
    assert got.shape == (2, 4, 3, 16, 20) and got.dtype == torch.float32
    expected = (videos.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(got, expected.permute(0, 1, 4, 2, 3))
    assert got.transpose(1, 2).is_contiguous(memory_format=torch.channels_last_3d)


def test_denormalise_inverts_and_clamps():
    every = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(16, 16, 3)
    assert torch.equal(denormalise(normalise(every)), every)
    assert denormalise(torch.full((3, 2, 2), 99.0)).unique().tolist() == [255]
    assert denormalise(torch.full((3, 2, 2), -99.0)).unique().tolist() == [0]


def test_rounded_pixels_are_those_of_8_bits():
    low, high = ((torch.tensor([end] * 3) - torch.tensor(MEAN)) / torch.tensor(STD) for end in (0.0, 1.0))
    videos = torch.rand(2, 5, 3, 16, 20) * (high - low).view(3, 1, 1) + low.view(3, 1, 1)
    got = rounded(videos)
    assert torch.equal(got, normalise(denormalise(got))) and torch.equal(rounded(got), got) and got.is_contiguous()
    half = 0.5 / 255 / torch.tensor(STD).view(3, 1, 1)
    assert ((got - videos).abs() <= half + 1e-6).all() and ((got - videos).abs() > 0.98 * half).any()


def test_pixels_are_kept_in_range_in_place():
    videos = torch.tensor([99.0, -99.0, 0.25, float("nan"), float("inf")]).view(5, 1, 1, 1).repeat(1, 3, 1, 1)
    assert keep_in_range(videos) is videos
    assert denormalise(videos[:2]).unique(dim=0).flatten().tolist() == [0] * 3 + [255] * 3
    torch.testing.assert_close(videos[:2], normalise(denormalise(videos[:2])), rtol=0, atol=1e-6)
    assert (videos[2] == 0.25).all() and videos[3].isnan().all() and torch.equal(videos[4], videos[0])


def test_batch(clips):
    batch = clips.batch([3, 0])
    torch.testing.assert_close(batch, normalise(torch.from_numpy(clips.videos[[2, 11]])))
    assert batch.transpose(1, 2).is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(clips.batch(torch.tensor([3, 0])), batch)
    assert torch.equal(clips.to("cpu").batch([3, 0]), batch)
    assert (len(clips), clips.frames, clips.size, clips.device.type) == (10, 4, 16, "cpu")


def test_flips_are_drawn_from_the_generator(clips):
    plain = clips.batch(range(10))
    first, second = (clips.batch(range(10), generator=torch.Generator().manual_seed(5), flip=True) for _ in "12")
    assert torch.equal(first, second)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(first, plain)]
    kept = [torch.equal(a, b) for a, b in zip(first, plain)]
    assert any(mirrored) and any(kept) and all(m != k for m, k in zip(mirrored, kept))
    state = torch.Generator().manual_seed(5)
    fixed = Clips(**{**vars(clips), "flip": False})  # mirrored, a clip of it would change its class
    assert torch.equal(fixed.batch(range(10), generator=state, flip=True), plain)


def test_subset_shares_the_videos(clips):
    part = clips.subset([4, 1])
    assert part.videos is clips.videos and part.rows.tolist() == [9, 0]
    assert part.labels.tolist() == [1, 1] and part.names.tolist() == ["e", "b"]
    assert part.paths.tolist() == part.to("cpu").paths.tolist() == ["e.avi", "b.avi"]
    pathless = replace(clips, paths=None).subset([4, 1])
    assert pathless.paths is None and pathless.fingerprint == part.fingerprint
    assert torch.equal(part.batch([0]), clips.batch([4]))
    assert part.fingerprint != clips.fingerprint == clips.fingerprint
    masked = clips.subset(clips.labels == 1)
    assert masked.names.tolist() == ["b", "e", "h"]
    assert masked.fingerprint == clips.subset([1, 4, 7]).fingerprint
    assert len(clips.subset([])) == 0
    assert [positions.tolist() for positions in clips.by_class()] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_to_cpu_copies_nothing_and_warns_of_nothing(tiny_motions):
    clips = open_clips(tiny_motions, "test", **SHAPE)
    assert isinstance(clips.videos, np.memmap)
    resident = clips.to("cpu")
    assert resident.videos.data_ptr() == clips.videos.ctypes.data
    assert torch.equal(resident.to("cpu").batch([1]), clips.batch([1]))


@pytest.mark.parametrize(
    ("gigabytes", "frames", "size", "expected"),
    [(80, 16, 112, 128), (24, 16, 112, 128), (16, 16, 112, 64), (8, 16, 112, 32), (8, 8, 64, 128), (1e-3, 16, 112, 1)],
)
def test_a_small_gpu_takes_fewer_clips_at_once(monkeypatch, gigabytes, frames, size, expected):
    """40 MB for each of 16x112x112, in a quarter of the memory."""
    memory = SimpleNamespace(total_memory=int(gigabytes * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    clips = Clips(np.empty((0, frames, size, size, 3), np.uint8), *[np.empty(0)] * 2, [], *[np.empty(0)] * 2, False, "")
    assert clips.at_once == CHUNK
    monkeypatch.setattr(Clips, "device", torch.device("cuda"))
    assert clips.at_once == expected


def test_memory_that_a_clip_takes():
    """What autograd keeps of one, and the gradient of the first layer, which is as large as its output."""
    net, clip, kept = C3D(1, 8, 64).requires_grad_(False), torch.zeros(1, 8, 3, 64, 64, requires_grad=True), {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net.embed(clip)
    for weight in net.parameters():
        kept.pop(weight.data_ptr(), None)
    first = net.trunk[0](clip.transpose(1, 2)).nbytes
    assert 0.99 < (sum(kept.values()) + first) / (BYTES_A_PIXEL * 8 * 64 * 64) <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_to_cuda_holds_the_rows_in_use(clips):
    part = clips.subset([4, 1, 0]).to("cuda")
    assert part.videos.shape[0] == 3 and part.videos.dtype == torch.uint8
    torch.testing.assert_close(part.batch([2, 0]).cpu(), clips.batch([0, 4]))


def test_clips_hold_the_right_pixels(tiny_motions, tmp_path):
    train = open_clips(tiny_motions, "train", **SHAPE, seed=1, workers=2, cache=tmp_path)
    test = open_clips(tiny_motions, "test", **SHAPE, cache=tmp_path)
    assert (len(train), len(test)) == (32, 16)
    assert train.classes == ["Disc", "Square", "MoveLeft", "MoveRight"] and not train.flip
    assert train.labels.dtype == train.rows.dtype == np.int64
    assert set(train.groups) == {"g02", "g03"} and set(test.groups) == {"g01"}
    for video, name, label, row, path in zip(tiny_motions.test, test.names, test.labels, test.rows, test.paths):
        assert (video.name, video.label, str(video.path)) == (name, label, path)
        np.testing.assert_array_equal(test.videos[row], decode_clip(video.path, 8, 4, 48, "centre")[0])
    places = set()
    for row, video in enumerate(tiny_motions.train[:12]):  # 12 places of the window: 40 - 7 * 4
        windows = (decode_clip(video.path, 8, 4, 48, (place + 0.5) / 12)[0] for place in range(12))
        places.add(next(i for i, window in enumerate(windows) if (train.videos[row] == window).all()))
    assert len(places) > 3


def test_bad_videos_are_named_once_and_left_out(tmp_path):
    root = write_dataset(tmp_path / "data", clips=6)
    folder = root / "A"
    whole = (folder / "v_A_g02_c01.avi").read_bytes()
    (folder / "v_A_g02_c01.avi").write_bytes(b"")
    (folder / "v_A_g02_c02.avi").write_bytes(whole[: len(whole) // 2])
    (folder / "v_A_g02_c03.avi").write_text("this is no video\n" * 9)
    (folder / "v_A_g02_c04.avi").unlink()
    mp4 = write_video(folder / "v_A_g02_c04.mp4", 30, codec="libx264").read_bytes()
    (folder / "v_A_g02_c04.mp4").write_bytes(mp4[: len(mp4) // 2])
    dataset = load("ucf101", root)
    with pytest.warns(UserWarning, match=r"4 of 12 videos of ucf101 train left out \(v_A_g02_c01: empty") as caught:
        clips = open_clips(dataset, "train", **SHAPE, cache=tmp_path)
    assert len(caught) == 1
    assert clips.names.tolist()[:2] == ["v_A_g02_c05", "v_A_g02_c06"] and len(clips) == 8
    assert clips.rows.tolist() == list(range(4, 12)) and clips.labels.tolist() == [0, 0] + [1] * 6
    assert clips.paths.tolist() == [str(video.path) for video in dataset.train[4:]]
    np.testing.assert_array_equal(clips.videos[clips.rows[0]][0].shape, (48, 48, 3))
    (report,) = tmp_path.glob("clips/*/report.txt")
    assert str(report) in str(caught[0].message)
    lines = report.read_text().splitlines()
    assert lines[0] == "ucf101 train: 4 of 12 videos left out: delete this folder to try them again"
    for line, reason in zip(lines[1:], ["empty file", "truncated", "unreadable", "unreadable"], strict=True):
        assert str(folder) in line and reason in line
    assert [entry["row"] for entry in json.loads(report.with_suffix(".json").read_text())] == [0, 1, 2, 3]
    with poisoned(), pytest.warns(UserWarning, match="4 of 12"):
        assert open_clips(dataset, "train", **SHAPE, cache=tmp_path).fingerprint == clips.fingerprint
        found = decode_report(dataset, "train", **SHAPE, cache=tmp_path)
    assert [entry["error"].split()[0] for entry in found[:4]] == ["empty", "truncated:", "unreadable", "unreadable"]
    assert [entry["frames"] for entry in found[4:]] == [25, 26, 21, 22, 23, 24, 25, 26]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of files are Unicode there")
def test_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / "own" / "talk"
    folder.mkdir(parents=True)
    for name in (b"0", b"1", b"caf\xe9", b"th\xe9"):
        write_video(tmp_path / "video.avi", 20, width=64, height=48).rename(folder / os.fsdecode(name + b".avi"))
    (folder / os.fsdecode(b"th\xe9.avi")).write_bytes(b"")
    dataset = load("folder", tmp_path / "own")
    whole = replace(dataset, test=dataset.train + dataset.test)
    with pytest.warns(UserWarning, match=r"1 of 4 videos .*talk/th.*: empty file"):
        clips = open_clips(whole, "test", **SHAPE, cache=tmp_path)
    assert set(clips.names) == {"talk/0", "talk/1", os.fsdecode(b"talk/caf\xe9")}
    (report,) = tmp_path.glob("clips/*/report.txt")
    assert "talk/th\\udce9.avi: empty file" in report.read_text()
    assert json.loads(report.with_suffix(".json").read_text())[0]["name"] == os.fsdecode(b"talk/th\xe9")


def test_a_class_left_empty_is_an_error(tmp_path):
    root = write_dataset(tmp_path / "data")
    (root / "B" / "v_B_g01_c01.avi").write_bytes(b"")
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"no test clip of class B of ucf101 .*report\.txt"),
    ):
        open_clips(load("ucf101", root), "test", **SHAPE, cache=tmp_path)
    found = decode_report(load("ucf101", root), "test", **SHAPE, cache=tmp_path)
    assert [entry.get("frames") for entry in found] == [20, None] and found[1]["error"] == "empty file"


def test_a_hanging_decoder_is_reported(tmp_path, monkeypatch):
    dataset = load("ucf101", write_dataset(tmp_path / "data"))
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", "import time; time.sleep(60)"))
    with (
        pytest.warns(UserWarning, match=r"4 of 4 .*timed out after 0\.2 s"),
        pytest.raises(ValueError, match="A, B"),
    ):
        open_clips(dataset, "train", **SHAPE, timeout=0.2, cache=tmp_path)


def test_unknown_split(tiny_motions):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        open_clips(tiny_motions, "validation", **SHAPE)


def test_real_avis(test_data, tmp_path):
    root, lists = test_data / "ucf101_avi", test_data / "splits" / "ucf101"
    with pytest.warns(UserWarning, match="13296 of 13320"):
        dataset = load("ucf101", root, lists=lists, missing="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test = (open_clips(dataset, s, frames=16, stride=4, size=112, cache=tmp_path) for s in ("train", "test"))
    assert len(train) == len(test) == 12 and train.flip
    np.testing.assert_array_equal(test.videos[3], decode_clip(dataset.test[3].path, 16, 4, 112)[0])
    assert os.listdir(tmp_path) == ["clips"]
