"""The embedded data: real files, the same for one seed, told apart by shape or by movement alone."""

import inspect
from dataclasses import replace

import av
import numpy as np
import pytest

from david.data.decode import decode_clip
from david.data.readers import load, motions
from david.data.readers.motions import (
    APPEARANCE,
    FRAMES,
    HEIGHT,
    KIND,
    MOTION,
    WIDTH,
    Nuisance,
    render,
    trajectory,
)

SMALL = {"classes": ("Ring", "Grow"), "clips_per_group": 1, "train_groups": 1, "test_groups": 1}
SEVERE = Nuisance(texture=0.3, colour=1, size=0.5, position=1, speed=0.6, noise=0.05)


def every_frame(video):
    """All 40 frames as they are decoded: uint8 (40, 48, 48, 3)."""
    return decode_clip(video.path, FRAMES, 1, 48)[0]


def paths(name, nuisance, count=400, seed=0):
    """x, y and radius over time of `count` clips of one class: (count, 3, 40)."""
    rng = np.random.default_rng(seed)
    scale, speed = 1 + nuisance.size * rng.uniform(-1, 1, count), 1 - nuisance.speed * rng.uniform(size=count)
    return np.array([trajectory(name, a, b, nuisance.position, rng) for a, b in zip(scale, speed)])


def test_layout_and_splits(tiny_motions):
    assert tiny_motions.name == "motions" and not tiny_motions.flip
    assert (len(tiny_motions.train), len(tiny_motions.test)) == (32, 16)
    assert {v.group for v in tiny_motions.test} == {"g01"} and {v.group for v in tiny_motions.train} == {
        "g02",
        "g03",
    }
    root = tiny_motions.train[0].path.parents[1]
    assert tiny_motions.train[0].path == root / "Disc" / "v_Disc_g02_c01.avi"
    assert load("ucf101", root).train[0].label == tiny_motions.train[0].label
    assert not list(root.parent.glob(".motions*"))


def test_the_full_dataset_is_large_enough():
    options = {name: p.default for name, p in inspect.signature(motions.motions).parameters.items()}
    assert options["classes"] == APPEARANCE + MOTION and len(APPEARANCE) == len(MOTION) == 6
    assert options["clips_per_group"] * options["train_groups"] == 64
    assert options["clips_per_group"] * options["test_groups"] == 32
    assert list(KIND) == [*APPEARANCE, *MOTION] and set(KIND.values()) == {"appearance", "motion"}
    assert not set(motions.OBJECTS) & set(APPEARANCE)


