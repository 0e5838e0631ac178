"""Methods by name, each through the one `distill` shape."""

import inspect
from importlib import import_module

import pytest
import torch
from toy import noise_clips

from david.baselines.selections import full
from david.baselines.static_dynamic import StaticDynamicSet
from david.matching import start_videos
from david.runs.methods import HOMES, method
from david.runs.settings import preset
from david.sets import DistilledSet, RealSet
from david.support.pixels import denormalise, rounded

TINY = preset(
    "smoke", width=0.125, distill_iterations=1, distill_batch_real=2, search_episodes=5, teacher_steps=1,
    distill_lr=60.0,  # so that one iteration moves pixels to other grey levels
)  # fmt: skip
ALL = ("full", "random", "random:2", "random:1,2,8", "mean", "mean:2", "keyframe", "herding", "kcenter", "dm", "dm:2",
       "dm:any", "dm:published", "dm:trained", "mtt", "vdsd", "vdsd:mtt", "david", "david:warmup", "david:custom",
       "david:grid", "david:full", "david:paper-full", "david:once", "david:start", "david:halving", "david:shared",
       "david:undistilled", "david:warmup-undistilled", "david:trained")  # fmt: skip
FILES = ("full", "random", "mean", "keyframe", "herding", "kcenter", "dm", "mtt", "vdsd", "david")


@pytest.fixture(scope="module")
def train():
    """Classes of 5, 4 and 3 clips."""
    return noise_clips(labels=(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 0))


def run(name, train, **changes):
    return method(name).distill(train, **{"ipc": 1, "seed": 0, "settings": TINY, "work": None} | changes)


def test_one_shape():
    for name in FILES:
        module, _, own = HOMES[name].rpartition(".")
        function = getattr(import_module(f"david.{module}"), own)
        train, *others = inspect.signature(function).parameters.values()
        assert train.name == "train" and train.kind is train.POSITIONAL_OR_KEYWORD
        assert [p.name for p in others][:4] == ["ipc", "seed", "settings", "work"]
        assert all(p.kind is p.KEYWORD_ONLY for p in others)
        assert all(p.default is not p.empty for p in others[3:])


@pytest.mark.parametrize("name", [name for name in ALL if name != "keyframe"])  # which needs files: test_coresets.py
def test_every_method_gives_a_set_to_train_on(train, name):
    distilled = run(name, train, ipc=2)
    kinds = {"full": RealSet, "vdsd": StaticDynamicSet}
    assert type(distilled) is kinds.get(name.partition(":")[0], DistilledSet)
    assert distilled.classes == train.classes
    assert distilled.info["method"] == name.partition(":")[0]
    clips, labels = distilled.batch(torch.Generator().manual_seed(0), 6)
    assert clips.shape == (6, 8, 3, 48, 48) and labels.bincount(minlength=3).sum() == 6
    if name != "full":
        assert distilled.videos.shape == (3, 2, 8, 3, 48, 48) and not distilled.videos.requires_grad
        assert len(distilled.policy) == 3 and clips.dtype == torch.float32


