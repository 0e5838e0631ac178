"""What a GPU would be asked to do, on a device without values: "meta".

There a tensor that was left on the host cannot meet one of the device, and no value can be read: a loop that runs
has all of its tensors in one place, and never waits for the device.
"""

import pytest
import torch
from toy import noise_clips

from david import fast_embed, seeds
from david.c3d import C3D
from david.distilled import DistilledSet, RealSet
from david.matching import Distiller
from david.presets import preset
from david.training import train_on

TINY = preset("smoke", width=0.125, distill_batch_real=2, student_steps=3, teacher_steps=3)


@pytest.fixture
def train(monkeypatch):
    """Clips whose pixels are nowhere; and "meta" has no generators, so the host's stand in."""
    draw = seeds.generator
    for module in ("matching", "start", "training"):
        monkeypatch.setattr(f"david.{module}.generator", lambda seed, *names, device="cpu": draw(seed, *names))
    return noise_clips().to("meta")


def test_a_value_cannot_be_read_there():
    """Or the tests below could not fail."""
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, torch.Tensor.cpu, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.ones(1, device="meta"))
    with pytest.raises(RuntimeError):
        torch.nn.Linear(2, 2)(torch.ones(1, 2, device="meta"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("precision", ["float32", "float32-fourier", "bfloat16"])
def test_distribution_matching_stays_on_its_device(train, precision, start, optimizer, monkeypatch):
    monkeypatch.setattr(fast_embed, "multiplies_bfloat16", lambda device: True)
    settings = TINY.replace(distill_precision=precision, distill_start=start, distill_optimizer=optimizer)
    distiller = Distiller(train, torch.tensor([8, 2, 1]), ipc=2, seed=0, settings=settings)
    for _ in range(2):
        distiller.step()
    assert distiller.videos.device.type == "meta" and distiller.iteration == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stored", [False, True])
def test_students_train_on_their_device(train, stored, optimizer, monkeypatch):
    monkeypatch.setattr(torch, "isfinite", lambda loss: True)  # asked once, after the last step
    source, policy = RealSet(train), torch.tensor([8, 2, 1])
    if stored:
        source = DistilledSet(torch.zeros(3, 2, 8, 3, 48, 48, device="meta"), policy, train.classes)
    settings = TINY.replace(student_optimizer=optimizer, student_lr=0.01)
    net = train_on(source, stage="student", seed=0, settings=settings)
    assert isinstance(net, C3D) and {own.device.type for own in net.parameters()} == {"meta"}
