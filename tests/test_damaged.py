"""A damaged file ends as a skip that the report names, or as a clip of the right frames; nothing hangs.

What is in the picture shows as damage where the codec has no means to notice it, but in its place.
"""

import json
import random
import struct
import time
from collections import Counter
from contextlib import suppress

import av
import numpy as np
import pytest
from numbered import COUNT, KINDS, SIZE, number_of, packets_of, still, write_numbered, write_packed, write_packets

from david.data.cache import window_start
from david.data.clips import open_clips
from david.data.decode import DecodeError, frame_indices
from david.data.readers import Dataset, Video
from david.data.video import Survey, read

MPEG4, H264 = {"qmin": 2, "qmax": 2}, {"crf": 20, "bf": 2}
HEVC = {"preset": "ultrafast", "crf": 16, "x265-params": "log-level=none:pools=none:frame-threads=1"}
MORE = {  # as KINDS
    "vp8.webm": ("libvpx", {"deadline": "realtime", "cpu-used": 8, "b": "1M"}),
    "hevc.mp4": ("libx265", HEVC),
    "hevc.mkv": ("libx265", HEVC),
    "mpeg4.mp4": ("mpeg4", MPEG4),
    "mpeg4.mkv": ("mpeg4", MPEG4),
    "mjpeg.avi": ("mjpeg", MPEG4),
    "mjpeg.mov": ("mjpeg", MPEG4),
    "mpeg2.mkv": ("mpeg2video", MPEG4 | {"bf": 2}),
    "ffvhuff.avi": ("ffvhuff", {}),
    "h264.avi": ("libx264", H264 | {"bf": 0}),
    "h264.mov": ("libx264", H264),
}
SHAPE = {"frames": 16, "stride": 4, "size": SIZE}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """File name -> bytes of a whole video of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    paths = [write_numbered(folder / name, *how) for name, how in KINDS.items()]
    paths.append(write_packed(folder / "packed.avi", folder / "b.avi"))
    return {path.name: path.read_bytes() for path in paths}


def build(folder, contents):
    """What becomes of the files `contents` (name -> bytes): {name: (its reason or None, its clip, its frames)}."""
    folder.mkdir(exist_ok=True)
    videos = []
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        videos.append(Video(folder / name, name, 0, name))
    started = time.monotonic()
    clips = open_clips(
        Dataset("damaged", ("any",), tuple(videos), (), False), "train", **SHAPE, workers=2, cache=folder
    )
    assert time.monotonic() - started < 60  # a clip's limit: nothing came near it
    (report,) = folder.glob("clips/*/report.json")
    reasons = {video["name"]: video["reason"] for video in json.loads(report.read_text())}
    text = report.with_suffix(".txt").read_text()
    assert all(f"{folder / name}: {reason}\n" in text for name, reason in reasons.items())
    assert sorted([*reasons, *clips.names]) == sorted(contents)
    assert not [reason for reason in reasons.values() if "crashed" in reason or "timed out" in reason]
    entries = map(json.loads, report.with_name("journal.jsonl").read_text().splitlines())
    counts = {videos[entry["row"]].name: entry.get("frames") for entry in entries}
    pixels = dict(zip(clips.names, clips.videos[clips.rows]))
    return {name: (reasons.get(name), pixels.get(name), counts[name]) for name in contents}


def wanted(name, n=COUNT):
    """The numbers that the clip of a file of `n` frames shows."""
    return frame_indices(n, SHAPE["frames"], SHAPE["stride"], window_start(0, name)).tolist()


def shown(clip):
    """The numbers that a clip shows."""
    return [number_of(picture) for picture in clip]


def cut(data, rng, packets):
    """The beginning of a file."""
    return data[: rng.randrange(100, len(data) - 1500)]


def zeroed(data, rng, packets):
    """A file with a range of zeros."""
    start, length = rng.randrange(len(data)), rng.choice([64, 1024, 20000])
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def holed(data, rng, packets):
    """A file that lacks a range."""
    start = rng.randrange(1000, len(data) - 9000)
    return data[:start] + data[start + rng.choice([1, 700, 8000]) :]


def flipped(data, rng, packets):
    """A file with one to a hundred wrong bits."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 10, 100])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_damage_of_any_kind(whole, tmp_path):
    rng = random.Random(0)
    contents = {
        f"{damage.__name__}-{i}-{name}": damage(data, rng, None)
        for name, data in whole.items()
        for damage, times in ((cut, 2), (zeroed, 2), (holed, 2), (flipped, 3))
        for i in range(times)
    }
    assert len(contents) == 54
    with pytest.warns(UserWarning, match=r"of 54 videos of damaged train left out"):
        found = build(tmp_path, contents)
    for name, (reason, clip, n) in found.items():
        if name.startswith(("cut", "holed")):
            assert reason, name
        elif clip is not None:
            assert n == COUNT and all(got in (number, None) for got, number in zip(shown(clip), wanted(name))), name
    skipped = sum(reason is not None for reason, _, _ in found.values())
    assert 36 < skipped < 54  # a bit or two in the picture may go unnoticed


