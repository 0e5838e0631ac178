"""Coresets of real clips: Herding and K-Center against brute force, and KeyFrame on real files."""

import itertools
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from conftest import write_dataset, write_video
from test_video import reference
from toy import noise_clips

from david.baselines.selections import herd, herding, k_center, kcenter, key_frames, keyframe, random
from david.data.clips import open_clips
from david.data.decode import DecodeError, decode_frames
from david.data.readers import load
from david.matching import random_clips
from david.runs.settings import preset
from david.support.pixels import denormalise, normalise
from david.training import embed_clips, load_teacher

TINY = preset("smoke", width=0.125, teacher_steps=1)
LINE = torch.tensor([[0.0], [1.0], [2.0], [9.0]])  # their mean is 3


@pytest.fixture(scope="module")
def train():
    """Classes of 5, 4 and 3 clips."""
    return noise_clips(labels=(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 0))


def points(seed, count=9, dim=3):
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive_herding(features, count):
    """Pick by pick, as the papers say it."""
    rows, mean, chosen = features.tolist(), features.mean(0).tolist(), []

    def score(x):
        total = [sum(rows[j][d] for j in chosen) for d in range(len(mean))]
        return sum(((len(chosen) + 1) * m - s - v) ** 2 for m, s, v in zip(mean, total, rows[x]))

    for _ in range(count):
        chosen.append(min((x for x in range(len(rows)) if x not in chosen), key=score))
    return chosen


def naive_k_center(features, count):
    """From the whole matrix of distances."""
    apart = (features[:, None] - features[None]).norm(dim=2)
    chosen = [int((features - features.mean(0)).norm(dim=1).argmin())]
    while len(chosen) < count:
        others = [x for x in range(len(features)) if x not in chosen]
        chosen.append(max(others, key=lambda x: apart[x, chosen].min()))
    return chosen


def test_herding_by_hand():
    # Looked for: 3, then 6 - 2 = 4 (1 is nearer than 9; 2 is taken), then 9 - 3 = 6.
    assert herd(LINE, 4).tolist() == [2, 1, 3, 0]
    assert herd(LINE, 1).dtype == torch.int64 and herd(LINE, 1).shape == (1,)


def test_k_center_by_hand():
    assert k_center(LINE, 4).tolist() == [2, 3, 0, 1]  # nearest to 3; 7 away; 2 away; the last
    assert k_center(LINE, 1).dtype == torch.int64 and k_center(LINE, 1).shape == (1,)


@pytest.mark.parametrize(("choose", "naive"), [(herd, naive_herding), (k_center, naive_k_center)])
def test_choices_equal_brute_force_at_every_count(choose, naive):
    for seed, count in itertools.product(range(5), range(1, 10)):
        features = points(seed) + 5  # away from 0, so that the mean matters
        assert choose(features, count).tolist() == naive(features, count)


@pytest.mark.parametrize("choose", [herd, k_center])
def test_copies_are_not_chosen_twice(choose):
    features = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [4.0, 4.0], [1.0, 2.0]])
    for count in range(1, 6):
        assert len(set(choose(features, count).tolist())) == count


def test_herding_keeps_the_mean():
    features = points(0, count=200)
    error = [(features[herd(features, k)].mean(0) - features.mean(0)).norm() for k in (1, 10, 50)]
    assert error[2] < error[1] / 2 < error[0] / 4
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(200, generator=generator)[:50] for _ in range(20)]
    chance = [(features[draw].mean(0) - features.mean(0)).norm() for draw in draws]
    assert error[2] < min(chance)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_k_center_covers_within_twice_the_optimum(count):
    for seed in range(10):
        features = points(seed, count=8, dim=2)
        apart = torch.cdist(features, features)
        radius = apart[:, k_center(features, count)].amin(1).max()
        subsets = itertools.combinations(range(8), count)
        optimum = min(apart[:, list(subset)].amin(1).max() for subset in subsets)
        assert optimum <= radius + 1e-9 and radius <= 2 * optimum + 1e-9


@pytest.mark.parametrize(("method", "choose"), [(herding, herd), (kcenter, k_center)])
@pytest.mark.parametrize("seed", [0, 3])
def test_coresets_are_chosen_in_the_features_of_the_seed_s_teacher(train, method, choose, seed):
    settings = TINY.replace(teacher_seed=4)
    distilled = method(train, ipc=2, seed=seed, settings=settings)
    teacher = load_teacher(train, seed=4 + seed, settings=settings.teacher)
    features = embed_clips(teacher, train).double()
    for c, positions in enumerate(train.by_class()):
        chosen = positions[choose(features[positions], 2).numpy()]
        assert set(train.labels[chosen]) == {c}
        assert torch.equal(distilled.videos[c], train.batch(chosen))
    name = method.__name__.rpartition(".")[2]
    assert distilled.policy.tolist() == [8, 8, 8] and distilled.info == {"method": name, "seed": seed}
    assert distilled.videos.is_contiguous() and distilled.classes == train.classes


