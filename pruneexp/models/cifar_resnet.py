"""Residual networks for CIFAR: He, Zhang, Ren, Sun 2016, "Deep Residual Learning" (arXiv:1512.03385), section 4.2.

A 3x3 convolution, three stages of n blocks with 16, 32, 64 channels, mean over the map, a linear classifier: 6n + 2
layers with weights. The first block of stages two and three has stride 2; its shortcut (option A) takes every second
pixel and pads the new channels with zeros, half of them on either side, so it has no parameters.

Where we differ: the published checkpoints come from ResNets whose images were normalised with ImageNet's mean and
standard deviation, not with a per-pixel mean; images of any side from 8 to 64 pixels, with any number of channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model

STAGES = ((16, 1), (32, 2), (64, 2))  # channels, stride of the first block


class CifarResNet(Model):
    """A CIFAR ResNet of a given depth, randomly initialised."""

    kind = "image"

    def __init__(self, *, depth: int, checkpoint: str | None) -> None:
        """depth: layers with weights, 6n + 2 with n >= 1: 20, 32, 44, 56, 110.

        Raises:
            ValueError: no such depth.
        """
        super().__init__(checkpoint=checkpoint)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"model.depth={depth}: a CIFAR ResNet has 6n + 2 layers; choose 20, 32, 44, 56 or 110")
        self.depth = depth

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network; there is no pretrained one to download."""
        return ResNet(blocks=(self.depth - 2) // 6, channels=info.channels, num_outputs=info.num_outputs)


class ZeroPadShortcut(nn.Module):
    """The option-A shortcut: (batch, C, height, width) -> (batch, C', height/2, width/2), rounded up.

    `source`: what `sources` returns, once surgery has changed it through `remove_inputs` and `remove_outputs`; None for
    the paper's placing. An attribute rather than a buffer, so that state dicts keep the published keys. An output
    channel that loses its input becomes zeros; an output that still has one can only be removed together with it.
    """

    source: list[int] | None

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.source = None

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut's output for a map x."""
        x = x[:, :, ::2, ::2]
        if self.source is None:
            left = (self.out_channels - self.in_channels) // 2
            return F.pad(x, (0, 0, 0, 0, left, self.out_channels - self.in_channels - left))
        return F.pad(x, (0, 0, 0, 0, 0, 1))[:, self.source]  # one channel of zeros, which index -1 names

    def remove_inputs(self, channels: list[int]) -> None:
        """Drops input channels; the output channels that copied them become zeros."""
        kept = [c for c in range(self.in_channels) if c not in set(channels)]
        new = {old: position for position, old in enumerate(kept)}
        self.source = [new.get(old, -1) for old in self.sources()]
        self.in_channels = len(kept)

    def remove_outputs(self, channels: list[int]) -> None:
        """Drops output channels."""
        self.source = [old for position, old in enumerate(self.sources()) if position not in set(channels)]
        self.out_channels = len(self.source)

    def sources(self) -> list[int]:
        """For every output channel the input channel it copies, or -1 for zeros."""
        if self.source is not None:
            return self.source
        left = (self.out_channels - self.in_channels) // 2
        return [c - left if 0 <= c - left < self.in_channels else -1 for c in range(self.out_channels)]


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else ZeroPadShortcut(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for a map x."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (batch, channels, height, width) -> logits (batch, num_outputs)."""

    def __init__(self, *, blocks: int, channels: int, num_outputs: int) -> None:
        """blocks: n, the blocks in a stage. channels: of the images."""
        super().__init__()
        width = STAGES[0][0]
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        for stage_width, stride in STAGES:
            first = Block(width, stage_width, stride)
            stages.append(nn.Sequential(first, *(Block(stage_width, stage_width, 1) for _ in range(blocks - 1))))
            width = stage_width
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(width, num_outputs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):  # "the weight initialization in [13]": arXiv:1502.01852
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for images x."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
