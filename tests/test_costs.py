"""Peak memory is that of the work since the reset; FLOPs are those of the protocol's table."""

import sys

import pytest
import torch

from david.runs.costs import clip_flops, search_costs
from david.runs.settings import Settings, preset
from david.support.costs import home, peak_bytes, reset_peak, shared, shared_seconds

CPU = torch.device("cpu")


def test_shared_time_adds_up_even_where_a_block_fails(monkeypatch):
    clock = iter([10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr("david.support.costs.time.perf_counter", lambda: next(clock))
    before = shared_seconds()
    with shared():
        pass
    with pytest.raises(KeyError), shared():
        raise KeyError
    assert shared_seconds() - before == 3.5


@pytest.fixture
def gpu_of_120_bytes(monkeypatch):
    """What torch says of a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)  # so 20 of the 50 are free


@pytest.mark.parametrize(("bytes_held", "kind"), [(60, "cuda"), (61, "cpu")])
def test_videos_that_crowd_a_gpu_live_on_the_host(gpu_of_120_bytes, bytes_held, kind):
    assert home(torch.device("cuda", 0), bytes_held).type == kind
    assert home(torch.device("cpu"), 10**15).type == "cpu"


def test_flops_of_the_published_network():
    """Protocol, section 1: 11.00 GFLOP forward and 22.00 with a gradient to the input; 1.773 and 3.545."""
    assert [round(f / 1e9, 2) for f in clip_flops(16, 112, 1.0)] == [11.00, 22.00]
    assert [round(f / 1e9, 3) for f in clip_flops(8, 64, 1.0)] == [1.773, 3.545]


def test_search_costs_by_hand():
    settings = preset("demo")
    without, with_gradient = clip_flops(8, 48, 0.25)
    episodes = [
        {"iterations": 4, "forward": 100, "backward": 40, "seconds": 1.5},
        {"iterations": 2, "forward": 10, "backward": 5, "seconds": 0.5},
    ]
    assert search_costs(episodes, settings) == {
        "episodes": 2,
        "iterations": 6,
        "evaluations": 155,
        "flops": 110 * without + 45 * with_gradient,
        "seconds": 2.0,
    }
    assert search_costs(episodes, Settings())["flops"] > 90 * search_costs(episodes, settings)["flops"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_peak_forgets_what_was_before_the_reset():
    block = torch.ones(50 * 2**20)  # 200 MiB
    high = peak_bytes(CPU)
    del block
    reset_peak(CPU)
    low = peak_bytes(CPU)
    assert high - low > 150 * 2**20
    block = torch.ones(25 * 2**20)
    assert 60 * 2**20 < peak_bytes(CPU) - low < 140 * 2**20
    del block