@pytest.mark.parametrize("name", ["random:2", "dm", "david"])
def test_the_seed_decides(train, name):
    first, again, other = (run(name, train, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(again.videos, first.videos) and torch.equal(again.policy, first.policy)
    assert not torch.equal(other.videos, first.videos)


@pytest.mark.parametrize(("option", "length"), [("", 8), (":2", 2)])
def test_random_is_dm_at_iteration_0_from_the_real_start(train, option, length):
    settings = TINY.replace(distill_iterations=0, distill_start="real")
    sets = [run(base + option, train, ipc=2, settings=settings) for base in ("random", "dm")]
    assert torch.equal(sets[0].videos, sets[1].videos)
    assert sets[0].policy.tolist() == sets[1].policy.tolist() == [length] * 3


def test_dm_moves_away_from_its_start(train):
    start = start_videos(train, torch.tensor([8, 8, 8]), ipc=1, seed=0, kind=TINY.distill_start)
    moved = (run("dm", train).videos - start).abs().amax((1, 2, 3, 4, 5))
    assert moved.min() > 0


def test_mean_is_what_a_class_looks_like_on_average_in_8_bits(train):
    made = run("mean", train)
    for c, own in enumerate(train.by_class()):
        average = denormalise(train.batch(own)).float().mean(0)
        assert (denormalise(made.videos[c, 0]) - average).abs().max() <= 0.5 + 1e-3
    assert torch.equal(made.videos, rounded(made.videos)) and made.policy.tolist() == [8] * 3
    assert made.info["method"] == "mean" and torch.equal(run("mean", train, seed=1).videos, made.videos)
    parts = run("mean:2", train)
    assert parts.policy.tolist() == [2] * 3 and torch.equal(parts.videos, rounded(parts.videos))


@pytest.mark.parametrize("name", ["dm", "dm:any", "david", "david:undistilled", "mtt"])
def test_what_is_stored_is_what_8_bits_can_show(train, name):
    settings = TINY.replace(distill_start="noise", distill_average=4.0, mtt_lr=1.0, mtt_average=4.0)
    stored = run(name, train, settings=settings).videos
    assert torch.equal(stored, rounded(stored))
    if name != "david:undistilled":  # which are real frames
        free = run(name, train, settings=settings.replace(distill_range="free", mtt_range="free")).videos
        assert not torch.equal(free, rounded(free))


def test_experts_are_kept_beside_the_runs_and_shared(train, tmp_path, monkeypatch):
    trained = TINY.replace(distill_networks="experts")
    run("dm:trained", train, work=tmp_path / "first")
    monkeypatch.setattr(
        "david.baselines.experts.train_expert", lambda *_, **__: pytest.fail("they are trained already")
    )
    for name in ("david:trained", "mtt"):
        run(name, train, work=tmp_path / name)
    for name in ("vdsd", "dm:2"):
        run(name, train, settings=trained, work=tmp_path / name)
    assert len(list(tmp_path.rglob("expert-*.safetensors"))) == len(list(tmp_path.glob("expert-*.safetensors"))) == 2


def test_full_data_keeps_every_clip(train):
    assert run("full", train).clips_per_class.tolist() == [5, 4, 3]
    assert full(train).train is train


def test_random_cannot_store_more_videos_than_there_are_clips(train):
    assert run("random", train, ipc=3).ipc == 3
    with pytest.raises(ValueError, match=r"ipc=4 .* class class 2 has training clips \(3\); use at most ipc=3"):
        run("random", train, ipc=4)


def test_david_searches_with_the_rule_of_its_name(train):
    own = TINY.replace(search_warmup=1, search_readout="mean")
    plain, warm, custom = (run("david", train), run("david:warmup", train), run("david:custom", train, settings=own))
    for distilled, warmup, readout in [(plain, 0, "q"), (warm, 2, "mean"), (custom, 1, "mean")]:
        search, settings = distilled.info["search"], distilled.info["settings"]
        assert (settings["search_warmup"], settings["search_readout"]) == (warmup, readout)
        assert len(search["episodes"]) == 5
        assert search["actions"] == [1, 2, 4, 8] and set(distilled.policy.tolist()) <= {1, 2, 4, 8}
    tried = [episode["frames_per_segment"] for episode in warm.info["search"]["episodes"]]
    assert tried == [[length] * 3 for length in (1, 2, 4, 8, 1)]
    assert plain.info["seed"] == 0 and plain.info["ipc"] == 1
    assert method("david:paper") == method("david")
    with pytest.raises(ValueError, match=r"search_warmup=1 .* a rule of their own.* 'david:custom'"):
        run("david", train, settings=own)


@pytest.mark.parametrize("changes", [{"search_agent": "random"}, {"search_beta": 0.0, "distill_start": "noise"}])
def test_david_refuses_a_wrong_search_before_it_trains_a_teacher(train, monkeypatch, changes):
    monkeypatch.setattr("david.runs.distil.load_teacher", lambda *_, **__: pytest.fail("this takes hours"))
    with pytest.raises(ValueError, match="search_"):
        method("david").distill(train, ipc=1, seed=0, settings=TINY.replace(**changes))


def test_the_rivals_of_the_search_spend_their_iterations_otherwise(train):
    """N = 6 and beta = 1/3, so N_early = 2; T = 5 episodes."""
    settings = TINY.replace(distill_iterations=6, search_beta=1 / 3)
    spent = {}
    for rule in ("warmup", "grid", "full", "paper-full", "once", "start", "halving", "shared"):
        distilled = run(f"david:{rule}", train, settings=settings)
        spent[rule] = [episode["iterations"] for episode in distilled.info["search"]["episodes"]]
        assert (len(set(distilled.policy.tolist())) == 1) or rule != "shared"
    assert spent["warmup"] == spent["shared"] == [2] * 5
    assert spent["grid"] == [6] * 4 and spent["full"] == spent["paper-full"] == [6] * 5
    assert spent["once"] == [2] * 4 and spent["start"] == [0] * 5
    assert spent["halving"] == [1] * 4 + [2] * 2  # 10 iterations: 5 for four actions, 5 for two


def test_undistilled_keeps_the_policy_and_stores_real_frames(train):
    distilled, control = run("david", train), run("david:undistilled", train)
    assert torch.equal(distilled.policy, control.policy)
    start = start_videos(train, control.policy, ipc=1, seed=0, kind="real")
    assert torch.equal(control.videos, start) and not torch.equal(distilled.videos, start)


def test_a_given_policy_is_used_and_any_policy_depends_on_the_seed(train):
    assert run("dm:1,8,2", train).policy.tolist() == run("random:1,8,2", train).policy.tolist() == [1, 8, 2]
    drawn = {tuple(run("random:any", train, seed=seed).policy.tolist()) for seed in range(8)}
    assert len(drawn) > 3 and {length for policy in drawn for length in policy} == {1, 2, 4, 8}
    with pytest.raises(ValueError, match="a policy of 2 lengths does not fit 3 classes"):
        run("dm:1,8", train)


def test_published_dm_steps_by_its_authors_rate(train):
    """One step of SGD with rate 30 from the real start, whatever the settings say."""
    plain = {"distill_range": "free", "distill_lr_unit": "absolute", "distill_average": 0.0}
    sgd = TINY.replace(distill_optimizer="sgd", distill_lr=30.0, distill_momentum=0.5, **plain)
    moved = run("dm", train, settings=sgd).videos
    for other in (
        TINY.replace(distill_start="noise", distill_networks="experts"),
        TINY.replace(**plain, distill_optimizer="adam", distill_lr=0.5),
    ):
        assert torch.equal(run("dm:published", train, settings=other).videos, moved)


def test_david_keeps_its_journal_and_checkpoint_in_work_and_its_teacher_beside_it(train, tmp_path):
    run("david", train, work=tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["search.json"]
    assert len(list(tmp_path.glob("teacher-*.safetensors"))) == 1


def test_names_titles_and_rows_of_the_paper():
    found = {name: (method(name).title, method(name).paper) for name in ALL}
    assert found["full"] == ("Full data", "Full DS")
    assert found["random"] == ("Random", "Random") and found["random:2"] == ("Random (L = 2)", None)
    assert found["dm"] == ("DM", "DM") and found["dm:2"] == ("DM (L = 2)", None)
    assert found["david"] == ("DAViD", "DAViD") and found["david:warmup"][0] == "DAViD (warm-up rule)"
    assert found["vdsd"] == ("VDSD on DM", "VDSD") and found["vdsd:mtt"] == ("VDSD on MTT", "VDSD")
    assert all(method(name).name == name for name in ALL)
    assert len({title for title, _ in found.values()}) == len(ALL)


@pytest.mark.parametrize("base", ["dm", "random", "mean"])
@pytest.mark.parametrize(
    ("option", "frames", "name"),
    [
        ("8", 8, ""), ("08", 8, ""), ("8,8,8", 8, ""), ("008,8,08", 8, ""), ("16", 16, ""),
        ("8", 16, ":8"), ("8", None, ":8"), ("04", 8, ":4"), ("4,4,4", 8, ":4"), ("4,04", None, ":4"),
        ("8,4,8", 8, ":8,4,8"), ("08,4,8", 8, ":8,4,8"), ("any", 8, ":any"),
    ],
)  # fmt: skip
def test_equal_methods_have_one_name(base, option, frames, name):
    found = method(f"{base}:{option}", frames)
    assert found.name == base + name and found.title == method(base + name).title


def test_stages_name_the_settings_that_matter():
    assert method("random:2").stages == ("student",)
    assert method("herding").stages == ("teacher", "student")
    assert method("dm").stages == ("distill", "student")
    assert method("mtt").stages == ("expert", "mtt", "student")
    assert set(method("vdsd").stages) == {"vdsd", "distill", "student"}
    assert set(method("vdsd:mtt").stages) == {"vdsd", "expert", "mtt", "student"}
    assert set(method("david").stages) == {"distill", "search", "teacher", "student"}
    assert method("full").stages == ("teacher",)
    experts = TINY.replace(distill_networks="experts")
    for name in ("dm", "david", "vdsd"):
        assert method(name).stages_of(TINY) == method(name).stages
        assert method(name).stages_of(experts) == (*method(name).stages, "expert")
    for name in ("dm:trained", "david:trained", "mtt"):
        assert method(name).stages_of(TINY) == method(name).stages_of(experts) and "expert" in method(name).stages
    for name in ("random", "mean", "dm:published"):
        assert method(name).stages_of(experts) == method(name).stages


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dvid", "unknown method 'dvid'; did you mean 'david'?"),
        ("", "unknown method ''; known are full, still, random, mean, keyframe"),
        ("full:3", "unknown method 'full:3'"),
        ("mtt:dm", "unknown method 'mtt:dm'; mtt takes no option 'dm'"),
        ("vdsd:frepo", "unknown method 'vdsd:frepo'"),
        ("dm:", "method 'dm:': the option of dm is a segment length L"),
        ("dm:0", "method 'dm:0': the option of dm is a segment length L, as in 'dm:4'"),
        ("dm:x", "method 'dm:x': the option of dm is a segment length L"),
        ("random:published", "the option of random is a segment length L, as in 'random:4'"),
        ("random:-2", "method 'random:-2': the option of random is a segment length L, as in 'random:4'"),
        (
            "david:foo",
            "method 'david:foo': the option of david is a search rule or a control, one of undistilled, ",
        ),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(ValueError) as caught:
        method(name)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["dm:3", "random:3", "dm:16"])
@pytest.mark.parametrize("start", ["noise", "real"])
def test_a_length_that_does_not_divide_the_clip(train, name, start):
    with pytest.raises(ValueError, match=r"frames_per_segment=\d+ does not divide the 8 frames of a clip; choose one"):
        run(name, train, settings=TINY.replace(distill_start=start))