def packets_in(path):
    """(place, bytes) of the encoded frames of a video, in the order of the file."""
    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    # Of Matroska it is where the block begins, a little before.
    return [(data.find(packet, place), size) for packet, (place, size) in zip(packets, found)]


def all_left_out(folder, contents, whole):
    """Whether nothing but a whole file, added because a class may not be left empty, becomes a clip; the reasons."""
    with pytest.warns(UserWarning, match=f"{len(contents)} of {len(contents) + 1} videos of damaged train left out"):
        found = build(folder, contents | {"whole.avi": whole["plain.avi"]})
    return [reason for reason, _, _ in found.values() if reason]


def emptied(data, rng, packets):
    """A file one of whose packets is zeros."""
    place, size = rng.choice(packets)
    return data[:place] + bytes(size) + data[place + size :]


def scrambled(data, rng, packets):
    """A file one of whose packets is noise."""
    place, size = rng.choice(packets)
    return data[:place] + rng.randbytes(size) + data[place + size :]


def lost(data, rng, packets):
    """A file that lacks a packet."""
    place, size = rng.choice(packets[:-1])
    return data[:place] + data[place + size :]


def beside(data, rng, packets):
    """A file with wrong bits in what is no picture: in headers, tables, and the first bytes of packets."""
    free = np.ones(len(data), bool)
    for place, size in packets:
        free[place + 12 : place + size] = False
    places, data = np.flatnonzero(free), bytearray(data)
    for _ in range(rng.choice([1, 3, 10])):
        data[places[rng.randrange(len(places))]] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_a_thousand_damaged_files(whole, tmp_path, capsys):
    for name, how in MORE.items():
        whole = whole | {name: write_numbered(tmp_path / name, *how).read_bytes()}
    rng, outcome, wrong = random.Random(0), Counter(), []
    path = tmp_path / "damaged"  # the name tells nothing
    for name, data in whole.items():
        path.write_bytes(data)
        packets = packets_in(path)
        for damage in (cut, zeroed, holed, flipped, emptied, scrambled, lost, beside):
            for i in range(8):
                path.write_bytes(damage(data, rng, packets))
                try:
                    got = shown(read(path, Survey()))
                except DecodeError as error:
                    assert str(path) in str(error) and error.reason
                    outcome["refused by name"] += 1
                    continue
                assert damage not in (cut, lost) or got == list(range(COUNT)), (name, damage, i)
                if len(got) == COUNT and all(number in (i, None) for i, number in enumerate(got)):
                    outcome["every frame in its place"] += 1
                else:
                    wrong.append((name, damage.__name__, i))
    total = outcome.total() + len(wrong)
    with capsys.disabled():
        print(f"\n{total} damaged files: {dict(outcome)}, with wrong frames and unnoticed: {wrong}")
    assert total >= 1000 and outcome["refused by name"] > 0.8 * total
    # Noise in a packet can refer to a picture of before, and a wrong bit in an index take a frame off its list.
    assert len(wrong) < 0.01 * total


def test_a_file_that_ends_within_its_last_frame(whole, tmp_path):
    contents = {}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        contents[name] = data[: max(packets_in(tmp_path / name))[0] + 5]
    assert all("truncated" in reason for reason in all_left_out(tmp_path / "cut", contents, whole))


