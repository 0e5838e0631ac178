"""Every setting of an experiment in one dataclass, and the presets that the book uses."""

import math
from dataclasses import asdict, dataclass, fields, replace

from david import algorithm, matching, training
from david.baselines import experts, mtt, vdsd
from david.support.values import unknown

# How a policy is searched: the paper's rule, the same after a warm-up, and the rivals of Table 3.
_PAPER = {"search_agent": "q", "search_warmup": 0, "search_readout": "q"}
_WARMUP = {"search_agent": "q", "search_warmup": 2, "search_readout": "mean"}
RULES = {
    "paper": _PAPER,
    "warmup": _WARMUP,
    "grid": _WARMUP | {"search_warmup": 1, "search_episodes": 0, "search_beta": 1.0},  # every L once, to the end
    "full": _WARMUP | {"search_beta": 1.0},  # episodes are whole distillations
    "paper-full": _PAPER | {"search_beta": 1.0},
    "once": _WARMUP | {"search_warmup": 1, "search_episodes": 0},  # the grid, by early stages
    "start": _WARMUP | {"search_beta": 0.0},  # rewards of the segments as they start, real frames
    "halving": _WARMUP | {"search_agent": "halving", "search_warmup": 0},  # the same budget, spent otherwise
    "shared": _WARMUP | {"search_agent": "shared"},  # one L for all classes
}

STAGES = ("distill_", "search_", "teacher_", "expert_", "mtt_", "vdsd_", "student_")

# What a setting may be: one of some words; a whole number of at least 1, or of at least these; a number of at least 0,
# some of them at most 1.
_CHOICES = {
    "distill_precision": ("bfloat16", "float32"),
    "distill_start": ("noise", "real", "mean"),
    "distill_networks": ("random", "experts"),
    "distill_lr_unit": ("absolute", "curvature"),
    "mtt_lr_unit": ("absolute", "pixel"),
    "vdsd_start": ("noise", "real"),
    "teacher_per": ("dataset", "seed"),
    "expert_per": ("dataset", "seed"),
    "search_agent": ("q", "shared", "halving"),
    "search_reward": ("paper", "relative", "gain"),
    "search_readout": ("q", "mean"),
} | {f"{stage}_optimizer": ("sgd", "adam") for stage in ("distill", "teacher", "mtt", "vdsd", "student")}
_CHOICES |= {f"{stage}_range": ("8-bit", "free") for stage in ("distill", "mtt")}
_LEAST = {"frames": 8, "size": 48} | dict.fromkeys(
    ("teacher_seed", "search_episodes", "search_warmup", "mtt_batch", "distill_iterations", "mtt_iterations",
     "vdsd_static_iterations"), 0,
)  # fmt: skip
_SHARES = [f"search_{name}" for name in ("beta", "alpha", "gamma", "p")]
_SHARES += [f"{stage}_momentum" for stage in ("distill", "mtt", "vdsd")]


