"""Whole films of unusual make: containers x codecs x what phones, cameras, editors and downloads do to a film.

Each shows numbered pictures and knows which: `films` lists them, `Film.write` writes one.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numbered import CODES
from PIL import Image

COUNT = 14  # frames of a film
QUALITY = {
    "libx264": {"preset": "ultrafast", "crf": 18, "bf": 0},
    "libx265": {"preset": "ultrafast", "crf": 18, "x265-params": "log-level=none:pools=none:frame-threads=1"},
    **{codec: {"deadline": "realtime", "cpu-used": 8, "b": "2M"} for codec in ("libvpx", "libvpx-vp9")},
    **{
        codec: {"qmin": 2, "qmax": 3}
        for codec in ("mpeg4", "mpeg2video", "mpeg1video", "msmpeg4", "wmv2", "flv", "mjpeg")
    },
}
PIXELS = {
    "mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "huffyuv": "yuv422p", "png": "rgb24", "qtrle": "rgb24",
    "gif": "rgb8", "msvideo1": "rgb555le", "cinepak": "rgb24", "flashsv": "bgr24", "svq1": "yuv410p",
}  # fmt: skip
CODECS = {  # of every container
    "mp4": ("libx264", "libx265", "mpeg4", "libvpx-vp9", "mjpeg", "png", "ffv1", "mpeg2video"),
    "mov": ("libx264", "libx265", "mpeg4", "mjpeg", "prores_ks", "qtrle", "svq1", "cinepak"),
    "3gp": ("libx264", "mpeg4"),
    "m4v": ("libx264", "mpeg4"),
    "mkv": ("libx264", "libx265", "mpeg4", "libvpx", "libvpx-vp9", "mjpeg", "ffv1", "prores_ks", "msmpeg4"),
    "webm": ("libvpx", "libvpx-vp9"),
    "avi": ("libx264", "mpeg4", "mjpeg", "huffyuv", "msmpeg4", "wmv2", "ffv1", "msvideo1", "libvpx", "png"),
    "ts": ("libx264", "libx265", "mpeg2video"),
    "mpg": ("mpeg1video", "mpeg2video"),
    "flv": ("libx264", "flv", "flashsv"),
    "wmv": ("wmv2", "msmpeg4"),
    "ogv": ("libvpx",),
    "mxf": ("mpeg2video",),
    "nut": ("libx264", "ffv1"),
    "gif": ("gif",),
}  # fmt: skip
MOV = ("mp4", "mov", "3gp", "m4v")
SOUND = {"webm": "libopus", "avi": "pcm_s16le", "ts": "mp2", "mpg": "mp2", "mkv": "flac", "mxf": "pcm_s16le"}
SUBTITLES = {"mkv": "srt", "webm": "webvtt", "mp4": "mov_text", "mov": "mov_text"}
TIMES: dict[str, Callable[[int], int]] = {  # when frame i is shown, in frames
    "even": lambda i: i,
    "late": lambda i: i + 50,
    "uneven": lambda i: i + i * i // 5,
    "paused": lambda i: i + 60 * (i > COUNT // 2),
}
TURNS: dict[tuple, Callable] = {  # a display matrix without its third column and row -> what it does
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p),
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: p[::-1, ::-1].swapaxes(0, 1),
}


@dataclass
class Film:
    """How a film is made, and which numbers it shows."""

    suffix: str
    codec: str
    what: str = "plain"  # is unusual about it
    times: str = "even"
    shown: tuple[int, ...] = tuple(range(COUNT))
    count: int = COUNT
    options: dict = field(default_factory=dict)  # of the encoder
    layout: dict = field(default_factory=dict)  # of the container
    before: tuple[Callable, ...] = ()  # other streams: (film, container) -> what writes their packets
    after: tuple[Callable, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)  # one after the other
    pixels: str | None = None
    turn: tuple[int, int, int, int] | None = None
    title: str | None = None
    packets: Callable[[list], list] = list  # changes the packets
    data: Callable[[bytes], bytes] = bytes  # changes the file

    def write(self, path: Path) -> None:
        with av.open(str(path), "w", options=self.layout) as out:
            extras = [add(self, out) for add in self.before]
            stream = out.add_stream(self.codec, rate=25)
            encoders = [stream.codec_context, *(av.CodecContext.create(self.codec, "w") for _ in self.sizes[1:])]
            for encoder, (encoder.width, encoder.height) in zip(encoders, self.sizes):
                encoder.pix_fmt = self.pixels or PIXELS.get(self.codec, "yuv420p")
                encoder.time_base = Fraction(1, 25)
                options = {"threads": 1, "g": 6} | QUALITY.get(self.codec, {}) | self.options
                encoder.options = {key: str(value) for key, value in options.items()}
            if self.turn:
                a, b, c, d = (n << 16 for n in self.turn)
                stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            if self.title:
                out.metadata["title"] = self.title
            extras += [add(self, out) for add in self.after]
            packets, part = [], -(-self.count // len(encoders))
            for k, encoder in enumerate(encoders):
                for i in range(k * part, min((k + 1) * part, self.count)):
                    frame = av.VideoFrame.from_ndarray(picture(i, encoder.width, encoder.height), format="rgb24")
                    frame.pts, frame.time_base = TIMES[self.times](i), Fraction(1, 25)
                    packets += encoder.encode(frame)
                packets += encoder.encode(None)
            for packet in self.packets(packets):
                packet.stream = stream
                out.mux(packet)
            for write in extras:
                write()
        path.write_bytes(self.data(path.read_bytes()))


def picture(number: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3), both multiples of 8: the code of a number."""
    grey = np.kron(CODES[number], np.full((height // 8, width // 8), 170)) + 40
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def sound(film: Film, out, seconds: float = 4) -> Callable:
    """Silence, longer than the film."""
    rate = 48000
    stream = out.add_stream(SOUND.get(film.suffix, "aac"), rate=rate, layout="mono")

    def write():
        for k in range(int(seconds * rate) // 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 1152 * k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    return write


def subtitle(film: Film, out) -> Callable:
    """A line of text that stays when the film has ended."""
    stream = out.add_mux_stream(SUBTITLES[film.suffix])

    def write():
        packet = av.Packet(b"\0\5hello" if SUBTITLES[film.suffix] == "mov_text" else b"hello")
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 100
        packet.duration = 9000
        out.mux(packet)

    return write


def jpeg(size: int = 320) -> bytes:
    """A yellow picture."""
    data = io.BytesIO()
    Image.new("RGB", (size, size), (255, 255, 0)).save(data, "JPEG")
    return data.getvalue()


def attachments(film: Film, out) -> Callable:
    """A cover and a font."""
    out.add_attachment("cover.jpg", "image/jpeg", jpeg())
    out.add_attachment("font.ttf", "application/x-truetype-font", bytes(500))
    return lambda: None


def still(film: Film, out) -> Callable:
    """A video stream of one larger picture."""
    stream = out.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 160, 160, "yuvj420p"

    def write():
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(200, 160, 160), format="rgb24")))
        out.mux(stream.encode(None))

    return write


def box(name: bytes, content: bytes) -> bytes:
    """An element of MP4."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def within(data: bytes, names: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """The boxes of MP4 with the content of one of them changed: names[0], or names[1] in it, and so on."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        content, at = data[at + 8 : at + size], at + size
        if name == names[0]:
            content = within(content, names[1:], change) if names[1:] else change(content)
        out += box(name, content)
    return out


def edited(*parts: tuple[int | None, int]) -> Callable[[bytes], bytes]:
    """Shows these parts of a film: (its first frame or None for a pause, how many frames) each."""

    def change(content: bytes) -> bytes:
        base = struct.unpack_from(">i", content, 12)[0]  # where the first frame is, of 512 units a frame
        entries = [(40 * n, -1 if first is None else base + 512 * first, 1, 0) for first, n in parts]
        return struct.pack(">II", 0, len(entries)) + b"".join(struct.pack(">IiHH", *entry) for entry in entries)

    return lambda data: within(data, (b"moov", b"trak", b"edts", b"elst"), change)


def covered(data: bytes) -> bytes:
    """An MP4 with a cover that comes before the film."""
    cover = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 13, 0) + jpeg())))
    cover = box(b"udta", box(b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + cover))

    def change(content: bytes) -> bytes:
        (head,) = struct.unpack_from(">I", content)
        return content[:head] + cover + content[head:]

    return within(data, (b"moov",), change)


