"""Slopes and projections, against numbers worked out by hand."""

import json

import pytest
from davidbook import figures
from davidbook.projection import (
    along,
    benchmark,
    clip_values,
    iteration_flops,
    memory,
    peak,
    project,
    spread,
    student_flops,
    sustained,
)

from david.runs import records
from david.runs.costs import clip_flops
from david.runs.settings import Settings

HEAVY = Settings(frames=8, size=64)
BASE = {"classes": 10, "ipc": 2, "frames": 8, "size": 48}


def made_up(**place) -> dict:
    """A point whose memory is 3 bytes a stored byte, 5 a value of a clip and 1,000, and 7 a class beyond ten."""
    place = BASE | place
    values = place["frames"] * place["size"] ** 2 * 3
    stored = 4 * values * place["classes"] * place["ipc"]
    return {
        "method": "david", **place,
        "stored_bytes": stored,
        "held_bytes": 3 * stored,
        "peak_bytes": 3 * stored + 5 * values + 1000 + 7 * (place["classes"] - 10),
        "seconds": [2.0, 9.0, 4.0],
        "FLOP": 1e9 * place["classes"],
    }  # fmt: skip


@pytest.fixture
def record() -> dict:
    places = [{}, {"classes": 50}, {"ipc": 50}, {"ipc": 1}, {"frames": 16}, {"size": 112}]
    points = [made_up(**place) for place in places]
    points[3]["peak_bytes"] //= 2  # fewer videos than the base has do not fill a chunk
    axes = {"classes": [10, 50], "ipc": [1, 2, 50], "frames": [8, 16], "size": [48, 112]}
    return {"base": BASE, "axes": axes, "points": points + [point | {"method": "dm"} for point in points]}


def test_an_axis_goes_through_the_base_in_order(record):
    found = along(record["points"], BASE, "ipc", method="david")
    assert [point["ipc"] for point in found] == [1, 2, 50]
    assert {(point["method"], point["classes"], point["size"]) for point in found} == {("david", 10, 48)}
    assert [p["size"] for p in along(record["points"], BASE, "size", method="dm")] == [48, 112]


def test_memory_is_taken_apart_and_put_together_again(record):
    grown = memory(record, "david")
    values = 8 * 48 * 48 * 3
    assert grown["per stored byte"] == pytest.approx(3, rel=1e-4)
    assert grown["per value"] == pytest.approx(5) and grown["constant"] == pytest.approx(1000, rel=1e-3)
    assert grown["spread over classes"] == pytest.approx(280 / (5 * values + 1000))
    place = {"ipc": 20, "frames": 16, "size": 64}
    stored = 10 * 20 * 4 * clip_values(Settings(frames=16, size=64))
    assert peak(grown, Settings(frames=16, size=64), stored) == pytest.approx(made_up(**place)["peak_bytes"], rel=1e-4)


def test_videos_that_live_on_the_host_take_no_part_in_the_slope(record):
    more = [made_up(classes=20), made_up(classes=400) | {"held_bytes": 0, "peak_bytes": 10**6}]
    hosted = record["points"] + more
    assert memory(record | {"points": hosted}, "david")["per stored byte"] == pytest.approx(3, rel=1e-4)
    assert spread(more[1:] + [more[1] | {"peak_bytes": 11 * 10**5}]) == pytest.approx(0.1)


def test_sustained_is_davids_median_at_the_largest_ipc(record):
    for point in record["points"]:
        point["seconds"] = [1.0, 5.0, 2.0] if point["ipc"] == 50 and point["method"] == "david" else [0.1]
    assert sustained(record) == pytest.approx(10e9 / 2)


def test_iteration_by_hand():
    """Protocol, section 11, heavy track: 64 x 1.773 + 3.545 x IPC x 3.75 GFLOP a class, about 51 TFLOP for K400."""
    real, synthetic = iteration_flops(HEAVY, classes=400, ipc=1, segments=3.75)
    assert real / 1e12 == pytest.approx(400 * 64 * 1.773e-3, rel=1e-3)
    assert synthetic / 1e12 == pytest.approx(400 * 3.545e-3 * 3.75, rel=1e-3)
    assert (real + synthetic) / 1e12 == pytest.approx(51, rel=0.02)


