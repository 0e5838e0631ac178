"""What an identity is made of: every image of a frame folder, every file's size, and nothing of this machine."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_dataset
from PIL import Image
from test_cache import SHAPE

from david import Experiment, Store, preset
from david.data import identity
from david.data.clips import open_clips
from david.data.readers import digest, load

NAMES = [f"v_{title}_g{group:02d}_c01" for title in "AB" for group in (1, 2, 3)]


def write_frames(root, shade=0):
    """Six folders of PNG images that are all of one size in bytes, and their list."""
    for number, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for i in range(10):
            draw(root / name / f"img_{i + 1:05d}.png", 100 + 9 * number + i + shade)
    rows = [f"{name},{name[2]},{'test' if 'g01' in name else 'train'}" for name in NAMES]
    (root / "list.csv").write_text("\n".join(["folder_name,label,split", *rows]))
    return root


def draw(path, shade):
    Image.fromarray(np.full((48, 64, 3), shade % 256, np.uint8)).save(path, compress_level=0)


def frames(root, **options):
    return load("frames", root, lists=root / "list.csv", **options)


def prints(dataset):
    return [identity.fingerprint(dataset, split, {"any": 1}) for split in ("train", "test")]


def replace(folder):
    """Another image of the same size, with the time of the one that it replaces."""
    path = folder / "img_00004.png"
    before = path.stat()
    draw(path, 250)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def swap(folder):
    """Two images that change places."""
    one, other = folder / "img_00002.png", folder / "img_00007.png"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


def add(folder):
    draw(folder / "img_00011.png", 1)


def remove(folder):
    (folder / "img_00010.png").unlink()


def rename(folder):
    for i in range(1, 11):
        (folder / f"img_{i:05d}.png").rename(folder / f"frame{i}.png")


def exchange(folder):
    """A folder of the same names, sizes and times."""
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    draw(other / "img_00001.png", 3)
    for path in folder.iterdir():
        shutil.copystat(path, other / path.name)
    folder.rename(folder.with_name("before"))
    other.rename(folder)


@pytest.mark.parametrize("change", [replace, swap, add, remove, rename, exchange])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_change_of_an_image_is_seen(tmp_path, change, split):
    root, cache = write_frames(tmp_path / "frames"), tmp_path / "cache"
    before, listed = prints(frames(root)), frames(root).fingerprint
    clips = open_clips(frames(root), split, **SHAPE, cache=cache)
    change(root / NAMES[1 if split == "train" else 0])
    dataset = frames(root)
    changed = [a != b for a, b in zip(before, prints(dataset))]
    assert changed == [split == "train", split == "test"] and dataset.fingerprint == listed
    again = open_clips(dataset, split, **SHAPE, cache=cache)
    assert again.fingerprint != clips.fingerprint and len(list((cache / "clips").iterdir())) == 2


def test_an_identity_is_of_the_images_alone(tmp_path, monkeypatch):
    """Not of place, time, or what else lies in the folder; hashed once, and without a cache as well."""
    root = write_frames(tmp_path / "here")
    before = prints(frames(root))
    monkeypatch.setattr(identity, "frame_hash", lambda folder: pytest.fail("these were hashed already"))
    assert prints(frames(root)) == before
    (root / NAMES[1] / "Thumbs.db").write_bytes(b"of another program")
    (root / NAMES[1] / "notes").mkdir()
    assert prints(frames(root)) == before
    monkeypatch.undo()
    shutil.copytree(root, tmp_path / "there")
    for path in (tmp_path / "there").rglob("*.png"):
        os.utime(path, (1, 1))
    monkeypatch.setenv("DAVID_CACHE", "/dev/null/cache")
    assert prints(frames(tmp_path / "there")) == before


def test_flow_is_not_served_the_record_of_colour(tmp_path):
    roots = [write_frames(tmp_path / name, shade) for name, shade in (("rgb", 0), ("flow", 60))]
    settings = preset("smoke", width=0.125, student_steps=1, student_repeats=1)

    def experiment(root, runs, published=None):
        options = {"lists": root / "list.csv"}
        return Experiment("frames", settings, Store(tmp_path / runs, published), root=root, options=options)

    record = experiment(roots[0], "runs").run("random")
    assert experiment(roots[0], "runs").run("random") == record | {"path": record["path"]}
    with pytest.raises(ValueError, match="is of other clips of the same names"):
        experiment(roots[1], "runs").run("random")
    other = experiment(roots[1], "mine", published=tmp_path / "runs").run("random")  # a published one is passed over
    assert other["data"]["train"] != record["data"]["train"] and other["path"].parent == tmp_path / "mine"


def test_a_video_file_counts_by_name_and_size(tmp_path, tiny_motions):
    """By hand: published records depend on it."""
    dataset = load("ucf101", write_dataset(tmp_path))
    names = [video.name for video in dataset.train]
    sizes = [video.path.stat().st_size for video in dataset.train]
    assert identity.fingerprint(dataset, "train", {"frames": 8}, without=[names[1]]) == digest(
        dataset.fingerprint, "train", {"frames": 8}, [names[0], *names[2:]], [sizes[0], *sizes[2:]]
    )
    assert identity.sources(dataset, "train") == sizes
    names = [video.name for video in tiny_motions.test]
    assert identity.fingerprint(tiny_motions, "test", {}) == digest(tiny_motions.fingerprint, "test", {}, names)


def test_a_file_that_is_gone_is_one_sentence(tmp_path):
    dataset = load("ucf101", write_dataset(tmp_path))
    Path(dataset.test[1].path).unlink()
    with pytest.raises(FileNotFoundError, match=r"v_B_g01_c01.avi is not to be read \(No such file.*: bring it"):
        open_clips(dataset, "test", **SHAPE, cache=tmp_path)