def test_coresets_of_seed_0_share_the_teacher_of_the_other_methods(train, tmp_path):
    load_teacher(train, seed=TINY.teacher_seed, settings=TINY.teacher, folder=tmp_path)
    for method, seed, teachers in [(herding, 0, 1), (kcenter, 0, 1), (kcenter, 1, 2), (herding, 1, 2)]:
        method(train, ipc=1, seed=seed, settings=TINY, work=tmp_path / "run")
        assert len(list(tmp_path.glob("teacher-*.safetensors"))) == teachers


@pytest.mark.parametrize("method", [random, herding, kcenter, keyframe])
def test_no_more_videos_than_the_smallest_class_has(train, method):
    with pytest.raises(ValueError, match=r"ipc=4 .* class class 2 has training clips \(3\); use at most ipc=3"):
        method(train, ipc=4, seed=0, settings=TINY)


def of_shades(*shades):
    return np.broadcast_to(np.array(shades, dtype=np.uint8)[:, None, None, None], (len(shades), 20, 20, 3))


@pytest.mark.parametrize(
    ("shades", "count", "expected"),
    [
        ([10, 14, 12, 200, 204, 202], 2, [2, 5]),  # the middles of two clusters
        ([202, 14, 204, 12, 200, 10], 2, [0, 3]),  # in the order of time
        ([10, 14, 20, 20, 20, 20, 20, 200], 2, [2, 7]),  # the first mean is 17.7; of 10, 14, 20 it would be 14.7
        ([10] * 5 + [200] * 2 + [90] * 3, 3, [0, 5, 7]),
        ([10] * 5 + [200] * 2 + [90] * 3, 8, [0, 0, 0, 5, 5, 5, 7, 7]),  # padded as frame_indices does
        ([10, 200, 90], 4, [0, 0, 1, 2]),
        ([10, 200, 90], 3, [0, 1, 2]),
        ([7] * 6, 4, [0, 0, 0, 0]),  # nothing happens, and nothing warns
        ([7], 2, [0, 0]),
    ],
)
def test_key_frames_by_hand(shades, count, expected):
    chosen = key_frames(of_shades(*shades), count)
    assert chosen.tolist() == expected and chosen.dtype == np.int64


def test_a_key_frame_is_of_its_own_cluster():
    """Clusters 2, 3, 5 and 0, 1, 4: frame 1 is the nearest to both centroids, before frame 2 by 121 to 126."""
    quarters = [
        (220, 220, 80, 120), (140, 120, 180, 60), (0, 20, 200, 80),
        (180, 20, 100, 0), (80, 240, 240, 60), (60, 100, 20, 160),
    ]  # fmt: skip
    grey = np.array(quarters, dtype=np.uint8).reshape(6, 2, 2).repeat(16, 1).repeat(16, 2)
    assert key_frames(np.repeat(grey[..., None], 3, 3), 2).tolist() == [1, 2]


def test_key_frames_always():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kinds = rng.integers(0, 256, (int(rng.integers(1, 12)), 32, 32, 3), dtype=np.uint8)
        frames = kinds[rng.integers(0, len(kinds), 20)]
        chosen = key_frames(frames, 8)
        assert len(chosen) == 8 and (np.diff(chosen) >= 0).all()
        assert len({frames[i].tobytes() for i in chosen}) == min(8, len({frame.tobytes() for frame in frames}))
        assert key_frames(frames, 8).tolist() == chosen.tolist()


LENGTHS = (4, 50, 9, 17)  # of four scenes


def write_scenes(path, lengths=LENGTHS, noise=20, seed=0):
    """A video of scenes, each a picture of its own in four quarters under noise. Returns each frame's scene, (T,)."""
    rng = np.random.default_rng(seed)
    pictures = rng.permutation(list(itertools.permutations((20, 80, 140, 200))))[: len(lengths)].reshape(-1, 2, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"qmin": "2", "qmax": "2", "threads": "1"}
        for picture in np.repeat(pictures, lengths, axis=0):
            grey = picture.repeat(24, 0).repeat(32, 1) + rng.integers(0, noise + 1, (48, 64))
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, 2).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return np.repeat(np.arange(len(lengths)), lengths)


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_key_frames_of_a_file_come_from_all_its_scenes(tmp_path, name):
    scene = write_scenes(tmp_path / name)
    frames = decode_frames(tmp_path / name, 48)
    assert frames.shape == (80, 48, 48, 3)
    for count in (4, 8, 16):
        chosen = key_frames(frames, count)
        assert set(scene[chosen]) == {0, 1, 2, 3}
        assert len(set(chosen.tolist())) == count


