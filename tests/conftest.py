"""What several test files share. Nothing here touches the reader's own cache folder or the network."""

import importlib
import os
import sys
import tempfile
from pathlib import Path

os.environ["DAVID_PROGRESS"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"

import av
import numpy as np
import pytest
from served import server  # noqa: F401 - a fixture


@pytest.fixture(autouse=True, scope="session")
def cache():
    """A cache folder of this test session's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DAVID_CACHE"] = folder
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny_motions(cache):
    """A small `motions`: two appearance and two motion classes, 8 training and 4 test clips each."""
    from david.data.readers import load

    classes = ("Disc", "Square", "MoveLeft", "MoveRight")
    return load("motions", classes=classes, clips_per_group=4, train_groups=2, test_groups=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """UCF101's layout: two classes of two training videos and one test video."""
    return write_dataset(tmp_path_factory.mktemp("ucf101") / "data")


@pytest.fixture
def screenless():
    """Figures are drawn in memory, and closed after the test; a style that it sets is of this test alone."""
    import matplotlib.pyplot as plt
    import pandas as pd

    plt.switch_backend("agg")
    with plt.rc_context(), pd.option_context("display.html.use_mathjax", True):
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def test_data():
    """The folder of real videos that DAVID_TEST_DATA names: `ucf12/`, `ucf101_avi/`, `msraction3d/`, `splits/`."""
    folder = os.environ.get("DAVID_TEST_DATA")
    if not folder:
        pytest.skip("DAVID_TEST_DATA does not name a folder of real videos")
    return Path(folder)


def write_video(path, frames=40, *, width=160, height=120, codec="mpeg4", **options):
    """Write a real video file whose every frame differs; `bf=2` gives it B-frames. Returns its path."""
    rng = np.random.default_rng(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4":
            stream.codec_context.codec_tag = "XVID" if str(path).endswith("avi") else "mp4v"
            options = {"qmin": 2, "qmax": 2} | options
        stream.options = {key: str(value) for key, value in ({"threads": 1} | options).items()}
        for i in range(frames):
            picture = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            picture[20:60, (3 * i) % (width - 30) :][:, :30] = 255 - 5 * (i % 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


def write_dataset(root, classes=("A", "B"), clips=2, **options):
    """UCF101's layout in the folder `root`: of each class `clips` training videos and one test video."""
    lists = {"classInd": [], "trainlist01": [], "testlist01": []}
    for number, name in enumerate(classes, 1):
        (root / name).mkdir(parents=True)
        lists["classInd"].append(f"{number} {name}")
        for clip in range(clips + 1):
            line = f"{name}/v_{name}_g{1 + (clip > 0):02d}_c{max(1, clip):02d}.avi"
            write_video(root / line, 20 + clip, **{"width": 64, "height": 48} | options)
            lists["trainlist01" if clip else "testlist01"].append(f"{line} {number}" if clip else line)
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def load(monkeypatch):
    """name -> a module of benchmarks/, as a script there imports it; gone after the test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    ours = {path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")}
    for name in ours & set(sys.modules) - before:
        del sys.modules[name]
