"""Squeeze-and-excite gates with BN before, inside and behind: ``x · gate(x) → BN``."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn, conv_bn_relu


class Gate(nn.Module):
    """``x · sigmoid(W2 relu(BN(W1 mean(x))))``."""

    def __init__(self, channels: int, *, hard: bool) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.BatchNorm2d(channels // 4),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid() if hard else nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gate(x)
        return y


class SeNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn_relu(3, 16, stride=2),
            conv_bn(16, 16, 3, groups=16),
            Gate(16, hard=False),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 24, 1),
            nn.Hardswish(),
            nn.BatchNorm2d(24),
            Gate(24, hard=True),
            nn.Conv2d(24, 24, 1),
            nn.ReLU(),
            classifier(24),
        )