def hidden(mask: int) -> Callable[[list], list]:
    """VP8 and VP9 with a copy of the first frame that is decoded and not shown: `mask` is the bit that says so."""

    def change(packets: list) -> list:
        first = bytes(packets[0])
        copy = av.Packet(bytes([first[0] & ~mask]) + first[1:])
        copy.time_base, copy.is_keyframe = packets[1].time_base, True
        copy.pts = copy.dts = packets[1].pts
        return [packets[0], copy, *packets[1:]]

    return change


def dropped_at_end(data: bytes, n: int = 9) -> bytes:
    """An AVI whose last `n` frames are empty chunks."""
    movi, index, data = data.find(b"movi"), data.rfind(b"idx1"), bytearray(data)
    end = index + 8 + struct.unpack_from("<I", data, index + 4)[0]
    # Of the file, the list of chunks and their index, bytes; of the film and the stream, frames.
    more = {4: 24 * n, movi - 4: 8 * n, index + 4: 16 * n, data.find(b"avih") + 24: n, data.find(b"strh") + 40: n}
    for place, by in more.items():
        struct.pack_into("<I", data, place, struct.unpack_from("<I", data, place)[0] + by)
    entries = b"".join(struct.pack("<4sIII", b"00dc", 0, index - movi + 8 * i, 0) for i in range(n))
    return bytes(data[:index] + b"00dc\0\0\0\0" * n + data[index:end] + entries + data[end:])


