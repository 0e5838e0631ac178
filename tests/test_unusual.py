"""A whole film, however unusual, gives exactly the frames that a plain decoder shows."""

from collections import Counter

import av
import numpy as np
from numbered import number_of
from unusual import TURNS, films

from david.data.decode import decode_clip
from david.data.video import Survey, read


def plainly(path):
    """What PyAV shows of the stream that FFmpeg would choose: uint8 (h, w, 3) each."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]


def test_every_whole_film_is_read(tmp_path, capsys):
    count = Counter()
    for film in films():
        path = tmp_path / f"film.{film.suffix}"
        film.write(path)
        plain = plainly(path)
        assert [number_of(picture) for picture in plain] == list(film.shown), film
        found, turned = Survey(), TURNS.get(film.turn, lambda picture: picture)
        ours = list(read(path, found))
        assert len(ours) == len(plain) == len(found.times), film
        assert all(np.array_equal(a, turned(b)) for a, b in zip(ours, plain)), film
        assert decode_clip(path, 4, 1, 16)[1] == len(plain), film
        count[film.suffix] += 1
    assert count.total() >= 300
    with capsys.disabled():
        print(f"\n{count.total()} whole films of unusual make, all of them read: {dict(count)}")
