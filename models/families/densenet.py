"""DenseNet-like: every layer reads the concat of all before it through a BN of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn_relu


class DenseLayer(nn.Module):
    """``BN → ReLU → Conv 1x1 → BN → ReLU → Conv 3x3``, concatenated to its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class DenseNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``: two dense blocks with a transition between them."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__(
            conv_bn_relu(3, 16, stride=2),
            *(DenseLayer(16 + growth * i, growth) for i in range(3)),
            nn.BatchNorm2d(40),
            nn.ReLU(),
            nn.Conv2d(40, 20, 1, bias=False),
            nn.AvgPool2d(2),
            *(DenseLayer(20 + growth * i, growth) for i in range(2)),
            nn.BatchNorm2d(36),
            nn.ReLU(),
            classifier(36),
        )
