"""One trainer for students and teachers: fixed by its seed, by nothing else."""

import pytest
import torch
from toy import noise_clips

from david.c3d import C3D
from david.runs.settings import preset
from david.sets import DistilledSet, RealSet
from david.training import LOOK, Settings, check_loss, embed_clips, load_teacher, train_network, train_on

TINY = preset("smoke", width=0.125, teacher_steps=2, teacher_batch=4, student_steps=2, student_batch=4)
RECIPE = {"steps": 2, "lr": 0.01, "optimizer": "sgd"}


@pytest.fixture(scope="module")
def train():
    return noise_clips()


@pytest.fixture(scope="module")
def net():
    return C3D(2, 8, 48, 0.125)


def draw(random):
    """Two clips of noise a class."""
    return torch.randn(4, 8, 3, 48, 48, generator=random), torch.tensor([0, 1, 0, 1])


def weights(net):
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_same_seed_same_weights_whatever_came_before(net, optimizer):
    found = []
    for before, seed in [(1, 0), (2, 0), (2, 1)]:
        torch.manual_seed(before)
        found.append(weights(train_network(net, draw, **RECIPE | {"optimizer": optimizer}, seed=seed)))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_the_global_generator_is_given_back_untouched(net):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    train_network(net, draw, **RECIPE, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_is_on_while_training_and_off_after(net):
    modes = []
    net.dropout.register_forward_hook(lambda layer, *_: modes.append(layer.training))
    assert not train_network(net, draw, **RECIPE, seed=0).training
    assert modes == [True, True]


@pytest.mark.parametrize(("steps", "rates"), [(1, [1.0]), (4, [1, 1, 0.1, 0.1]), (5, [1, 1, 0.1, 0.1, 0.1])])
def test_sgd_is_the_recipe_of_vdsd(net, monkeypatch, steps, rates):
    groups = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: groups.append(dict(self.param_groups[0])) or step(self))
    train_network(net, draw, **RECIPE | {"steps": steps}, seed=0)
    assert [group["lr"] for group in groups] == pytest.approx([0.01 * rate for rate in rates])
    assert {(group["momentum"], group["weight_decay"]) for group in groups} == {(0.9, 5e-4)}


