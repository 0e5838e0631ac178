"""What a GPU would be asked to do, on a device without values: "meta".

There a tensor that was left on the host cannot meet one of the device, and no value can be read: a loop that runs
has all of its tensors in one place. What is sent there while it runs goes without waiting for the device.
"""

from weakref import WeakKeyDictionary

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy import noise_clips

from david import fast_embed
from david.c3d import C3D
from david.matching import Distiller
from david.runs.settings import preset
from david.sets import DistilledSet, RealSet
from david.support import seeds
from david.training import train_on

TINY = preset("smoke", width=0.125, distill_batch_real=2, student_steps=3, teacher_steps=3)


class NoWaiting(TorchDispatchMode):
    """Within it every copy to "meta" has to be one that the host does not wait for."""

    sent = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        given = {own.device.type for own in tree_leaves((args, kwargs)) if torch.is_tensor(own) and own.dim()}
        if "cpu" in given and "meta" in {own.device.type for own in tree_leaves(found) if torch.is_tensor(own)}:
            assert (kwargs or {}).get("non_blocking"), f"{function} takes tensors of the host"
            self.sent += 1
        return found


@pytest.fixture
def train(monkeypatch):
    """Clips whose pixels are nowhere; and "meta" has no generators, so the host's stand in and know for which."""
    draw, meant = seeds.generator, WeakKeyDictionary()

    def generator(seed, *names, device="cpu"):
        found = draw(seed, *names)
        meant[found] = torch.device(device).type
        return found

    def uniform_(tensor, low, high, generator=None):
        assert generator is None or meant[generator] == tensor.device.type
        return tensor

    for module in ("matching", "training"):
        monkeypatch.setattr(f"david.{module}.generator", generator)
    monkeypatch.setattr(torch.Tensor, "uniform_", uniform_)
    return noise_clips(flip=True).to("meta")


def test_a_value_cannot_be_read_there():
    """Or the tests below could not fail."""
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, torch.Tensor.cpu, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.ones(1, device="meta"))
    with pytest.raises(RuntimeError):
        torch.nn.Linear(2, 2)(torch.ones(1, 2, device="meta"))


@pytest.mark.parametrize(("optimizer", "unit"), [("sgd", "curvature"), ("sgd", "absolute"), ("adam", "absolute")])
@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_distribution_matching_stays_on_its_device(train, precision, start, optimizer, unit, monkeypatch):
    monkeypatch.setattr(fast_embed, "multiplies_bfloat16", lambda device: True)
    settings = TINY.replace(distill_precision=precision, distill_start=start)
    settings = settings.replace(distill_optimizer=optimizer, distill_lr_unit=unit, distill_average=4.0)
    distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=2, seed=0, settings=settings.distill)
    distiller.step()
    with NoWaiting() as mode:
        distiller.step()
    assert mode.sent >= 2  # which clips, and which of them are mirrored
    assert distiller.videos.device.type == "meta" and distiller.iteration == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stored", ["real clips", "meta", "cpu"])
def test_students_train_on_their_device(train, stored, optimizer, monkeypatch):
    """Wherever their set is stored."""
    monkeypatch.setattr(torch, "isfinite", lambda loss: True)  # asked once, after the last step
    source, policy = RealSet(train), torch.tensor([8, 2, 1])
    if stored != "real clips":
        source = DistilledSet(torch.zeros(3, 2, 8, 3, 48, 48, device=stored), policy, train.classes)
    settings = TINY.replace(student_optimizer=optimizer, student_lr=0.01)
    with monkeypatch.context() as patched:
        patched.setattr("david.training.train_network", lambda net, draw, **recipe: draw)
        draw = train_on(source, seed=0, settings=settings.student, device=train.device)
    draw(torch.Generator())  # the first batch fetches what later ones have
    with NoWaiting() as mode:
        assert {own.device.type for own in draw(torch.Generator())} == {"meta"}
    assert mode.sent >= 2
    net = train_on(source, seed=0, settings=settings.student, device=train.device)
    assert isinstance(net, C3D) and {own.device.type for own in net.parameters()} == {"meta"}
