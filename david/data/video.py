"""The frames of a video file: exactly those that FFmpeg shows from first to last, or one error that says why not.

FFmpeg, which PyAV wraps, plays what it can of a damaged file: it steps over what it cannot read, and all later frames
move up; it makes up what it cannot decode from the frames around. But it complains in its log, or fewer frames come
than the container lists. Hence a film is decoded once, to its end, and if there was no complaint it is whole, however
unusual. What a complaint is, `Film` alone says.
"""

import contextlib
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

PACKED = ("avi", "mov", "matroska", "flv")  # containers that hold one frame a packet
STILL = 8  # bytes: so small a packet of MPEG-4 says that the frame before stays, and no frame is decoded from it
VOP = b"\0\0\1\xb6"  # what each frame of MPEG-4 starts with; it is nowhere else
# Elements of Matroska: the file itself and its clusters, which hold others; blocks, which hold frames; and filling.
SEGMENT, CLUSTER, BLOCKS, VOID = 0x18538067, 0x1F43B675, (0xA0, 0xA3), 0xEC
# What may lie beside clusters: the header, the list of these, facts, tracks, index, attachments, chapters, titles.
BESIDE = 0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367


class DecodeError(Exception):
    """`path` cannot give a clip; `reason` says why, in a few words."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


@dataclass
class Survey:
    """times: when each frame of a whole video is shown, in units of the stream; None where the file does not say."""

    times: list[int | None] = field(default_factory=list)


class Film:
    """What comes to light while a video is decoded from first to last; its methods raise DecodeError at a complaint."""

    def __init__(self, path: str | Path, container, stream):
        self.path, self.kind, self.codec, self.stream = path, container.format.name, stream.codec.name, stream.index
        self.promised = stream.frames  # by the header; 0 where it does not say
        self.seconds = (container.duration or 0) / av.time_base
        # The turn of each packet that the container's index lists.
        self.listed = [entry.timestamp for entry in stream.index_entries if entry.size]
        self.packets: list[tuple] = []  # of the video: (time, hidden by an edit, frames at least)
        self.times: list[int | None] = []  # of the frames
        self.end = 0.0  # of the packets, sound included, in seconds

    def hear(self, work: Callable, *args):
        """`work(*args)`, which is FFmpeg's, unless it logs a complaint meanwhile."""
        with listening() as said:
            try:
                result = work(*args)
            except OSError:  # it says nothing of the film
                raise
            except Exception:
                self.check(said)
                raise
        self.check(said)
        return result

    def check(self, said: list) -> None:
        """A complaint is a corrupt packet, of any stream, or an error of the demuxer or the film's decoder."""
        for level, name, message in said:
            if "packet corrupt" in message.lower():
                raise DecodeError(self.path, f"truncated: packet {len(self.packets)} is not whole")
            if level <= av.logging.ERROR and name in (self.kind, self.codec):
                raise DecodeError(self.path, f"truncated or damaged: {' '.join(message.split())}")

    def step(self, packets: Iterator[av.Packet]) -> list[av.VideoFrame] | None:
        """The frames that the next packet gives, None at the end; a complaint is one that the decoder has made up."""
        if (packet := next(packets, None)) is None:
            return None
        if packet.size:
            self.end = max(self.end, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != self.stream:
            return []
        if packet.size:
            # A packet may be half a frame in other containers, and a frame that is not shown in these codecs.
            least = int(self.kind.startswith(PACKED) and not self.codec.startswith(("vp8", "vp9", "av1", "libdav1d")))
            if self.codec == "mpeg4":
                least *= max(1, bytes(packet).count(VOP)) if packet.size > STILL else 0
            self.packets.append((packet.pts, packet.is_discard, least))
        frames = packet.decode()
        if any(frame.is_corrupt for frame in frames):
            raise DecodeError(self.path, f"damaged: frame {len(self.times)} cannot be decoded")
        self.times += [frame.pts for frame in frames]
        return frames

    def ended(self) -> None:
        """It is a complaint if there were fewer packets than the container lists, or fewer frames than packets."""
        if not self.times:
            raise DecodeError(self.path, "no frames")
        # After a cut, the first packets may lack what they are predicted from. Where MPEG-4 packs two frames into a
        # packet, a small one follows in place of the second.
        shown = [(time, least) for time, hidden, least in self.packets if not hidden]
        first, packed = self.times[0], any(least > 1 for _, least in shown)
        lost = sum(None in (time, first) or time >= first for time, least in shown if packed or least) - len(self.times)
        if lost > 0:
            raise DecodeError(self.path, f"damaged: {lost} frames cannot be decoded")
        lost = len(self.listed) - len(self.packets)
        if lost > 0:
            raise DecodeError(self.path, f"damaged: {lost} of {len(self.listed)} frames are not where its index says")
        if self.kind == "avi":
            self.check_avi()
        elif self.kind.startswith("mov"):
            self.check_mov()
        elif self.kind.startswith("matroska"):
            check_elements(self.path)
        if self.kind.startswith(("mov", "matroska")) and self.codec != "mpeg4":  # which may swap those of B-frames
            self.check_order(self.times)
        if self.kind.startswith(("matroska", "flv", "asf")) and self.end < 0.98 * self.seconds - 0.1:
            raise DecodeError(self.path, f"truncated: {self.end:.2f} s where the header promises {self.seconds:.2f} s")

    def check_promise(self, n: int, exact: bool = False) -> None:
        """Of whole films the header may be one or two off."""
        if n < (self.promised if exact else math.floor(0.98 * self.promised - 1)):
            raise DecodeError(self.path, f"truncated: {n} frames where the header promises {self.promised}")

    def check_order(self, times: list[int | None]) -> None:
        """Times that are wrong would also hide a frame, which FFmpeg takes for an edit."""
        known = [time for time in times if time is not None]
        if known != sorted(known):
            raise DecodeError(self.path, "damaged: it does not say when each frame is shown")

    def check_avi(self) -> None:
        """The index comes last, so a file without it may be cut."""
        indexed = len(self.listed) >= len(self.packets)
        n = max(len(self.packets), 1 + max(self.listed, default=0))  # empty packets, of dropped frames, take turns too
        if n < self.promised and indexed:  # FFmpeg passes over the empty ones at the end
            with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = data.rfind(b"idx1") + 8
                index = data[at : at + int.from_bytes(data[at - 4 : at], "little")]
            n = max(n, len(self.packets) + len(re.findall(rb"%02dd.{9}\0{4}" % self.stream, index, re.DOTALL)))
        self.check_promise(n, exact=not indexed)

    def check_mov(self) -> None:
        """Frames are hidden by an edit, or because the tables of their times and places are wrong."""
        if len(self.listed) < self.promised or any(hidden for _, hidden, _ in self.packets):
            with opened(self.path, ignore_editlist="1") as (container, stream, _), listening():
                self.check_promise(len(stream.index_entries))
                self.check_order([frame.pts for frame in container.decode(stream)])


def check_elements(path: str | Path) -> None:
    """DecodeError for a part of a Matroska file that is no element, which FFmpeg passes over without a word."""
    end, last = 0, math.inf  # of the cluster and of the film; what comes after, FFmpeg does not read
    with open(path, "rb") as file:
        while file.tell() < last and (first := file.read(1)):
            name = int.from_bytes(first + file.read(8 - first[0].bit_length()))
            first = file.read(1) or b"\1"
            width = 8 - first[0].bit_length()
            size = int.from_bytes(first + file.read(width)) & ((1 << 7 * (width + 1)) - 1)
            place = file.tell()
            if name in (SEGMENT, CLUSTER):  # go on inside
                end, last = (place + size, last) if name == CLUSTER else (0, place + size)
                continue
            inside = place < end and name not in BESIDE  # the size of a cluster may be unknown
            known = name in BLOCKS or size <= 8 if inside else name in (*BESIDE, VOID)  # besides blocks, some numbers
            if not known:
                raise DecodeError(path, f"damaged: {size} bytes at {place} cannot be read")
            file.seek(size, os.SEEK_CUR)


@contextlib.contextmanager
def listening() -> Iterator[list]:
    """What FFmpeg logs within, from warnings on: (level, part of FFmpeg, message) each, in a list that grows."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)  # what it skips, it counts among the next file's
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)


@contextlib.contextmanager
def opened(path: str | Path, **options: str) -> Iterator[tuple]:
    """(container, its best video stream, what FFmpeg logged), for one thread. What PyAV raises is a DecodeError."""
    state = "unreadable"
    try:
        if os.stat(path).st_size == 0:
            raise DecodeError(path, "empty file")
        with listening() as said:
            container = av.open(os.fspath(path), metadata_errors="replace", options=options)
        with container:
            stream = container.streams.best("video")
            if stream is None:
                raise DecodeError(path, "no video stream")
            if stream.codec_context is None:
                raise DecodeError(path, "unreadable (unknown codec)")
            stream.codec_context.thread_count = 1  # the other cores have other files
            state = "damaged"
            yield container, stream, said
    except DecodeError:
        raise
    except Exception as error:  # there is no end to what a damaged file can lead to
        raise DecodeError(path, f"{state} ({getattr(error, 'strerror', None) or type(error).__name__})") from error


def frames(path: str | Path) -> Iterator[av.VideoFrame]:
    """Every frame of the video `path`, of the stream that FFmpeg would choose, as its decoder gives them.

    DecodeError where it is absent, empty, no video or damaged. That may come after the last frame: what was read is
    that of a whole film only once the iterator has ended.
    """
    with opened(path) as (container, stream, said):
        film = Film(path, container, stream)
        film.check(said)
        packets = container.demux()
        while (shown := film.hear(film.step, packets)) is not None:
            yield from shown
        film.ended()


def packets(path: str | Path) -> int:
    """How many packets of a video are shown: mostly as many as it has frames. DecodeError where there is none."""
    with opened(path) as (container, stream, _), listening():
        n = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
    if not n:
        raise DecodeError(path, "no frames")
    return n


def survey(path: str | Path) -> Survey:
    """The Survey of the video `path`, all of which is decoded. DecodeError as of `frames`."""
    return Survey([frame.pts for frame in frames(path)])


def read(path: str | Path, found: Survey, wanted: list[int] | None = None) -> Iterator[np.ndarray]:
    """The frames `wanted` of a video, in order: uint8 (h, w, 3) RGB each, turned and mirrored as the film says.

    None: every one. All is decoded, whatever is wanted, and `found` becomes its Survey. DecodeError as of `frames`.
    """
    found.times, converter, wanted = [], VideoReformatter(), None if wanted is None else set(wanted)
    for frame in frames(path):
        if wanted is None or len(found.times) in wanted:
            beside = SideDataContainer(frame)  # `frame.side_data` would keep frame and memory until Python tidies up
            yield upright(converter.reformat(frame, format="rgb24").to_ndarray(), beside.get("DISPLAYMATRIX"))
        found.times.append(frame.pts)


def upright(picture: np.ndarray, matrix: bytes | None) -> np.ndarray:
    """The picture (h, w, 3) as a display matrix (9 int32, by rows) turns and mirrors it; by quarters of a turn."""
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()  # (x, y) goes to (ax + cy, bx + dy)
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
