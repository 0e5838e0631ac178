"""Find methods by name: what a row of a table is called, which settings decide it, and the function that makes it."""

from dataclasses import dataclass, field, replace
from importlib import import_module

from david.runs.settings import RULES, Settings
from david.support.values import unknown

# The authors' recipe of DM on video (VDSD's script), for the row "DM (published step)".
PUBLISHED_DM = {
    "distill_start": "real", "distill_optimizer": "sgd", "distill_lr": 30.0, "distill_momentum": 0.5,
    "distill_range": "free", "distill_lr_unit": "absolute", "distill_average": 0.0, "distill_networks": "random",
}  # fmt: skip

# What distils where random networks do not: networks trained a little, from the mean of the class.
TRAINED = {"distill_networks": "experts", "distill_start": "mean"}

# Where the function of a method is, by its name before the colon; all are called alike:
# ``function(train, *, ipc, seed, settings, work) -> DistilledSet``.
_SELECTIONS = ("full", "still", "random", "mean", "keyframe", "herding", "kcenter")
HOMES = {name: f"baselines.selections.{name}" for name in _SELECTIONS}
HOMES |= {name: f"runs.distil.{name}" for name in ("dm", "mtt", "vdsd", "david")}


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: what was asked for in its shortest spelling, e.g. "dm:4": what equals another method has its name.
        title: how tables print it.
        paper: the row of the paper's tables that it reproduces, or None.
        stages: the prefixes of the settings it depends on, beside the common ones.
        changes: settings that the method replaces by its own.
        options: arguments that its function takes beside the common ones.
    """

    name: str
    title: str
    paper: str | None
    stages: tuple[str, ...]
    changes: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    @property
    def sharded(self) -> bool:
        """Whether several ranks (``david.runs.sharding``) share its classes out; else the first makes the set alone."""
        one_agent = self.changes.get("search_agent") == "shared"  # whose reward is the mean of all classes
        return self.name.partition(":")[0] in (*REAL, "dm", "david") and not one_agent

    @property
    def sweeps(self) -> bool:
        """Whether its videos can be taken out of a sweep under the settings that it is run with."""
        own = any(name.startswith("distill_") for name in self.changes)
        return self.name.partition(":")[0] in ("dm", "david") and not own

    @property
    def selects(self) -> bool:
        """Whether it stores real clips, so that no class can have fewer of them than IPC."""
        return self.name.partition(":")[0] in ("random", "keyframe", "herding", "kcenter")

    @property
    def follows(self) -> bool:
        """Whether it follows the training of networks, which one class does not train."""
        return "mtt" in self.stages

    def stages_of(self, settings: Settings) -> tuple[str, ...]:
        """The prefixes of the settings that its result depends on, under these settings."""
        experts = settings.replace(**self.changes).distill_networks == "experts" and "distill" in self.stages
        return (*self.stages, "expert") if experts and "expert" not in self.stages else self.stages

    def settings(self, settings: Settings) -> Settings:
        """The settings under which the method runs; ValueError where they hold a search rule that it would overrule."""
        rules = [
            {name: rule[name] for name in RULES["paper"]} for rule in (RULES["paper"], RULES["paper"] | self.changes)
        ]
        if "search_readout" in self.changes and {name: getattr(settings, name) for name in rules[0]} not in rules:
            raise ValueError(
                f"settings search_agent={settings.search_agent!r}, search_warmup={settings.search_warmup} and "
                f"search_readout={settings.search_readout!r} make a rule of their own, and {self.name} has its own: "
                f"leave them, or take the method 'david:custom', which follows them"
            )
        return settings.replace(**self.changes)

    def distill(self, train, *, ipc, seed, settings, work=None, swept=False):
        """The method's distilled set: see its function."""
        module, _, name = HOMES[self.name.partition(":")[0]].rpartition(".")
        function = getattr(import_module(f"david.{module}"), name)
        options = self.options | ({"swept": True} if swept and self.sweeps else {})
        return function(train, ipc=ipc, seed=seed, settings=self.settings(settings), work=work, **options)