def test_adam_follows_one_cycle(net, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or step(self))
    train_network(net, draw, steps=8, lr=0.01, optimizer="adam", seed=0)
    peak = max(range(8), key=rates.__getitem__)
    assert 0 < peak < 7 and rates[peak] == pytest.approx(0.01, rel=0.1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("bad", [1, 2, 5])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_infinite_loss_is_an_error_at_its_step(net, bad, value, optimizer):
    drawn = []

    def broken(random):
        clips, labels = draw(random)
        drawn.append(len(drawn) + 1)
        return clips * (value if drawn[-1] == bad else 1), labels

    message = rf"teacher of 9 steps: the loss is nan at step {bad}; lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train_network(net, broken, **RECIPE | {"steps": 9, "optimizer": optimizer}, seed=0, desc="teacher")
    assert len(drawn) == bad


def test_a_gpu_is_waited_for_at_some_steps_alone():
    """The device "meta" is no CPU and has no values, so that a look at one is an error of torch."""
    loss = torch.empty((), device="meta")
    for step in (1, LOOK - 1, LOOK + 1):
        check_loss(loss, step, "student")
    for step, last in ((LOOK, False), (3 * LOOK, False), (LOOK + 1, True)):
        with pytest.raises(RuntimeError):
            check_loss(loss, step, "student", last=last)


def test_unknown_optimizer(net):
    with pytest.raises(ValueError, match="unknown optimizer 'lion'; choose 'sgd' or 'adam'"):
        train_network(net, draw, steps=1, lr=0.1, optimizer="lion", seed=0)


def test_embeds_every_clip_in_order(train):
    net = C3D(3, 8, 48, 0.125).eval()
    expected = torch.cat([net.embed(train.batch([i])) for i in range(len(train))]).detach()
    torch.testing.assert_close(embed_clips(net, train, batch=3), expected)


def test_a_stage_has_its_own_recipe(monkeypatch):
    asked = []
    monkeypatch.setattr("david.training.train_network", lambda net, draw, **recipe: asked.append((net, draw, recipe)))
    settings = TINY.replace(teacher_steps=7, teacher_lr=0.5, teacher_optimizer="sgd", student_batch=3)
    train = noise_clips(frames=16)
    for stage in ("teacher", "student"):
        train_on(RealSet(train), seed=9, settings=getattr(settings, stage), desc=stage)
    (net, teacher_draw, teacher), (_, student_draw, student) = asked
    assert teacher == {"steps": 7, "lr": 0.5, "optimizer": "sgd", "seed": 9, "desc": "teacher"}
    assert student == {"steps": 2, "lr": TINY.student_lr, "optimizer": "adam", "seed": 9, "desc": "student"}
    random = torch.Generator().manual_seed(0)
    assert [len(draw(random)[1]) for draw in (teacher_draw, student_draw)] == [4, 3]
    assert net.embed_dim == C3D(3, 16, 48, 0.125).embed_dim and net.classifier.out_features == 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_students_take_the_learning_rate_that_was_learned_with_the_set(monkeypatch, optimizer):
    rates = []
    monkeypatch.setattr("david.training.train_network", lambda net, draw, *, lr, **recipe: rates.append(lr))
    settings = Settings(lr=0.3, optimizer=optimizer)
    for info in ({"student_lr": 0.02}, {}):
        source = DistilledSet(torch.zeros(2, 1, 8, 3, 48, 48), torch.tensor([8, 8]), ["a", "b"], info)
        train_on(source, seed=0, settings=settings)
    assert rates == [0.02 if optimizer == "sgd" else 0.3, 0.3]


def test_the_teacher_is_trained_once_and_read_back(train, monkeypatch, tmp_path):
    first = load_teacher(train, seed=TINY.teacher_seed, settings=TINY.teacher, folder=tmp_path)
    assert torch.equal(weights(first), weights(load_teacher(train, seed=TINY.teacher_seed, settings=TINY.teacher)))
    (path,) = tmp_path.glob("*.safetensors")
    assert path.name.startswith("teacher-")

    trained = []
    monkeypatch.setattr("david.training.train_on", lambda *args, **kwargs: trained.append(kwargs) or first)
    again = load_teacher(train, seed=0, settings=TINY.teacher, folder=tmp_path)
    assert not trained and not again.training and torch.equal(weights(again), weights(first))
    torch.testing.assert_close(embed_clips(again, train), embed_clips(first, train), rtol=0, atol=0)
    for seed, changes in ((1, {}), (0, {"teacher_lr": 0.5}), (0, {"width": 0.25})):
        load_teacher(train, seed=seed, settings=TINY.replace(**changes).teacher, folder=tmp_path)
    load_teacher(noise_clips(seed=1).subset(range(6)), seed=0, settings=TINY.teacher, folder=tmp_path)
    assert [kwargs["seed"] for kwargs in trained] == [1, 0, 0, 0]
    assert len(list(tmp_path.glob("*.safetensors"))) == 5


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_student_learns_a_separable_set(optimizer):
    videos = torch.randn(2, 1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(0)) / 4
    videos += torch.tensor([1.5, -1.5]).view(2, 1, 1, 1, 1, 1)  # bright and dark
    distilled = DistilledSet(videos, torch.tensor([8, 2]), ["bright", "dark"])
    settings = TINY.replace(student_optimizer=optimizer, student_lr=0.01, student_steps=30, student_batch=6)
    student = train_on(distilled, seed=0, settings=settings.student)
    clips, labels = distilled.batch(torch.Generator().manual_seed(1), 10)
    logits = student(clips)
    assert (logits.argmax(1) == labels).all()
    assert torch.nn.functional.cross_entropy(logits, labels) < 0.35  # a half of ln 2, chance
