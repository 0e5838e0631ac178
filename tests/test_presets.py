"""Settings refuse what they do not know, and say which of them a result depends on."""

import math
from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from david import algorithm, matching, training
from david.runs.settings import BEFORE, PRESETS, Settings, preset

STAGES = ("distill", "search", "teacher", "expert", "mtt", "vdsd", "student")


def test_defaults_are_the_papers():
    paper = preset("paper")
    assert paper == Settings()
    assert (paper.frames, paper.size, paper.stride, paper.width) == (16, 112, 4, 1.0)
    assert (paper.distill_iterations, paper.distill_lr, paper.distill_momentum) == (5000, 10, 0.95)
    assert (paper.distill_optimizer, paper.distill_start) == ("sgd", "noise")
    assert (paper.search_alpha, paper.search_gamma, paper.search_beta) == (0.1, 0.5, 0.02)
    assert (paper.student_steps, paper.student_lr) == (1000, 0.01)
    assert paper.with_rule("paper") == paper


@pytest.mark.parametrize(
    ("iterations", "beta", "early"), [(5000, 0.02, 100), (40, 0.1, 4), (10, 0.25, 2), (2, 0.02, 1), (40, 0.0, 0)]
)
def test_early_iterations_of_equation_5(iterations, beta, early):
    assert Settings(distill_iterations=iterations, search_beta=beta).early_iterations == early


def test_rules():
    warm = preset("paper").with_rule("warmup")
    assert (warm.search_warmup, warm.search_readout) == (2, "mean")
    assert warm.with_rule("paper") == preset("paper")
    assert [preset(name).rule for name in PRESETS] == ["paper"] * len(PRESETS) and warm.rule == "warmup"
    assert preset("demo", search_warmup=3).rule == "another"
    with pytest.raises(ValueError, match="unknown search rule 'best'; known are paper, warmup"):
        preset("paper").with_rule("best")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_values_of_the_right_type(name):
    settings = preset(name)
    assert settings.replace(**asdict(settings)) == settings
    assert settings.frames % 8 == 0 and settings.size >= 48


def test_replace_copies():
    settings = preset("demo", frames=16)
    assert settings.frames == 16 and preset("demo").frames == 8
    assert settings.replace(distill_lr=1).distill_lr == 1  # a whole number will do for a rate
    with pytest.raises(FrozenInstanceError):
        settings.frames = 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distil_lr": 1.0}, "unknown setting 'distil_lr'; did you mean 'distill_lr'?"),
        ({"zzz": 1.0}, "unknown setting 'zzz'; known are frames, size, stride, width, distill_iterations"),
        ({"frames": "16"}, "setting frames takes int, got '16'"),
        ({"frames": 16.0}, "setting frames takes int, got 16.0"),
        ({"frames": True}, "setting frames takes int, got True"),
        ({"width": None}, "setting width takes float, got None"),
        ({"distill_start": 0}, "setting distill_start takes str, got 0"),
        ({"student_optimizer": "Adam"}, "setting student_optimizer is one of 'sgd', 'adam', got 'Adam'"),
        ({"search_reward": "x"}, "setting search_reward is one of 'paper', 'relative', 'gain', got 'x'"),
        ({"size": 40}, "setting size is a whole number of at least 48, got 40"),
        ({"frames": 4}, "setting frames is a whole number of at least 8, got 4"),
        ({"stride": 0}, "setting stride is a whole number of at least 1, got 0"),
        ({"student_repeats": 0}, "setting student_repeats is a whole number of at least 1, got 0"),
        ({"distill_iterations": -1}, "setting distill_iterations is a whole number of at least 0, got -1"),
        ({"distill_lr": float("nan")}, "setting distill_lr is a number of at least 0, got nan"),
        ({"distill_lr": float("inf")}, "setting distill_lr is a number of at least 0, got inf"),
        ({"search_p": 2}, "setting search_p is a number from 0 to 1, got 2"),
        ({"frames": 16.5}, "setting frames takes int, got 16.5"),
        ({"distill_start": None}, "setting distill_start takes str, got None"),
        ({"search_p": 1.5}, "setting search_p is a number from 0 to 1, got 1.5"),
        ({"width": 0}, "setting width is a number above 0, got 0"),
        ({"distill_range": "7-bit"}, "setting distill_range is one of '8-bit', 'free', got '7-bit'"),
        (
            {"distill_lr_unit": "curvature", "distill_optimizer": "adam"},
            "setting distill_lr_unit='curvature' is of SGD's steps; those of Adam are 'absolute'",
        ),
        ({"mtt_lr_unit": "pixel", "mtt_optimizer": "adam"}, "setting mtt_lr_unit='pixel' is of SGD's steps"),
    ],
)
def test_wrong_settings(change, message):
    for call in (Settings, Settings().replace, lambda **changes: preset("smoke", **changes)):
        with pytest.raises(ValueError) as caught:
            call(**change)
        assert message in str(caught.value)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_the_constructor_is_replace(field):
    """What one accepts the other does, to the same value of the same type; what one refuses the other does."""
    for value in (
        -1,
        0,
        1,
        2,
        8,
        100,
        0.0,
        0.5,
        1.0,
        16.5,
        1e9,
        math.nan,
        math.inf,
        True,
        False,
        None,
        "sgd",
        "16",
        [],
    ):
        found = []
        for call in (Settings, Settings().replace):
            try:
                made = getattr(call(**{field.name: value}), field.name)
                assert type(made) is field.type and made == value
            except ValueError as error:
                made = str(error)
            found.append(made)
        assert found[0] == found[1]


