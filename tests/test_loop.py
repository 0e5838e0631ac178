"""The loop around every distillation: range, averages, what is held out, and a checkpoint of all of it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from david.support.loop import Loop
from david.support.pixels import MEAN, STD


class Counting(Loop):
    """Its leaf, of one pixel, is i after iteration i, or what is given; likewise what is held out."""

    def __init__(self, average=0.0, *, values=None, losses=None, bounded=False):
        self.values, self.losses, self.bounded = values or range(1, 1000), losses, bounded
        self.leaves, self.optimizers, self.average = {"pixel": torch.zeros(3, 1, 1)}, [], average
        self.begin_averages(["pixel"])

    def step(self):
        self.leaves["pixel"].fill_(self.values[self.iteration])
        self.settle("pixel", self.bounded)
        self.iteration += 1

    def held_out(self):
        return self.losses and self.losses[self.iteration]

    def identity(self):
        return "counting"


def stored(loop, iterations, **options):
    """What a run of so many iterations comes to, of the one pixel's first channel."""
    loop.run(iterations, **options)
    return loop.result("pixel")[0].item()


def test_an_average_by_hand():
    """Iterate i counts k / (k + i - 1); here k = 4, so 1, 4/5, 4/6, 4/7. The first makes the start forgotten."""
    found = [stored(Counting(4.0), iterations) for iterations in (0, 1, 2, 3, 4)]
    assert found == pytest.approx([0, 1, 1 + 4 / 5 * 1, 1.8 + 4 / 6 * 1.2, 2.6 + 4 / 7 * 1.4])
    assert [stored(Counting(), iterations) for iterations in (0, 1, 4)] == [0, 1, 4]  # without one, the last
    # At any k it is a mean of iterates, of about the last 1 / k of them: of a straight line, k / (k + 1) of its end.
    assert [stored(Counting(k), 900) / 900 for k in (1.0, 4.0, 9.0)] == pytest.approx([0.5, 0.8, 0.9], abs=1e-3)


def test_an_average_needs_no_horizon_and_no_uninterrupted_run(tmp_path):
    whole, path = Counting(4.0), tmp_path / "checkpoint.safetensors"
    first = stored(whole, 5)
    assert stored(Counting(4.0), 5, checkpoint=path, every=5) == first
    assert stored(whole, 10) == stored(Counting(4.0), 10) == stored(Counting(4.0), 10, checkpoint=path) != first


def test_a_checkpoint_from_before_has_no_curve(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_file({"pixel/value": torch.full((3, 1, 1), 2.0)}, path, metadata={"iteration": "2", "identity": "counting"})
    loop = Counting(losses=[1.0] * 5)
    assert stored(loop, 4, checkpoint=path, every=4) == 4 and loop.curve == [[2, 1.0], [3, 1.0], [4, 1.0]]
    assert set(load_file(path)) == {"pixel/value"}


def test_what_is_held_out_is_looked_at_a_few_times(tmp_path):
    losses, path = [5 - 0.1 * i for i in range(25)], tmp_path / "checkpoint.safetensors"
    whole, first, second = (Counting(losses=losses) for _ in range(3))
    whole.run(23, looks=5)
    assert whole.curve == [[i, losses[i]] for i in (0, 4, 8, 12, 16, 20, 23)]
    first.run(8, looks=2, checkpoint=path, every=6)
    second.run(23, looks=5, checkpoint=path)
    assert second.curve == [[i, losses[i]] for i in (0, 4, 8, 12, 16, 20, 23)]  # once each, in both sessions
    nothing = Counting()
    nothing.run(3)
    assert nothing.curve == []


@pytest.mark.parametrize(
    ("values", "losses", "message"),
    [
        ([1, float("nan")] + [1] * 18, None, "pixel diverged within 2 iterations; lower its step size"),
        ([1, float("inf")] + [1] * 18, None, "pixel diverged within 2 iterations; lower its step size"),
        (None, [2, 0, 8.1] + [0] * 18, "from 2 to 8.1 within 2 iterations, so steps make noise; lower its step"),
        (None, [2, 0, float("nan")] + [0] * 18, "from 2 to nan within 2 iterations"),
        (None, [0, 0, 1.1] + [0] * 18, "from 0 to 1.1 within 2 iterations"),
    ],
)
def test_a_run_that_diverges_ends_at_the_next_look(values, losses, message):
    if values:
        values[2:] = values[1:2] * 18  # what is not a number remains so
    loop = Counting(values=values, losses=losses)
    with pytest.raises(FloatingPointError, match=message):
        loop.run(20)
    assert loop.iteration == 2


def test_a_run_may_become_worse_by_less():
    """A set of real clips begins with a loss of 0, to which a step can only add."""
    for losses in ([2.0, 7.9], [0.0, 0.9]):
        loop = Counting(losses=losses)
        loop.run(1)
        assert loop.curve == [[0, losses[0]], [1, losses[1]]]


def test_pixels_beyond_black_and_white_are_brought_back_before_they_are_averaged():
    low, high = ([(end - mean) / std for mean, std in zip(MEAN, STD)] for end in (0, 1))
    loop = Counting(4.0, values=[99.0, -99.0, 0.5], bounded=True)
    for expected in (high, low, [0.5] * 3):
        loop.step()
        assert loop.leaves["pixel"].flatten().tolist() == pytest.approx(expected, abs=1e-6)
    second = [white + 4 / 5 * (black - white) for black, white in zip(low, high)]
    assert loop.result("pixel").flatten().tolist() == pytest.approx([s + 4 / 6 * (0.5 - s) for s in second], abs=1e-5)
