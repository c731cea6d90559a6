"""Channel shuffle in front of BN: ``grouped Conv → Reshape → Transpose → Reshape → BN``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn, conv_bn_relu


class ChannelShuffle(nn.Module):
    """Interleaves the groups of the channel axis."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = x.view(batch, self.groups, channels // self.groups, height, width)
        return split.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, BN, ReLU, depthwise 3x3, grouped 1x1; added or, strided, concatenated."""

    def __init__(self, channels: int, groups: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 1, groups=groups, bias=False),
            ChannelShuffle(groups),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv_bn(channels, channels, 3, stride=stride, groups=channels),
            conv_bn(channels, channels, 1, groups=groups),
        )
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        joined: Tensor = x + y if self.pool is None else torch.cat([self.pool(x), y], 1)
        result: Tensor = self.activation(joined)
        return result


class ShuffleNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``; shuffles before and after its last BN."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn_relu(3, 12, stride=2),
            ShuffleUnit(12, 3, 1),
            ShuffleUnit(12, 3, 2),
            ChannelShuffle(2),
            nn.BatchNorm2d(24),
            nn.Conv2d(24, 24, 1, groups=2),
            nn.ReLU(),
            classifier(24),
        )