# name: (title, row of the paper, stages)
_PLAIN = {
    "full": ("Full data", "Full DS", ("teacher",)),
    "still": ("Full data (one frame a video)", None, ("teacher",)),
    "random": ("Random", "Random", ("student",)),
    "mean": ("Mean", None, ("student",)),
    "keyframe": ("KeyFrame", "KeyFrame", ("student",)),
    "herding": ("Herding", None, ("teacher", "student")),
    "kcenter": ("K-Center", None, ("teacher", "student")),
    "dm": ("DM", "DM", ("distill", "student")),
    "mtt": ("MTT", "MTT", ("expert", "mtt", "student")),
    "vdsd": ("VDSD on DM", "VDSD", ("vdsd", "distill", "student")),
    "david": ("DAViD", "DAViD", ("distill", "search", "teacher", "student")),
}
REAL = ("full", "still")  # no distillation: no IPC and no seed of it
# The rows of Tables 1 and 2, with those that the paper lacks.
ROWS = (
    "full",
    "random",
    "random:1",
    "mean",
    "keyframe",
    "herding",
    "kcenter",
    "dm",
    "mtt",
    "vdsd",
    "vdsd:mtt",
    "david",
)
# What follows "david:": (title, row of the paper's Tables 1-4 that it stands for, changes to the settings, synthesis).
_SEARCHES = {
    "": ("DAViD", "DAViD", RULES["paper"], True),
    "undistilled": ("DAViD (undistilled)", None, RULES["paper"], False),
    "warmup": ("DAViD (warm-up rule)", "DAViD", RULES["warmup"], True),
    "warmup-undistilled": ("DAViD (warm-up rule, undistilled)", None, RULES["warmup"], False),
    "trained": ("DAViD (trained networks)", None, RULES["paper"] | TRAINED, True),
    "custom": ("DAViD (own rule)", None, {}, True),
    "grid": ("Grid search", None, RULES["grid"], True),
    "full": ("Full-length search", None, RULES["full"], True),
    "paper-full": ("Full-length search (paper rule)", None, RULES["paper-full"], True),
    "once": ("DAViD (each L once)", None, RULES["once"], True),
    "start": ("DAViD (no early stage)", None, RULES["start"], True),
    "halving": ("Successive halving", None, RULES["halving"], True),
    "shared": ("One learned L for all", None, RULES["shared"], True),
}


def method(name: str, frames: int | None = None) -> Method:
    """Look a method up by name: one of the plain names, or one with an option after a colon.

    "random", "mean" and "dm" take a policy: one L for all classes ("dm:4"), one for each class ("dm:1,8,2"), or "any",
    an L drawn for each class. "dm:published" is DM with its authors' start and step size, "vdsd:mtt" VDSD on MTT.
    "dm:trained" and "david:trained" match under networks trained a little, from means of real clips.
    "david" follows the paper's search rule; after a colon it takes another of ``settings.RULES`` ("david:warmup",
    "david:grid", "david:shared", ...), or "custom", the one that the settings say. "david:undistilled" and
    "david:warmup-undistilled" learn a policy and then store real segments under it.

    Args:
        frames: F of the clips; with it "dm:8" is the plain "dm" where F is 8.

    Raises:
        ValueError: unknown name or option, with the nearest known one.
    """
    base, _, option = name.partition(":")
    if base not in _PLAIN:
        raise unknown("method", name, _PLAIN)
    title, paper, stages = _PLAIN[base]
    if not option and ":" not in name and base != "david":
        return Method(name, title, paper, stages)
    if base in ("random", "mean", "dm"):
        if option == "any":
            return Method(name, f"{title} (any L per class)", None, stages, options={"policy": "any"})
        if base == "dm" and option == "published":
            return Method(name, "DM (published step)", "DM", stages, PUBLISHED_DM)
        if base == "dm" and option == "trained":
            return Method(name, "DM (trained networks)", None, ("distill", "expert", "student"), TRAINED)
        parts = option.split(",")
        if all(part.isdecimal() and int(part) > 0 for part in parts):
            lengths = tuple(map(int, parts))
            shown = lengths[:1] if len(set(lengths)) == 1 else lengths  # one for each class, and the same for all
            if shown == (frames,):
                return replace(method(base), options={"policy": lengths})
            name = f"{base}:{','.join(map(str, shown))}"
            what = f"L = {shown[0]}" if len(shown) == 1 else "given policy"
            return Method(name, f"{title} ({what})", None, stages, options={"policy": lengths})
        known = f"a segment length L, as in '{base}:4', one for each class, as in '{base}:1,8,2', or '{base}:any'"
        raise ValueError(f"method {name!r}: the option of {base} is {known}")
    if name == "vdsd:mtt":
        stages = ("vdsd", "expert", "mtt", "student")
        return Method(name, "VDSD on MTT", "VDSD", stages, options={"backbone": "mtt"})
    if base == "david":
        option = "" if option == "paper" else option
        if option not in _SEARCHES:
            known = ", ".join(filter(None, _SEARCHES))
            raise ValueError(f"method {name!r}: the option of david is a search rule or a control, one of {known}")
        title, paper, changes, synthesis = _SEARCHES[option]
        name = f"david:{option}" if option else "david"
        stages = (*stages, "expert") if option == "trained" else stages
        return Method(name, title, paper, stages, changes, {} if synthesis else {"synthesis": False})
    raise ValueError(f"unknown method {name!r}; {base} takes no option {option!r}")
