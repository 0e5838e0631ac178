"""A video unpacked into images gives the same clips as a video; a gap or a broken image gives one clear error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from david.data.decode import DecodeError, decode_clip, decode_frames, frame_indices


def unpack(folder: Path, frames: int, pattern: str = "frame%06d.jpg", first: int = 1) -> np.ndarray:
    """Write a frame folder of 160x120 and return its pixels as Pillow reads them back."""
    folder.mkdir(parents=True)
    truth = []
    for i in range(frames):
        picture = np.zeros((120, 160, 3), np.uint8)
        picture[..., 0], picture[20:60, 4 * (i % 30) :][:, :30] = 5 * i, 200
        Image.fromarray(picture).save(folder / (pattern % (i + first)), quality=95)
        truth.append(np.asarray(Image.open(folder / (pattern % (i + first)))))
    return np.stack(truth)


@pytest.mark.parametrize("pattern", ["img_%05d.jpg", "image_%05d.jpg", "frame%06d.jpg", "img_%d.jpg"])
def test_frame_folders_are_decoded_as_videos_are(tmp_path, pattern):
    truth = unpack(tmp_path / "a", 40, pattern)  # img_10.jpg comes after img_9.jpg
    (tmp_path / "a" / "flow_x_00001.jpg").touch()
    for start in ("centre", 0.99):
        clip, n = decode_clip(tmp_path / "a", 8, 4, 112, start)  # 160x120, so nothing is scaled
        assert n == 40
        np.testing.assert_array_equal(clip, truth[frame_indices(40, 8, 4, start), 4:116, 24:136])
    assert decode_clip(tmp_path / "a", 64, 4, 48)[0].shape == (64, 48, 48, 3)  # repeats
    np.testing.assert_array_equal(decode_frames(tmp_path / "a", 112), truth[:, 4:116, 24:136])


def test_bad_frame_folders_give_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    unpack(tmp_path / "gap", 5)
    (tmp_path / "gap" / "frame000003.jpg").unlink()
    unpack(tmp_path / "late", 5, first=3)
    unpack(tmp_path / "double", 5)
    (tmp_path / "double" / "img_00002.jpg").touch()
    for name, content in {"text": b"no image", "zero": b"", "cut": None}.items():
        unpack(tmp_path / name, 5)
        broken = tmp_path / name / "frame000003.jpg"
        broken.write_bytes(broken.read_bytes()[:700] if content is None else content)
    unpack(tmp_path / "sizes", 5)
    Image.new("L", (10, 10)).save(tmp_path / "sizes" / "frame000004.jpg")
    reasons = {
        "empty": "directory without images", "gap": "number 3 is missing", "late": "number 1 is missing",
        "double": r"img_00002\.jpg is there twice", "text": r"frame000003\.jpg cannot be read",
        "zero": "cannot be read", "cut": "cannot be read", "sizes": "not of one size",
    }  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(DecodeError, match=f"{name}: .*{reason}"):
            decode_clip(tmp_path / name, 5, 1, 48)
    np.testing.assert_array_equal(
        unpack(tmp_path / "from0", 5, first=0)[:, 4:116, 24:136], decode_frames(tmp_path / "from0", 112)
    )
