"""What earlier code does, written anew from its description, to set ours beside it.

Real clips are float32 on the host, stacked one by one and copied at every use; networks have PyTorch's default layout
and ReLU before the pool; all is computed in float32; losses and hits are read at every step.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from david.c3d import C3D
from david.data.clips import Clips
from david.runs.settings import Settings
from david.sets import DistilledSet
from david.support.pixels import normalise


def on_host(train: Clips) -> list[torch.Tensor]:
    """Every clip, float32 (3, F, H, W)."""
    return list(normalise(train.videos[torch.as_tensor(train.rows)].cpu()).transpose(1, 2).contiguous())


def trunk(width: float) -> list[nn.Module]:
    """The layers of C3D before its head."""
    channels = [3, *(max(1, round(width * c)) for c in (64, 128, 128))]
    layers = []
    for inputs, outputs, pool in zip(channels, channels[1:], ((1, 2, 2), (2, 2, 2), (2, 2, 2))):
        conv = nn.Conv3d(inputs, outputs, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3))
        layers += [conv, nn.ReLU(inplace=True), nn.MaxPool3d(pool)]
    return layers


class PlainNet(C3D):
    """C3D of clips (B, 3, F, H, W)."""

    def __init__(self, num_classes: int, settings: Settings):
        super().__init__(num_classes, settings.frames, settings.size, settings.width)
        self.trunk = nn.Sequential(*trunk(settings.width))

    def _features(self, clips):
        return self.trunk(clips)


class DistributionMatching:
    """DM as earlier code runs it: a new network in every iteration, one graph of all classes."""

    def __init__(self, train: Clips, settings: Settings):
        self.settings, self.device, clips = settings, train.device, on_host(train)
        self.real = [[clips[i] for i in own] for own in train.by_class()]
        shape = (len(self.real), 3, settings.frames, settings.size, settings.size)
        self.videos = torch.randn(shape, device=self.device, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.videos], settings.distill_lr, momentum=settings.distill_momentum)

    def step(self) -> None:
        net = nn.Sequential(*trunk(self.settings.width), nn.Flatten()).to(self.device).requires_grad_(False)
        loss = torch.zeros((), device=self.device)
        for c, real in enumerate(self.real):
            chosen = torch.randperm(len(real))[: self.settings.distill_batch_real]
            batch = torch.stack([real[i] for i in chosen]).to(self.device)
            loss = loss + (net(batch).mean(0) - net(self.videos[c : c + 1]).mean(0)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()


def sampling(train: Clips, positions: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A batch of these clips, each mirrored or not."""
    real = on_host(train)

    def run() -> torch.Tensor:
        chosen = [real[i].flip(-1) if torch.rand(()) < 0.5 else real[i] for i in positions]
        return torch.stack(chosen).to(train.device)

    return run


def training(stored: DistilledSet, settings: Settings) -> Callable[[], None]:
    """A student on the clips of a set, all of which are cut and laid out beforehand."""
    labels, picks = stored.numbers()
    clips = [clip.transpose(0, 1).contiguous() for clip in stored.clips(labels, picks).cpu()]

    def run() -> None:
        net = PlainNet(len(stored.classes), settings).to(stored.device).train()
        update = torch.optim.SGD(net.parameters(), settings.student_lr, momentum=0.9, weight_decay=5e-4)
        for _ in range(settings.student_steps):
            chosen = torch.randint(len(clips), (settings.student_batch,))
            batch = torch.stack([clips[i] for i in chosen]).to(stored.device)
            loss = cross_entropy(net(batch), labels[chosen].to(stored.device))
            update.zero_grad()
            loss.backward()
            update.step()
            loss.item()

    return run


def evaluation(test: Clips, settings: Settings, batch: int = 128) -> Callable[[], float]:
    """The accuracy of a network that knows nothing."""
    clips, labels = on_host(test), torch.as_tensor(test.labels)
    net = PlainNet(len(test.classes), settings).to(test.device).eval()

    @torch.no_grad()
    def run() -> float:
        hits = 0
        for part in torch.arange(len(clips)).split(batch):
            logits = net(torch.stack([clips[i] for i in part]).to(test.device))
            hits += (logits.argmax(1) == labels[part].to(test.device)).sum().item()
        return hits / len(clips)

    return run
