"""What other programs get: the same pixels, in the same order, from an archive and from real video files."""

import io
import tarfile

import numpy as np
import pytest
import torch
from conftest import write_video as write_avi
from PIL import Image

from david import export
from david.baselines.static_dynamic import StaticDynamicSet
from david.data.decode import decode_clip
from david.partition import partition
from david.sets import DistilledSet
from david.support.pixels import normalise


def smooth(size=64, frames=8, seed=0):
    """A clip such as a codec likes: uint8 (F, size, size, 3), a bright square on a gradient, moving."""
    clip = np.repeat(np.arange(size, dtype=np.uint8)[None, :, None, None], frames, 0).repeat(size, 2).repeat(3, 3)
    for t in range(frames):
        clip[t, 8:24, 4 * t + seed : 4 * t + seed + 16] = (220, 120 + seed, 40)
    return clip


@pytest.fixture
def data():
    """Two classes of one stored video of 8 frames: L = 2 and L = 8."""
    videos = normalise(torch.from_numpy(np.stack([smooth(), smooth(seed=9)]))[:, None])
    return DistilledSet(videos, torch.tensor([2, 8]), ["Zürich", "b c"])


@pytest.mark.parametrize("size", [48, 49, 64])
def test_lossless_video_is_exact(tmp_path, size):
    video = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    path = export.write_video(tmp_path / "v.mp4", video, crf=0)
    assert np.array_equal(export.read_video(path), video)
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_lossy_video_is_small_near_and_read_by_our_own_decoder(tmp_path):
    video = smooth()
    paths = [export.write_video(tmp_path / f"{crf}.mp4", video, crf=crf) for crf in (0, 18, 40)]
    exact, near, rough = (path.stat().st_size for path in paths)
    assert exact > near > rough
    assert np.abs(export.read_video(paths[1]).astype(int) - video).mean() < 3
    clip, frames = decode_clip(paths[1], frames=8, stride=1, size=64)
    assert frames == 8 and np.abs(clip.astype(int) - video).mean() < 3


def test_read_video_reads_other_peoples_files(tmp_path):
    assert export.read_video(write_avi(tmp_path / "a.avi", 12)).shape == (12, 120, 160, 3)


def test_odd_sides(tmp_path):
    with pytest.raises(ValueError, match=r"v\.mp4: H\.264 takes even sides, not 49 x 48; with crf=0 it takes any"):
        export.write_video(tmp_path / "v.mp4", np.zeros((2, 48, 49, 3), np.uint8))


def test_an_archive_needs_numpy_alone(tmp_path, data):
    with np.load(export.to_npz(data, tmp_path / "set.npz")) as content:  # allow_pickle is False
        assert content["videos"].dtype == np.uint8 and content["videos"].shape == (2, 1, 8, 64, 64, 3)
        assert np.array_equal(content["videos"][1, 0], smooth(seed=9))
        assert content["frames_per_segment"].tolist() == [2, 8]
        assert content["classes"].tolist() == ["Zürich", "b c"]


def test_videos_are_the_training_clips_in_order(tmp_path, data):
    paths = export.to_videos(data, tmp_path / "out", crf=0)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in paths]
    assert names == [f"Zürich/clip00{i}.mp4" for i in range(4)] + ["b c/clip000.mp4"]
    expected = partition(torch.from_numpy(smooth())[None], 2).numpy()
    for path, clip in zip(paths, [*expected, smooth(seed=9)], strict=True):
        assert np.array_equal(export.read_video(path), clip)


@pytest.mark.parametrize(("format", "files"), [("mp4", 5), ("png", 40), ("npz", 1), ("webdataset", 1)])
def test_every_format_is_read_by_others_and_says_what_was_lost(tmp_path, data, format, files):
    said = data.export(tmp_path / "out", format)
    lost = said.pop("error")
    assert said == {"files": files} and (0 < lost < 3) == (format == "mp4")
    first = partition(torch.from_numpy(smooth())[None], 2).numpy()[0]
    if format == "png":
        names = sorted((tmp_path / "out" / "Zürich" / "clip000").iterdir())
        assert np.array_equal(np.stack([np.array(Image.open(path)) for path in names]), first)
    if format == "webdataset":
        with tarfile.open(tmp_path / "out" / "clips.tar") as tar:
            assert [m.name for m in tar][::2] == [f"00000{i}.npy" for i in range(5)]
            assert np.array_equal(np.load(io.BytesIO(tar.extractfile("000000.npy").read())), first)
            assert tar.extractfile("000004.cls").read() == b"1"


def test_formats_and_a_preview(tmp_path, data):
    with pytest.raises(ValueError, match="format='avi': choose 'mp4', 'png', 'npz' or 'webdataset'"):
        data.export(tmp_path, "avi")
    shown = Image.open(io.BytesIO(data.preview().data))
    assert shown.format == "GIF" and shown.size == (6 * 64, 64) and shown.n_frames == 8


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/b", "..", "", "b c"])
def test_a_class_cannot_leave_the_folder_or_share_one(tmp_path, data, name):
    data.classes[0] = name
    with pytest.raises(
        ValueError, match=f"class {name!r} cannot be a folder of its own in .*out; give data.classes other"
    ):
        export.to_videos(data, tmp_path / "in" / "out")
    assert not list(tmp_path.iterdir())


def test_a_set_without_videos_has_clips_but_no_archive(tmp_path):
    random = torch.Generator().manual_seed(0)
    static, dynamic = torch.rand(1, 2, 3, 16, 16, generator=random), torch.rand(1, 2, 4, 1, 16, 16, generator=random)
    data = StaticDynamicSet(static, dynamic, torch.rand(3, 4, 3, 3, 3, generator=random) / 30, torch.zeros(3), ["a"])
    assert len(export.to_videos(data, tmp_path, crf=0)) == 4
    with pytest.raises(ValueError, match="a StaticDynamicSet does not store videos; write its clips with to_videos"):
        export.to_npz(data, tmp_path / "set.npz")