def films() -> Iterator[Film]:
    """All of them."""
    for suffix, codecs in CODECS.items():
        for codec in codecs:
            yield from of_any_kind(suffix, codec)
            if suffix in MOV and codec in ("libx264", "mpeg4"):
                yield from of_quicktime(suffix, codec)
            if suffix in ("mkv", "webm"):
                yield from of_matroska(suffix, codec)
            if suffix == "avi":
                for times in ("even", "uneven"):
                    yield Film(suffix, codec, "frames dropped at the end", times, data=dropped_at_end)


def of_any_kind(suffix: str, codec: str) -> Iterator[Film]:
    """Films in any container."""
    for times in TIMES:
        yield Film(suffix, codec, times, times)
    yield Film(suffix, codec, "titled", title="Caf\xe9 \u2603 $x_1$")
    if suffix != "ts":  # FFmpeg does not recognise one so short
        yield Film(suffix, codec, "one frame", count=1, shown=(0,))
    if suffix not in ("flv", "wmv", "ogv", "nut", "gif"):
        yield Film(suffix, codec, "longer sound", "uneven", after=(sound,))
    if suffix in SUBTITLES:
        yield Film(suffix, codec, "longer subtitle first", "late", before=(subtitle,))
    if codec in ("mjpeg", "libvpx", "libvpx-vp9", "png") or (suffix == "ts" and codec == "libx264"):
        yield Film(suffix, codec, "two sizes", sizes=((64, 64), (96, 64)))
        yield Film(suffix, codec, "three sizes", "late", sizes=((64, 64), (128, 128), (64, 80)))
    if codec in ("libx264", "mpeg4", "mpeg2video"):
        yield Film(suffix, codec, "B-frames", "uneven", options={"bf": 2})
        yield Film(suffix, codec, "interlaced", options={"flags": "+ildct+ilme"})
    if codec == "libx264":
        yield Film(suffix, codec, "open groups", options={"bf": 3, "x264-params": "open-gop=1"})
        yield Film(suffix, codec, "10 bits", pixels="yuv420p10le")


def of_quicktime(suffix: str, codec: str) -> Iterator[Film]:
    """Edits, turns, covers and layouts of MP4 and its kin."""
    edits = {
        "the end hidden": ((0, 8),),
        "the start hidden": ((5, 9),),
        "the middle hidden": ((0, 4), (9, 5)),
        "all but one hidden": ((7, 1),),
        "a part twice": ((0, 6), (0, 6)),
        "halves exchanged": ((8, 6), (0, 6)),
        "a pause first": ((None, 7), (0, COUNT)),
    }
    for bf in (0, 2):
        for what, parts in edits.items():
            shown = [i for first, n in parts if first is not None for i in range(first, first + n)]
            yield Film(suffix, codec, what, shown=tuple(shown), options={"bf": bf}, data=edited(*parts))
    for turn in TURNS:
        yield Film(suffix, codec, f"turned by {turn}", turn=turn, sizes=((64, 80),))
    yield Film(suffix, codec, "cover first", data=covered)
    for flags in ("faststart", "frag_keyframe+empty_moov", "negative_cts_offsets", "rtphint", "dash"):
        yield Film(suffix, codec, flags, "uneven", options={"bf": 2}, layout={"movflags": flags})


def of_matroska(suffix: str, codec: str) -> Iterator[Film]:
    """Layouts, attachments and frames that are not shown."""
    layouts = ({"live": "1"}, {"cluster_time_limit": "100"}, {"cues_to_front": "1"}, {"reserve_index_space": "2000"})
    for layout in layouts:
        yield Film(suffix, codec, f"{layout}", "late", layout=layout, after=(sound, subtitle))
    yield Film(suffix, codec, "zeros after the end", data=lambda data: data + bytes(5000))
    if suffix == "mkv":
        yield Film(suffix, codec, "attachments", "late", after=(attachments,))
        yield Film(suffix, codec, "turned", turn=(0, 1, -1, 0))
    if codec.startswith("libvpx"):
        for times in TIMES:
            yield Film(suffix, codec, "a hidden frame", times, packets=hidden(0x10 if codec == "libvpx" else 0x02))
        yield Film(suffix, codec, "transparent", "uneven", pixels="yuva420p", options={"auto-alt-ref": 0})
        ahead = {"auto-alt-ref": 1, "lag-in-frames": 10, "deadline": "good"}
        yield Film(suffix, codec, "frames that are referred to only", options=ahead)