def test_files_are_mpeg4_as_ucf101s_are(tiny_motions):
    with av.open(str(tiny_motions.train[0].path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (
            WIDTH,
            HEIGHT,
            FRAMES,
            25,
        )
        assert stream.codec_context.name == "mpeg4" and stream.codec_context.codec_tag == "XVID"
        kinds = {av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(stream)}
    assert kinds == {"I", "P"}


def test_what_is_rendered_is_what_is_read(tiny_motions):
    for video, name in ((tiny_motions.train[0], "Disc"), (tiny_motions.train[-1], "MoveRight")):
        group, clip = int(video.group[1:]), int(video.name[-2:])
        rendered = render(name, group, clip, 0, Nuisance()).astype(float)
        with av.open(str(video.path)) as container:
            read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert np.abs(read - rendered).mean() < 4  # of 255, after coding


def test_one_seed_gives_the_same_pixels(tmp_path):
    first, second = (load("motions", tmp_path / place, **SMALL) for place in ("a", "b"))
    other = load("motions", tmp_path / "a", seed=1, **SMALL)
    for a, b, c in zip(first.train + first.test, second.train + second.test, other.train + other.test):
        np.testing.assert_array_equal(every_frame(a), every_frame(b))
        assert (every_frame(a) != every_frame(c)).any()
    assert first.fingerprint == second.fingerprint != other.fingerprint
    harder = load("motions", tmp_path / "a", nuisance=replace(Nuisance(), noise=0.05), **SMALL)
    assert harder.fingerprint != first.fingerprint and harder.train[0].path != first.train[0].path


def test_it_is_made_once(tmp_path, monkeypatch):
    made = load("motions", tmp_path, **SMALL)
    monkeypatch.setattr(motions, "render", lambda *a: pytest.fail("rendered again"))
    assert load("motions", tmp_path, **SMALL) == made


def test_an_interrupted_run_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    def stop(path, video, encode=motions.encode):
        encode(path, video)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(motions, "encode", stop)
        load("motions", tmp_path, **SMALL)
    assert [path.name[:8] for path in tmp_path.iterdir() if path.is_dir()] == [".motions"]
    dataset = load("motions", tmp_path, **SMALL)
    assert [path.name[:7] for path in tmp_path.iterdir() if path.is_dir()] == ["motions"]
    assert all(every_frame(video).any() for video in dataset.train)


@pytest.mark.parametrize("name", KIND)
def test_objects_stay_in_the_crop(name):
    x, y, radius = paths(name, Nuisance()).transpose(1, 0, 2)
    visible = 112 / 160 * WIDTH / 2  # from the middle to where the crop cuts, in pixels of the file
    assert (np.abs(x) + radius).max() <= visible and (np.abs(y) + radius).max() <= visible
    assert radius.min() > 2.5


@pytest.mark.parametrize("nuisance", [Nuisance(), SEVERE])
def test_a_single_frame_does_not_tell_a_class_from_its_reverse(nuisance):
    """x, y and size of one random frame a clip have one distribution in both (Kolmogorov-Smirnov test)."""
    count = 2000
    frames = {}
    for seed, name in enumerate(MOTION):
        chosen = np.random.default_rng(seed + 99).integers(FRAMES, size=count)
        frames[name] = paths(name, nuisance, count, seed)[np.arange(count), :, chosen]
    for back, forth in zip(MOTION[::2], MOTION[1::2], strict=True):
        for axis in range(3):
            a, b = np.sort(frames[back][:, axis]), np.sort(frames[forth][:, axis])
            both = np.concatenate([a, b])
            gap = np.abs(np.searchsorted(a, both, "right") - np.searchsorted(b, both, "right")).max() / count
            assert gap < 1.95 * np.sqrt(2 / count), (back, axis)  # p = 0.001


def test_movement_tells_motion_classes_apart():
    """One coordinate moves, always in the class's direction but for the jump when it comes round."""
    for i, (back, forth) in enumerate(zip(MOTION[::2], MOTION[1::2], strict=True)):
        for name, sign in ((back, -1), (forth, 1)):
            moved = np.sign(np.diff(paths(name, Nuisance()), axis=2))
            against = (moved[:, i] != sign).sum(1)
            assert against.max() <= 2 and against.mean() > 1
            assert (np.delete(moved, i, axis=1) == 0).all()


def test_appearance_classes_share_one_law_of_movement():
    drift = [paths(name, Nuisance(), seed=3) for name in APPEARANCE]
    assert all(np.array_equal(drift[0], other) for other in drift[1:])
    assert np.abs(drift[0][:, 0, -1] - drift[0][:, 0, 0]).max() < 0.2 * WIDTH / 2  # and it is small


def test_a_groups_look_is_the_same_in_every_class():
    """Colour, ground, size and object go with the group, so that they say nothing about the class."""
    plain = replace(Nuisance(), texture=0, noise=0)
    borders = {name: render(name, 3, 1, 0, plain)[0, 0, 0].astype(int) for name in KIND}
    assert max(np.abs(a - borders["Disc"]).max() for a in borders.values()) < 40
    borders = np.array([render("Disc", group, 1, 0, plain)[0, 0, 0] for group in range(1, 13)])
    assert len(np.unique(borders, axis=0)) == 12


def test_nuisances_can_be_switched_off():
    video = render("MoveUp", 2, 1, 0, Nuisance(0, 0, 0, 0, 0, 0))
    assert (video == video[..., :1]).all()  # grey
    ground = video[0, 0, 0, 0]
    assert ((video == ground) | (video > ground)).all() and video.max() == 255
    assert (video[:, :3] == ground).all()


def test_directions_are_the_right_way_round():
    """In pixels, left is left, up is up, and what grows grows: most frames show it, whatever jumps between."""
    places = np.arange(WIDTH) - WIDTH / 2, np.arange(HEIGHT) - HEIGHT / 2

    def steps(name):
        bright = np.maximum(render(name, 5, 1, 0, Nuisance()).mean(-1) - 120, 0)
        if name in ("Shrink", "Grow"):
            return np.diff((bright > 0).sum((1, 2)))
        over, place = (1, places[0]) if name in ("MoveLeft", "MoveRight") else (2, places[1])
        return np.diff((bright.sum(over) * place).sum(1) / bright.sum((1, 2)))

    for back, forth in zip(MOTION[::2], MOTION[1::2], strict=True):
        assert np.median(steps(back)) < -0.2 and np.median(steps(forth)) > 0.2, back


def test_unknown_classes_and_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown classes \['Spin'\]; known: Disc"):
        load("motions", tmp_path, classes=("Disc", "Spin"))
    with pytest.raises(ValueError, match="one split"):
        load("motions", tmp_path, split=2)
    for wrong in ({"size": 0.6}, {"noise": -0.1}, {"speed": 1.5}):
        with pytest.raises(ValueError, match="each must lie in"):
            Nuisance(**wrong)
    assert not list(tmp_path.iterdir())
