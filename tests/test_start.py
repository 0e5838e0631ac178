"""Where the videos start."""

import numpy as np
import pytest
import torch
from toy import clips_of, counting_clips, shades

from david.matching import start_videos
from david.support.pixels import denormalise


def test_noise_start_is_normal_and_ignores_the_policy():
    train = clips_of(np.zeros((2, 8, 64, 64, 3), dtype=np.uint8), [0, 1])
    full, mixed = (start_videos(train, torch.tensor(p), ipc=2, seed=3, kind="noise") for p in ([8, 8], [1, 4]))
    assert full.shape == (2, 2, 8, 3, 64, 64) and full.dtype == torch.float32
    assert torch.equal(full, mixed)
    assert abs(full.mean()) < 0.01 and abs(full.std() - 1) < 0.01
    assert (full.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.005)
    assert (full.abs() < 2).float().mean().item() == pytest.approx(0.9545, abs=0.005)
    assert not torch.equal(full, start_videos(train, torch.tensor([8, 8]), ipc=2, seed=4, kind="noise"))


def test_real_start_at_full_resolution_is_real_clips():
    train = counting_clips()
    videos = start_videos(train, torch.tensor([8, 8]), ipc=3, seed=0, kind="real")
    clip, frame = shades(videos)
    assert (frame == torch.arange(8)).all()
    assert (clip == clip[..., :1]).all()
    for c in range(2):
        used = clip[c, :, 0].tolist()
        assert len(set(used)) == 3 and set(used) <= set(train.by_class()[c].tolist())
        assert torch.equal(videos[c], train.batch(used))


@pytest.mark.parametrize(("length", "shown"), [(1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7])])
def test_real_start_of_a_partition_is_a_collage(length, shown):
    train = counting_clips()
    clip, frame = (x.reshape(-1, length) for x in shades(segments(train, length)))
    assert (frame == torch.tensor(shown)).all()
    assert (clip == clip[:, :1]).all()
    used = clip[:, 0].tolist()
    own = [0, 2, 4, 6, 8]
    counts = [used.count(i) for i in own]
    assert sum(counts) == len(used) == 8 // length
    assert max(counts) - min(counts) <= 1  # clips repeat only when a class has too few
    assert length == 1 or max(counts) == 1


def segments(train, length, seed=0):
    """Class 0 of the real start in which the two classes have different L."""
    return start_videos(train, torch.tensor([length, 8]), ipc=1, seed=seed, kind="real")[0]


def test_real_start_depends_on_the_seed_and_takes_the_same_clips_first_for_every_policy():
    train = counting_clips()
    full, half = (shades(segments(train, length))[0].flatten() for length in (8, 4))
    assert torch.equal(segments(train, 4), segments(train, 4))
    assert full[0] == half[0] != half[-1]
    firsts = {shades(segments(train, 8, seed))[0].flatten()[0].item() for seed in range(20)}
    assert len(firsts) > 2


def flat_clips(brightness, labels=None):
    """Clips of 2x2 pixels, each of one brightness in its first frame and by f brighter in frame f."""
    shades = (np.array(brightness)[:, None] + np.arange(8)).astype(np.uint8)
    return clips_of(
        np.broadcast_to(shades[:, :, None, None, None], (*shades.shape, 2, 2, 3)), labels or [0] * len(shades)
    )


def means(train, lengths, ipc=1, **options):
    """What the start from means stores: the brightness of every frame of every segment, sorted by segment."""
    videos = start_videos(train, torch.tensor(lengths), ipc=ipc, seed=0, kind="mean", **options)
    pixels = denormalise(videos)
    assert (pixels == pixels[..., :1, :1, :1]).all()
    return [own.view(-1, length).tolist() for own, length in zip(pixels[..., 0, 0, 0], lengths)]


def test_one_mean_of_whole_clips_is_the_pixel_mean():
    train = flat_clips([10, 10, 11, 200, 220, 240], [0, 0, 0, 1, 1, 1])
    videos = start_videos(train, torch.tensor([8, 8]), ipc=1, seed=0, kind="mean")
    for c, own in enumerate(train.by_class()):
        torch.testing.assert_close(videos[c, 0], train.batch(own).mean(0), rtol=0, atol=1e-6)
    assert means(train, [8, 8]) == [[[10 + f for f in range(8)]], [[220 + f for f in range(8)]]]


def test_several_means_are_centres_of_what_belongs_together():
    """Two kinds of clips, and two segments of 4 frames; then clips of three kinds, in videos of whole clips."""
    ((first, second),) = means(flat_clips([0, 101, 2, 100, 1, 102]), [4])
    assert sorted([first, second]) == [[1 + f for f in (1, 3, 5, 7)], [101 + f for f in (1, 3, 5, 7)]]
    found = means(flat_clips([10, 210, 14, 120, 122, 212]), [8], ipc=3)[0]
    assert sorted(found) == [[level + f for f in range(8)] for level in (12, 121, 211)]


def test_means_repeat_where_a_class_has_fewer_clips():
    (found,) = means(flat_clips([10, 50]), [1])  # 8 segments of one frame, the middle one
    assert found[:2] * 4 == found and sorted(found[:2]) == [[14], [54]]


def test_means_of_some_classes_are_those_among_all():
    train = flat_clips([0, 9, 60, 200, 3, 77, 150, 250], [0, 1] * 4)
    whole = start_videos(train, torch.tensor([4, 2]), ipc=1, seed=1, kind="mean")
    part = start_videos(train, torch.tensor([2]), ipc=1, seed=1, kind="mean", classes=range(1, 2))
    assert torch.equal(part, whole[1:])


def test_start_errors():
    train = counting_clips()
    with pytest.raises(ValueError, match="unknown start 'zeros'; choose 'noise', 'real' or 'mean'"):
        start_videos(train, torch.tensor([8, 8]), ipc=1, seed=0, kind="zeros")
    with pytest.raises(ValueError, match=r"frames_per_segment=3 does not divide the 8 frames"):
        start_videos(train, torch.tensor([8, 3]), ipc=1, seed=0, kind="real")
