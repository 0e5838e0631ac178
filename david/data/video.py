"""The frames of a video file: exactly those asked for, or one error that says what is wrong with the file.

FFmpeg, which PyAV wraps, plays what it can of a damaged file without an error: it steps over what it cannot read, and
all later frames move up; it makes up what it cannot decode from the frames around. Hence two passes. `survey` reads the
packets without decoding them, which is quickly done: are all there that the container promises, and when is each shown?
`read` decodes, and a frame that is missing, out of turn or made up is an error.
"""

import contextlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

STORED = ("mov", "matroska")  # these containers store when each frame is shown; of AVI, FFmpeg has to work it out
AHEAD = 8  # of frames that may be late, so many more are decoded than are wanted: that one was lost shows afterwards
STILL = 8  # bytes: so small a packet of MPEG-4 says that the frame before stays, and no frame is decoded from it


class DecodeError(Exception):
    """`path` cannot give a clip; `reason` says why, in a few words."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


@dataclass(frozen=True)
class Survey:
    """What the packets of a whole video say.

    times: when each frame is shown, ascending, in units of the stream. keys: the frames that decoding can start at, 0
    among them. stills: the frames that repeat the one before. late: by how many places a decoded frame may miss its
    turn by `times`: 0, but for B-frames whose times are not stored.
    """

    times: list[int]
    keys: list[int]
    stills: frozenset[int]
    late: int


class Packet(NamedTuple):
    """What is kept of a packet."""

    time: int | None  # when its frame is shown
    turn: int | None  # when it is decoded
    place: int | None  # in the file
    size: int  # bytes
    key: bool
    cut: bool  # the file ends within it
    hidden: bool  # an edit of the film leaves its frame out


@contextlib.contextmanager
def opened(path: str | Path, failing: str) -> Iterator[tuple]:
    """(container, video stream) of PyAV, for one thread. Whatever PyAV raises within becomes a DecodeError."""
    try:
        if os.stat(path).st_size == 0:
            raise DecodeError(path, "empty file")
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DecodeError(path, "no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DecodeError(path, "unreadable (unknown codec)")
            stream.codec_context.thread_count = 1  # the other cores have other files
            yield container, stream
    except DecodeError:
        raise
    except Exception as error:  # there is no end to what a damaged file can lead to
        raise DecodeError(path, f"{failing} ({getattr(error, 'strerror', None) or type(error).__name__})") from error


@contextlib.contextmanager
def complaints() -> Iterator[list]:
    """What FFmpeg logs as an error within: (level, part of FFmpeg, message) each, in a list that grows."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # what it skips, it counts among the next file's
    try:
        with av.logging.Capture() as logged:
            yield logged
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)


def survey(path: str | Path) -> Survey:
    """The Survey of the video `path`; DecodeError where it is absent, empty, no video, or has lost packets."""
    packets, extents = [], Counter()
    with complaints() as errors, opened(path, "unreadable") as (container, stream):
        kind, codec = container.format.name.partition(",")[0], stream.codec_context.name
        # The 8 bytes of a chunk's header come before the packet.
        index = {e.pos + 8: (e.timestamp, e.size) for e in stream.index_entries} if kind == "avi" else {}
        for p in container.demux() if kind == "matroska" else container.demux(stream):
            if p.size:
                extents[p.pos] += p.size
                if p.stream_index == stream.index:
                    packets.append(Packet(p.pts, p.dts, p.pos, p.size, p.is_keyframe, p.is_corrupt, p.is_discard))
        # Once the container is closed, what PyAV says of it is no longer true.
        promised, seconds, unit = stream.frames, (container.duration or 0) / av.time_base, float(stream.time_base)
        silent, reordered = len(container.streams) == 1, stream.codec_context.has_b_frames
    shown = [p for p in packets if not p.hidden]
    if not shown:
        raise DecodeError(path, "no frames")
    if packets[-1].cut:
        raise DecodeError(path, f"truncated: frame {len(packets) - 1} is not whole")
    times = sorted(p.time for p in shown if p.time is not None)
    if len(set(times)) < len(shown):
        raise DecodeError(path, "damaged: it does not say when each frame is shown")
    if kind == "avi":
        check_avi(path, packets, index, promised)
    elif kind == "matroska":
        if any(name.startswith(kind) for _, name, _ in errors):
            raise DecodeError(path, "damaged or truncated: parts of the file cannot be read")
        check_matroska(path, [time * unit for time in times], extents, seconds, silent)
    else:
        check_mp4(path, packets, promised)
    late = 0
    if reordered and (codec == "mpeg4" or kind not in STORED):
        late = 1 if codec == "mpeg4" else 16  # H.264 holds frames back the longest
    shown.sort()
    # In an AVI the index leads to a frame, if it counts as we do; of MPEG-4, FFmpeg checks that a key frame is one.
    trusted = not late and (kind in STORED or (kind, codec) == ("avi", "mpeg4"))
    keys = [i for i, p in enumerate(shown) if p.key and (kind != "avi" or p.time == index.get(p.place, (None,))[0])]
    return Survey(
        times=times,
        keys=sorted({0, *keys}) if trusted else [0],
        stills=frozenset(i for i, p in enumerate(shown) if p.size <= STILL and codec == "mpeg4" and not late),
        late=late,
    )