def test_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'xyz'; known are smoke, demo, earlier, paper"):
        preset("xyz")
    with pytest.raises(ValueError, match=r"unknown preset 'demos'; did you mean 'demo'\?"):
        preset("demos")


def test_subset_of_a_stage():
    settings = Settings()
    common = {"frames": 16, "size": 112, "stride": 4, "width": 1.0}
    assert settings.subset() == common
    rates = {name: value for name, value in settings.subset("student").items() if name not in common}
    assert rates == {
        "student_steps": 1000,
        "student_batch": 256,
        "student_lr": 0.01,
        "student_optimizer": "sgd",
        "student_repeats": 5,
    }
    assert settings.subset(*STAGES).items() == asdict(settings).items() - BEFORE.items()
    assert set(settings.subset("distill", "search")) == set(settings.subset("distill")) | set(settings.subset("search"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_does_not_see_the_settings_of_another(stage):
    changes = {
        "distill_lr": 0.5,
        "search_p": 0.5,
        "teacher_lr": 0.5,
        "expert_lr": 0.5,
        "mtt_lr": 0.5,
        "student_lr": 0.5,
    }
    changes["vdsd_static_lr"] = 0.5
    del changes[next(name for name in changes if name.startswith(stage))]
    assert Settings().replace(**changes).subset(stage) == Settings().subset(stage)
    assert Settings(frames=8).subset(stage) != Settings().subset(stage)


def test_settings_that_came_later_leave_the_keys_of_before():
    """A setting of the value from before is in no subset, so in no key; any other value is, in that of its stage."""
    others = {"distill_range": "8-bit", "distill_lr_unit": "curvature", "distill_average": 4.0,
              "distill_networks": "experts", "mtt_range": "8-bit", "mtt_lr_unit": "pixel", "mtt_average": 4.0,
              "vdsd_start": "real", "teacher_per": "seed", "expert_per": "seed"}  # fmt: skip
    before = Settings(**BEFORE)
    assert set(others) == set(BEFORE) and not BEFORE.keys() & before.subset(*STAGES).keys()
    for name, value in others.items():
        (stage,) = (stage for stage in STAGES if name.startswith(stage))
        changed = before.replace(**{name: value})
        assert changed.subset(stage).items() - before.subset(stage).items() == {(name, value)}
        assert changed.subset(*set(STAGES) - {stage}) == before.subset(*set(STAGES) - {stage})
    assert all(getattr(preset("earlier"), name) == value for name, value in BEFORE.items())


def test_a_stage_has_its_own_settings():
    assert preset("paper").student == training.Settings(steps=1000, batch=256, lr=0.01, optimizer="sgd")
    assert preset("paper", teacher_lr=0.5, width=0.25).teacher == training.Settings(steps=5000, lr=0.5, width=0.25)
    assert preset("paper").distill == matching.Settings() and preset("paper").algorithm == algorithm.Settings()


def test_steps_in_units_of_the_loss_need_a_momentum_below_1():
    """Or they would be 0: both units have a factor of 1 - momentum."""
    for changes in ({"distill_momentum": 1.0}, {"mtt_momentum": 1.0}):
        with pytest.raises(ValueError, match=r"_lr_unit='(curvature|pixel)' needs (distill|mtt)_momentum below 1"):
            preset("demo", **changes)
    assert preset("paper", distill_momentum=1.0).distill_momentum == 1
