"""Layers that several families share."""

from __future__ import annotations

from torch import nn


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Sequential:
    """Size-keeping Conv2d and its BatchNorm: what every exporter folds."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Size-keeping Conv2d, BatchNorm, ReLU."""
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride=stride), nn.ReLU())


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    """Global average pool and one Linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