def test_a_frame_that_ffmpeg_steps_over_in_silence(whole, tmp_path):
    contents = {}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        (place, _), data = packets_in(tmp_path / name)[40], bytearray(data)
        if name.endswith("avi"):
            data[place - 8 : place - 4] = b"JUNK"  # the name of what is to be ignored
        elif name.endswith("mp4"):
            entry = data.find(b"ctts") + 12 + 40 * 8  # how many frames, and how much later than decoded they are shown
            data[entry + 4 : entry + 8] = struct.pack(">i", 1 << 24)  # an edit leaves out what is so late
        else:
            start = data.rfind(0xA3, 0, place)
            assert place - start < 9
            data[start] = 0xEC  # likewise to be ignored
        contents[name] = bytes(data)
    assert len(all_left_out(tmp_path / "broken", contents, whole)) == len(whole)


def test_a_packet_of_which_no_frame_comes(whole, tmp_path):
    contents = {}
    for name in ("plain.avi", "b.avi", "packed.avi"):
        (tmp_path / name).write_bytes(whole[name])
        packets = packets_of(tmp_path / name)
        for i in (30, 31, 32):  # in files with B-frames, frames of each type
            if len(packets[i]) > 8:  # a place that packing left free gives a frame whatever is in it
                empty = still(i) + bytes(20)  # too long to be meant as a still frame
                broken = write_packets(
                    tmp_path / "broken.avi", tmp_path / name, [*packets[:i], empty, *packets[i + 1 :]]
                )
                contents[f"{i}-{name}"] = broken.read_bytes()
    reasons = all_left_out(tmp_path / "broken", contents, whole)
    assert len(reasons) == 8 and all("cannot be decoded" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["plain.avi", "b.avi", "packed.avi"])
def test_no_frame_takes_the_place_of_a_lost_one(whole, tmp_path, name):
    (tmp_path / name).write_bytes(whole[name])
    packets = packets_of(tmp_path / name)
    for lost in (30, 31, 32, COUNT - 2):
        empty = still(lost) + bytes(20)
        path = write_packets(tmp_path / "broken.avi", tmp_path / name, [*packets[:lost], empty, *packets[lost + 1 :]])
        for last in range(lost - 4, min(lost + 5, COUNT)):  # wherever the clip ends
            with suppress(DecodeError):
                assert shown(read(path, Survey(), [last - 1, last])) in ([last - 1, last], [last - 1, None])


def test_a_wrong_extension_changes_nothing(whole, tmp_path):
    suffixes = [".avi", ".mp4", ".webm", ".mkv", ".mov"]
    contents = {f"{name}-{i}{suffix}": data for name, data in whole.items() for i, suffix in enumerate(suffixes)}
    for name, (reason, clip, n) in build(tmp_path, contents).items():
        assert reason is None and n == COUNT and shown(clip) == wanted(name)


def overreported(name, data, extra):
    """A file whose header promises `extra` frames too many."""
    data, count = bytearray(data), struct.pack("<I", COUNT)
    if name.endswith("avi"):
        for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # frames of the film; of the stream
            start = data.find(chunk) + offset
            assert data[start : start + 4] == count
            data[start : start + 4] = struct.pack("<I", COUNT + extra)
    elif name.endswith("mp4"):
        start = data.find(b"stsz") + 12
        assert data[start : start + 4] == count[::-1]
        data[start : start + 4] = struct.pack(">I", COUNT + extra)
    else:
        start = data.find(b"\x44\x89\x88") + 3  # duration, a double, in milliseconds
        (duration,) = struct.unpack(">d", data[start : start + 8])
        assert duration == 40 * COUNT
        data[start : start + 8] = struct.pack(">d", duration + 40 * extra)
    return bytes(data)


def test_a_header_that_promises_too_many_frames(whole, tmp_path):
    contents = {f"{extra}-{name}": overreported(name, data, extra) for name, data in whole.items() for extra in (1, 90)}
    with pytest.warns(UserWarning, match=r"5 of 12 videos of damaged train left out"):
        found = build(tmp_path, contents)
    for name, (reason, clip, n) in found.items():
        if name.startswith("1-") or name.endswith("mp4"):  # one too many is found in whole files; MP4 lists each frame
            assert n == COUNT and shown(clip) == wanted(name), name
        else:
            assert reason.startswith("truncated"), name