@pytest.mark.parametrize(("name", "options"), [("b.avi", {"bf": 2}), ("h264.mp4", {"codec": "libx264"})])
def test_whole_videos_are_decoded_exactly(tmp_path, name, options):
    path = write_video(tmp_path / name, 70, **options)
    truth = reference(path)[:, 4:116, 24:136]  # 160x120, so nothing is scaled
    np.testing.assert_array_equal(decode_frames(path, 112), truth)
    np.testing.assert_array_equal(decode_frames(path, 112, most=70), truth)
    np.testing.assert_array_equal(decode_frames(path, 112, most=10), truth[3::7][:10])  # of 7 each, the middle
    assert len(decode_frames(path, 112, most=69)) == 69


def test_half_a_video_has_no_key_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DecodeError, match=r"a\.avi: truncated"):
        decode_frames(path, 48)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Clips of real files of 80 frames: class A of four scenes, class B of one without noise, 3 videos each."""
    root = write_dataset(tmp_path_factory.mktemp("scenes") / "data", clips=3)
    for seed, path in enumerate(sorted(root.glob("*/*.avi"))):
        write_scenes(path, seed=seed, **({} if path.parent.name == "A" else {"lengths": (80,), "noise": 0}))
    return open_clips(load("ucf101", root), "train", frames=8, stride=4, size=48, cache=root.parent, workers=1)


@pytest.mark.parametrize("clips", ["memory map", "resident", "subset"])
def test_keyframe_stores_key_frames_of_the_videos_of_random(files, clips):
    clips = {"memory map": files, "resident": files.to("cpu"), "subset": files.subset([5, 4, 3, 2, 1, 0])}[clips]
    distilled = keyframe(clips, ipc=2, seed=1, settings=TINY)
    assert distilled.videos.shape == (2, 2, 8, 3, 48, 48) and distilled.videos.is_contiguous()
    assert distilled.policy.tolist() == [8, 8] and distilled.classes == ["A", "B"]
    assert distilled.info == {"method": "keyframe", "seed": 1}
    windows = random(clips, ipc=2, seed=1, settings=TINY).videos
    for c, own in enumerate(clips.by_class()):
        for i, position in enumerate(random_clips(own, 2, seed=1, label=c)):
            assert torch.equal(windows[c, i], clips.batch([position])[0])  # the same videos, in the same order
            whole = decode_frames(clips.paths[position], 48)
            expected = whole[key_frames(whole, 8)]
            assert torch.equal(distilled.videos[c, i], normalise(torch.from_numpy(expected)))


def test_keyframe_sees_what_a_window_does_not(files):
    def scenes(video):
        """How many different pictures a clip has, by the shades of their quarters."""
        return len({tuple(frame) for frame in (denormalise(video)[:, 12::24, 12::24, 0].flatten(1) // 60).tolist()})

    assert scenes(keyframe(files, ipc=1, seed=0, settings=TINY).videos[0, 0]) == 4
    assert scenes(random(files, ipc=1, seed=0, settings=TINY).videos[0, 0]) < 4


def test_keyframe_takes_the_clip_of_a_video_that_is_damaged_elsewhere(files, monkeypatch):
    def damaged(path, size):
        if path == files.paths[bad]:
            raise DecodeError(path, "damaged: frame 79 cannot be decoded")
        return decode_frames(path, size)

    bad = int(random_clips(files.by_class()[0], 1, seed=0, label=0))
    whole = keyframe(files, ipc=1, seed=0, settings=TINY).videos
    monkeypatch.setattr("david.baselines.selections.decode_frames", damaged)
    with pytest.warns(UserWarning, match=r"\.avi: damaged: frame 79 .*: KeyFrame takes the clip"):
        distilled = keyframe(files, ipc=1, seed=0, settings=TINY)
    videos = distilled.videos
    assert torch.equal(videos[0, 0], files.batch([bad])[0]) and torch.equal(videos[1], whole[1])
    assert distilled.info["damaged"] == [files.names[bad]]
    monkeypatch.undo()
    gone = replace(files, paths=np.array([f"{path}.gone" for path in files.paths]))
    with pytest.raises(FileNotFoundError, match=r"\.avi\.gone"):  # a drive that is not there is no damage
        keyframe(gone, ipc=1, seed=0, settings=TINY)


def test_keyframe_needs_files(train):
    with pytest.raises(ValueError, match=r"these clips have no paths: take them from clips\.open_clips"):
        keyframe(train, ipc=1, seed=0, settings=TINY)