def check_avi(path: str | Path, packets: list[Packet], index: dict[int, tuple], promised: int) -> None:
    """DecodeError where packets are missing. index: {place: (time, bytes)}; promised: frames, by the header."""
    n = len(packets)
    lost = {place for place, (_, size) in index.items() if size} - {p.place for p in packets}
    if len(lost) == len(index):  # nothing is where it says: the index itself is wrong
        index = {}
    elif lost:
        raise DecodeError(path, f"damaged: {len(lost)} of {len(index)} frames are not where its index says")
    # The index comes last, so a file without it may be cut. With it, the header may still be one or two off.
    least = promised if len(index) < n else math.floor(0.98 * promised - 1)
    if max(n, len(index)) < least:
        raise DecodeError(path, f"truncated: {n} frames where the header promises {promised}")


def check_mp4(path: str | Path, packets: list[Packet], promised: int) -> None:
    """DecodeError where packets are missing, or hidden by what is no edit. promised: frames, by the header."""
    if len(packets) < math.floor(0.98 * promised - 1):  # of whole files it may be one or two off
        raise DecodeError(path, f"truncated: {len(packets)} frames where the header promises {promised}")
    # An edit takes frames off the ends. A frame in between is hidden if its time is wrong, and so far from its turn.
    delays = [p.time - p.turn for p in packets if not p.hidden and p.turn is not None]
    hidden = [p.time - p.turn for p in packets if p.hidden and None not in (p.time, p.turn)]
    if delays and any(not min(delays) <= delay <= max(delays) for delay in hidden):
        raise DecodeError(path, "damaged: it does not say when each frame is shown")


def check_matroska(path: str | Path, times: list[float], extents: dict, promised: float, silent: bool) -> None:
    """DecodeError where packets are missing. times: of the frames, in seconds; promised: seconds, by the header.

    There is no count, and FFmpeg passes over what it does not know without a word. So: frames are missing if there is
    a gap in time and, between packets of `extents` ({place: bytes}, sound included), more bytes than headers take.
    """
    step = np.median(np.diff(times)) if len(times) > 1 else 0
    seconds = times[-1] - times[0]
    if seconds < (0.98 * promised - 2 * step if silent else 0.75 * promised - 1):  # sound may be longer
        raise DecodeError(path, f"truncated: {seconds:.2f} s where the header promises {promised:.2f} s")
    places = sorted(extents)
    unread = max((b - a - extents[a] for a, b in itertools.pairwise(places)), default=0)
    if unread > 48 and max(np.diff(times), default=0) > 1.5 * step:
        raise DecodeError(path, f"damaged: {unread} bytes between two frames cannot be read")


def read(path: str | Path, found: Survey, wanted: list[int], start: int = 0) -> Iterator[np.ndarray]:
    """The frames `wanted` (ascending, each once) of a surveyed video, in order: uint8 (h, w, 3) RGB each.

    start: one of `found.keys`, at most `wanted[0]`, to decode from. DecodeError where any frame from there on is
    missing, out of turn or made up; it may come after the last of them.
    """
    chosen, converter = set(wanted), VideoReformatter()
    with opened(path, "damaged") as (container, stream):
        if start:
            container.seek(found.times[start], stream=stream)
        for i, frame in in_turn(path, container.decode(stream), found, start, wanted[-1]):
            if i in chosen:
                picture = converter.reformat(frame, format="rgb24").to_ndarray()
                yield np.rot90(picture, frame.rotation // 90) if frame.rotation else picture


def in_turn(path: str | Path, frames: Iterator, found: Survey, start: int, last: int) -> Iterator[tuple]:
    """(i, frame i) for i from `start` to `last`, or a little further, of what a decoder returns from there on."""
    turn = {time: i for i, time in enumerate(found.times)}
    due, before, seen = start, None, set()
    for frame in itertools.chain(frames, [None]):
        i = turn.get(frame.pts, -1) if frame is not None else len(turn)
        if 0 <= i < start:  # shown before the key frame, though decoded after it
            continue
        while due < i and due in found.stills and before is not None:
            seen.add(due)
            yield due, before
            due += 1
        if frame is None:
            break
        seen.add(i)
        if frame.is_corrupt or (due - found.late >= start and due - found.late not in seen):
            raise DecodeError(path, f"damaged: frame {due} cannot be decoded")
        yield due, frame
        due, before = due + 1, frame
        if due > last + AHEAD * found.late:
            return
    if due < len(turn) or len(seen) < due - start:
        raise DecodeError(path, f"damaged: frame {due} cannot be decoded")
