"""GroupNorm ResNet with weight standardisation, which exporters leave as training-mode BN over constants."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.families.blocks import classifier


class StandardisedConv2d(nn.Conv2d):
    """Conv whose weight is normalised per output channel each time it is used."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Block(nn.Module):
    """Pre-activation bottleneck: ``GN → ReLU → Conv`` three times."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        middle = outputs // 2
        self.norm = nn.Sequential(nn.GroupNorm(4, inputs), nn.ReLU())
        self.body = nn.Sequential(
            StandardisedConv2d(inputs, middle, 1, bias=False),
            nn.GroupNorm(4, middle),
            nn.ReLU(),
            StandardisedConv2d(middle, middle, 3, stride, 1, bias=False),
            nn.GroupNorm(4, middle),
            nn.ReLU(),
            StandardisedConv2d(middle, outputs, 1, bias=False),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else StandardisedConv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        shortcut = x if self.shortcut is None else self.shortcut(y)
        total: Tensor = self.body(y) + shortcut
        return total


class StandardisedResNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            StandardisedConv2d(3, 16, 7, 2, 3, bias=False),
            nn.MaxPool2d(3, 2, 1),
            Block(16, 32),
            Block(32, 32),
            Block(32, 48, 2),
            nn.GroupNorm(4, 48),
            nn.ReLU(),
            classifier(48),
        )