# Settings that came later, and what records from before them were made with. A setting of that value does not enter a
# record's key, so that those records still have theirs.
BEFORE = {
    "distill_range": "free", "distill_lr_unit": "absolute", "distill_average": 0.0, "distill_networks": "random",
    "mtt_range": "free", "mtt_lr_unit": "absolute", "mtt_average": 0.0,
    "vdsd_start": "noise", "teacher_per": "dataset", "expert_per": "dataset",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings of one experiment; the defaults are the paper's (light-weight track) where it states them.

    Field names without a prefix concern every method; the prefixes (``STAGES``) say which stage reads the others, and
    only the stages that a method runs enter its record's key.

    Raises:
        ValueError: an unknown field (the nearest known one is suggested), or a value of the wrong type or range.
    """

    frames: int = 16  # F, frames a clip
    size: int = 112  # height and width of a frame, pixels
    stride: int = 4  # source frames between two frames of a clip
    width: float = 1.0  # factor on the channels of C3D

    distill_iterations: int = 5000  # N
    distill_optimizer: str = "sgd"  # "sgd" or "adam", on normalised pixels
    distill_lr: float = 10.0
    distill_momentum: float = 0.95  # SGD only
    distill_batch_real: int = 64  # real clips a class and iteration
    distill_precision: str = "bfloat16"  # or "float32"; of the real clips' pass: david.fast_embed
    distill_start: str = "noise"  # "noise": N(0, 1); "real", "mean": see david.matching
    distill_range: str = "8-bit"  # pixels are kept within what 8 bits can show and rounded at the end; or "free"
    distill_lr_unit: str = "absolute"  # or "curvature": see david.matching.Distiller
    distill_average: float = 0.0  # 0: the last iterate; k: about the last 1 / k of them, averaged: david.support.loop
    distill_networks: str = "random"  # or "experts": the snapshots of MTT's experts, networks trained a little

    search_agent: str = "q"  # "q": a Q-table a class; "shared": one for all classes; "halving": see david.algorithm
    search_episodes: int = 20  # T; 0: the warm-up alone
    search_beta: float = 0.02  # Eq. 5: an episode runs int(beta * N) iterations; 0: none, the start is rewarded
    search_alpha: float = 0.1  # Q learning rate
    search_gamma: float = 0.5  # discount
    search_p: float = 0.7  # probability of exploiting
    search_reward: str = "paper"  # see david.reward
    search_warmup: int = 0  # rounds over all actions before Eq. 3
    search_readout: str = "q"  # "q" or "mean"

    teacher_seed: int = 0
    teacher_per: str = "dataset"  # one teacher for all seeds of the distillation; or "seed": one each
    teacher_steps: int = 5000
    teacher_batch: int = 256
    teacher_lr: float = 0.01
    teacher_optimizer: str = "sgd"  # "sgd": x0.1 at half; "adam": one-cycle

    expert_count: int = 30  # MTT: networks whose training is recorded
    expert_per: str = "dataset"  # as teacher_per
    expert_epochs: int = 50
    expert_batch: int = 256
    expert_lr: float = 0.01  # SGD without momentum, weight decay or schedule

    mtt_iterations: int = 8000
    mtt_optimizer: str = "sgd"  # on normalised pixels
    mtt_lr: float = 1e5
    mtt_momentum: float = 0.5  # SGD only
    mtt_range: str = "8-bit"  # as distill_range
    mtt_lr_unit: str = "absolute"  # or "pixel": see david.baselines.mtt
    mtt_average: float = 0.0  # as distill_average
    mtt_steps: int = 10  # student steps unrolled in an iteration
    mtt_batch: int = 0  # synthetic clips a student step; 0: the whole set
    mtt_span: int = 1  # expert epochs that the student is to cover
    mtt_max_start: int = 10  # expert epochs to start from: 0 to this, exclusive
    mtt_student_lr: float = 0.01  # initial; it is learned
    mtt_student_lr_lr: float = 1e-5
    mtt_lr_dynamic: float = 0.0  # VDSD on MTT: its dynamic memory; 0: as published
    mtt_lr_hallucinator: float = 0.0  # likewise

    vdsd_static_iterations: int = 1000  # gradient matching of the still images (DC's default)
    vdsd_static_lr: float = 0.1
    vdsd_static_batch: int = 256  # real frames a class and iteration
    vdsd_optimizer: str = "sgd"  # of dynamic memory and hallucinator
    vdsd_momentum: float = 0.95
    vdsd_start: str = "noise"  # of dynamic memory and hallucinator, as published; or "real": see david.baselines.vdsd
    vdsd_lr_dynamic: float = 0.0  # VDSD on DM; 0: as published for the IPC
    vdsd_lr_hallucinator: float = 0.0  # likewise

    student_steps: int = 1000
    student_batch: int = 256
    student_lr: float = 0.01
    student_optimizer: str = "sgd"
    student_repeats: int = 5  # students trained on each distilled set

    def __new__(cls, *_, **changes):
        if wrong := [name for name in changes if name not in cls.__dataclass_fields__]:
            raise unknown("setting", wrong[0], cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self):
        for field in fields(self):
            name, kind, value = field.name, field.type, getattr(self, field.name)
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
                raise ValueError(f"setting {name} takes {kind.__name__}, got {value!r}")
            if name in _CHOICES:
                right, range_ = value in _CHOICES[name], f"one of {', '.join(map(repr, _CHOICES[name]))}"
            elif kind is int:
                least = _LEAST.get(name, 1)
                right, range_ = value >= least, f"a whole number of at least {least}"
            elif name in _SHARES:
                right, range_ = 0 <= value <= 1, "a number from 0 to 1"
            elif name == "width":
                right, range_ = 0 < value < math.inf, "a number above 0"
            else:
                right, range_ = 0 <= value < math.inf, "a number of at least 0"
            if not right:
                raise ValueError(f"setting {name} is {range_}, got {value!r}")
            object.__setattr__(self, name, kind(value))  # 10 and 10.0 are one setting, with one key
        for stage, unit in (("distill", self.distill_lr_unit), ("mtt", self.mtt_lr_unit)):
            if unit != "absolute" and getattr(self, f"{stage}_optimizer") == "adam":
                raise ValueError(f"setting {stage}_lr_unit={unit!r} is of SGD's steps; those of Adam are 'absolute'")
            if unit != "absolute" and getattr(self, f"{stage}_momentum") == 1:
                raise ValueError(f"setting {stage}_lr_unit={unit!r} needs {stage}_momentum below 1, or steps are 0")
        if self.distill_networks == "experts" and self.expert_count < 2:
            raise ValueError(
                "setting distill_networks='experts' keeps one expert for the held-out loss: expert_count >= 2"
            )

    def stage(self, kind: type, prefix: str, **given):
        """The settings of one stage, as the dataclass ``kind`` has them: the fields of its prefix, or common ones."""
        own = asdict(self)
        names = [field.name for field in fields(kind) if field.name not in given]
        return kind(**given, **{name: own.get(f"{prefix}_{name}", own.get(name)) for name in names})

    @property
    def distill(self) -> matching.Settings:
        """How videos are distilled."""
        return self.stage(matching.Settings, "distill")

    @property
    def teacher(self) -> training.Settings:
        """How teachers and references on full data are trained."""
        return self.stage(training.Settings, "teacher")

    def teacher_of(self, seed: int) -> int:
        """The seed of the teacher that a distillation of this seed has."""
        return self.teacher_seed + (seed if self.teacher_per == "seed" else 0)

    def experts_of(self, seed: int) -> int:
        """The seed of the experts that a distillation of this seed has."""
        return seed if self.expert_per == "seed" else 0

    @property
    def student(self) -> training.Settings:
        """How students are trained."""
        return self.stage(training.Settings, "student")

    @property
    def expert(self) -> experts.Settings:
        """How experts are trained."""
        return self.stage(experts.Settings, "expert")

    @property
    def mtt(self) -> mtt.Settings:
        """How trajectories are matched."""
        return self.stage(mtt.Settings, "mtt")

    def vdsd(self, backbone: str) -> vdsd.Settings:
        """How VDSD learns on a backbone, "dm" or "mtt"."""
        own = {name: getattr(self, f"mtt_{name}") for name in ("lr_dynamic", "lr_hallucinator") if backbone == "mtt"}
        return self.stage(vdsd.Settings, "vdsd", **own)

    @property
    def algorithm(self) -> algorithm.Settings:
        """How a policy is searched, and how videos are distilled."""
        return self.stage(algorithm.Settings, "search", distill=self.distill)

    def replace(self, **changes) -> "Settings":
        """A copy with some fields changed; errors as of ``Settings``."""
        return replace(self, **changes)

    def with_rule(self, rule: str) -> "Settings":
        """The settings with a search rule: "paper", "warmup", or another of ``RULES``."""
        if rule not in RULES:
            raise unknown("search rule", rule, RULES)
        return self.replace(**RULES[rule])

    @property
    def rule(self) -> str:
        """The search rule of these settings: "paper", "warmup", or "another"."""
        own = {name: getattr(self, name) for name in _PAPER}
        return next((name for name in ("paper", "warmup") if RULES[name] == own), "another")

    @property
    def early_iterations(self) -> int:
        """N_early of Eq. 5, at least 1 unless beta is 0."""
        return self.algorithm.early_iterations

    def subset(self, *prefixes: str) -> dict:
        """The fields without a prefix and those with one of ``prefixes``: what a method's result depends on."""
        own = {name: value for name, value in asdict(self).items() if BEFORE.get(name) != value}
        wanted = {name: value for name, value in own.items() if not name.startswith(STAGES)}
        return wanted | {k: v for k, v in own.items() if k.startswith(tuple(f"{p}_" for p in prefixes))}


_EARLIER = Settings(
    **BEFORE,
    frames=8, size=48, width=0.25,
    distill_iterations=40, distill_optimizer="adam", distill_lr=0.03, distill_batch_real=8, distill_start="real",
    distill_precision="float32",
    search_episodes=12, search_beta=0.1,
    teacher_steps=150, teacher_batch=48, teacher_lr=3e-3, teacher_optimizer="adam",
    expert_count=3, expert_epochs=18, expert_batch=48, expert_lr=0.05,
    mtt_iterations=40, mtt_optimizer="adam", mtt_lr=0.03, mtt_steps=6, mtt_batch=12, mtt_span=2, mtt_max_start=8,
    mtt_student_lr=0.03, mtt_lr_dynamic=0.03, mtt_lr_hallucinator=0.001,
    # Chosen on held-out training groups. DC's step size, 0.1, would leave real frames as they are in 70 iterations.
    vdsd_static_iterations=70, vdsd_static_lr=10.0, vdsd_static_batch=8,
    vdsd_optimizer="adam", vdsd_lr_dynamic=0.1, vdsd_lr_hallucinator=0.003,
    student_steps=60, student_batch=24, student_lr=4e-3, student_optimizer="adam", student_repeats=3,
)  # fmt: skip

# Chosen on held-out training groups of motions, ucf12 and msraction3d: see the page "Does it distil?".
_DEMO = _EARLIER.replace(
    distill_iterations=100, distill_optimizer="sgd", distill_momentum=0.95, distill_lr=1.0, distill_lr_unit="curvature",
    distill_average=4.0, distill_range="8-bit", distill_batch_real=16,
    expert_count=4, teacher_per="seed", expert_per="seed",
    mtt_iterations=300, mtt_optimizer="sgd", mtt_momentum=0.9, mtt_lr=0.01, mtt_lr_unit="pixel", mtt_average=4.0,
    mtt_range="8-bit",
    student_steps=300, student_repeats=2,
)  # fmt: skip

PRESETS = {
    # Seconds; the defaults of every notebook, so that CI runs them all. Its numbers mean nothing.
    "smoke": _DEMO.replace(
        width=0.125, distill_iterations=2, distill_batch_real=2, search_episodes=4, search_beta=0.5,
        teacher_steps=3, teacher_batch=8, student_steps=3, student_batch=12, student_repeats=2,
        expert_count=2, expert_epochs=1, mtt_iterations=2, mtt_steps=2, mtt_span=1,
        vdsd_static_iterations=2, vdsd_static_batch=4,
    ),
    # Minutes on two CPU cores, on the embedded motions data.
    "demo": _DEMO,
    # The demo of before, whose pixels Adam moves without bounds; what pages show whose records are from then.
    "earlier": _EARLIER,
    # The paper's settings, light-weight track (section 4.2); for a GPU.
    "paper": Settings(),
}  # fmt: skip


def preset(name: str, **changes) -> Settings:
    """The settings of a preset ("smoke", "demo", "earlier", "paper"), with some fields changed.

    Raises:
        ValueError: unknown preset or field.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name].replace(**changes)