@pytest.mark.parametrize(("frames", "size", "classes", "giga"), [(16, 112, 50, 30.17), (8, 64, 400, 4.856)])
def test_a_training_step_by_the_protocol(frames, size, classes, giga):
    """Protocol, section 1: forward and backward to the weights."""
    assert student_flops(frames, size, 1.0, classes) / 1e9 == pytest.approx(giga, rel=2e-3)


def test_kinetics_by_hand():
    common = {
        "classes": 400, "ipc": 50, "segments": 3.75, "devices": 8, "flops_per_second": 1e14,
        "bytes_per_stored": 2.0, "working": 1e9, "decoded_per_second": 1000,
    }  # fmt: skip
    found = project(HEAVY, clips=241_000, **common)
    without, with_gradient = clip_flops(8, 64, 1.0)
    iteration = 400 * (64 * without + 50 * 3.75 * with_gradient)
    assert found["data bytes"] == 241_000 * 98_304 and found["stored bytes"] == 20_000 * 393_216
    assert found["device bytes"] == 50 * 50 * 393_216 * 2 + 1e9
    assert found["student bytes"] == 256 * 8 * 64 * 64 * 200 and found["checkpoint bytes"] == 2 * 20_000 * 393_216
    assert found["iteration FLOP"] == pytest.approx(iteration)
    assert found["synthesis seconds"] == pytest.approx(5000 * iteration / 8 / 1e14)
    episodes = 20 * (100 * iteration + 2 * 75_000 * without)
    assert found["search FLOP"] == pytest.approx(episodes + 241_000 * without)
    # One device trains the teacher; five students fit on eight devices at once.
    trained = student_flops(8, 64, 1.0, 400)
    assert found["teacher seconds"] == pytest.approx(5000 * 256 * trained / 1e14)
    assert found["students seconds"] == pytest.approx(1000 * 256 * trained / 1e14)
    assert found["decoding seconds"] == 241
    more = project(HEAVY, clips=10_000_000, **common)
    assert more["iteration FLOP"] == found["iteration FLOP"] and more["device bytes"] == found["device bytes"]
    assert more["search FLOP"] - found["search FLOP"] == pytest.approx(9_759_000 * without)


def test_devices_that_do_not_divide_the_classes_wait_for_the_fullest():
    common = {"ipc": 1, "clips": 1, "segments": 1, "flops_per_second": 1e12, "bytes_per_stored": 2, "working": 0}
    one, three = (project(HEAVY, classes=4, devices=n, decoded_per_second=1, **common) for n in (1, 3))
    assert three["synthesis seconds"] == pytest.approx(one["synthesis seconds"] / 2)
    assert three["device bytes"] == one["device bytes"] / 2
    assert three["students seconds"] == pytest.approx(one["students seconds"] * 2 / 5)


def test_a_page_that_asked_is_made_again_when_the_record_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "asked", set())
    monkeypatch.setattr(records, "used", {})
    assert benchmark(tmp_path, "growth", "h100") is None and not records.used
    assert records.asked == {tmp_path / "growth-h100.json"}
    (tmp_path / "growth-h100.json").write_text(json.dumps({"what": 1}))
    assert benchmark(tmp_path, "growth", "h100") == {"what": 1}
    assert list(records.used.values()) == ["published"]


def test_figures_show_ratios_and_bytes(record, screenless):
    figure = figures.growth(record)
    times, memory = figure.axes[:4], figure.axes[4:]
    assert [axis.get_xlabel() for axis in memory] == ["classes", "IPC", "frames a clip", "pixels a side"]
    assert all(line.get_ydata()[0] == 1 for axis in times for line in axis.lines)
    peaks = [p["peak_bytes"] / 2**20 for p in along(record["points"], BASE, "classes", method="dm")]
    assert memory[0].lines[0].get_ydata() == pytest.approx(peaks)
    stages = {
        "sampling": {"share of the bound": 0.5, "work": {"copy": 1}},
        "evaluation": {"share of the bound": 1.25, "work": {"float32": 1}},
    }
    (axis,) = figures.shares({"points": [{"stages": stages}]}).axes
    assert [bar.get_width() for bar in axis.patches] == [50, 125] and axis.get_xlim()[1] > 125
