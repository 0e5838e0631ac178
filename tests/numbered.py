"""Videos whose every frame shows its own number, so that a test can tell which frame it got."""

import hashlib
from pathlib import Path

import av
import numpy as np

SIZE = 64  # pixels, height and width
COUNT = 72  # frames of a video; at most 256
KINDS = {  # file name -> codec and its options; a key frame in twelve
    "plain.avi": ("mpeg4", {"qmin": 2, "qmax": 2, "sc_threshold": 10**9}),
    "b.avi": ("mpeg4", {"qmin": 2, "qmax": 2, "sc_threshold": 10**9, "bf": 2}),
    "h264.mp4": ("libx264", {"crf": 20, "bf": 2, "sc_threshold": 0}),
    "h264.mkv": ("libx264", {"crf": 20, "bf": 2, "sc_threshold": 0}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": 8, "b": "1M"}),
}


def code(number: int) -> np.ndarray:
    """A pattern of 8 x 8 bits for a number: two numbers differ in about half of them."""
    return np.unpackbits(np.frombuffer(hashlib.sha256(bytes([number])).digest()[:8], np.uint8)).reshape(8, 8)


CODES = np.stack([code(number) for number in range(256)])


def number_of(picture: np.ndarray) -> int | None:
    """The number that a picture uint8 (h, w, 3) shows, both multiples of 8; None where damage made it unreadable."""
    height, width = (side // 8 for side in picture.shape[:2])
    blocks = picture[..., 1].reshape(8, height, 8, width)
    inner = blocks[:, height // 4 : height - height // 4, :, width // 4 : width - width // 4]
    wrong = (CODES != (inner.mean((1, 3)) > 128)).sum((1, 2))
    return int(wrong.argmin()) if wrong.min() <= 6 else None


def write_numbered(path: Path, codec: str, options: dict, count: int = COUNT) -> Path:
    """Write a video of `count` numbered frames; returns its path."""
    grain = np.random.default_rng(0).integers(-20, 21, (count, SIZE, SIZE))
    # The header comes first, so that a file that is cut still has it.
    layout = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=layout) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "mpeg4" and path.suffix == ".avi":
            stream.codec_context.codec_tag = "XVID"
        stream.options = {key: str(value) for key, value in ({"threads": 1, "g": 12} | options).items()}
        for i in range(count):
            grey = np.kron(CODES[i], np.full((SIZE // 8, SIZE // 8), 170)) + 40 + grain[i]
            picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def packets_of(path: Path) -> list[bytes]:
    """The encoded frames of a video, in the order of the file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def write_packets(path: Path, source: Path, packets: list[bytes]) -> Path:
    """Write an AVI of these encoded frames, one a frame time, with the header of the AVI `source`."""
    with av.open(str(source)) as of, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(of.streams.video[0])
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, of.streams.video[0].time_base
            packet.pts = packet.dts = i
            container.mux(packet)
    return path


def kind_of(packet: bytes) -> str:
    """What an MPEG-4 frame is predicted from: "I", "P", "B" or "S"."""
    return "IPBS"[packet[packet.find(b"\0\0\1\xb6") + 4] >> 6]


def still(i: int) -> bytes:
    """An MPEG-4 frame of six bytes that says: as before. `i`: its place, at 25 frames a second."""
    return b"\0\0\1\xb6" + int(f"01{0}1{i % 25:05b}1{0}01111", 2).to_bytes(2)


def write_packed(path: Path, source: Path) -> Path:
    """Rewrite an AVI with B-frames as some of UCF101 are: the first B-frame
    shares the packet of the frame before it, and a still frame takes the place that becomes free."""
    packed, free = [], False
    for packet in packets_of(source):
        if kind_of(packet) == "B" and not free and len(packed) > 1:
            packed[-1] += packet
            free = True
            continue
        if kind_of(packet) != "B" and free:
            packed.append(still(len(packed)))
            free = False
        packed.append(packet)
    packed += [still(len(packed))] * free
    return write_packets(path, source, [b"\0\0\1\xb2DivX503b1393p\0" + packed[0], *packed[1:]])
