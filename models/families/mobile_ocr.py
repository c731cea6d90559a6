"""Mobile OCR-like: scalar scale and bias after each conv and each ``x · clip(x + 3, 0, 6) / 6``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import conv_bn


class ScalarAffine(nn.Module):
    """``scale · x + bias`` with one learnable number each."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(0.5 + torch.rand(1))
        self.bias = nn.Parameter(0.3 * torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class HandHardswish(nn.Module):
    """Hard swish spelled out, as frameworks without the operator export it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.clip(x + 3.0, 0.0, 6.0) / 6.0


def layer(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Conv with BN, scalar affine, hard swish, scalar affine."""
    return nn.Sequential(
        conv_bn(inputs, outputs, kernel, stride=stride, groups=groups),
        ScalarAffine(),
        HandHardswish(),
        ScalarAffine(),
    )


class MobileOcr(nn.Module):
    """Text lines ``[N, 3, 16, W]`` to character scores ``[N, W/4, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv_bn(3, 8, 3, stride=2),
            layer(8, 8, 3, groups=8),
            layer(8, 16, 1),
            layer(16, 16, 5, stride=2, groups=16),
            layer(16, 24, 1),
        )
        self.pool = nn.AvgPool2d((4, 1))
        self.head = nn.Linear(24, 12)

    def forward(self, lines: Tensor) -> Tensor:
        x = self.pool(self.backbone(lines)).squeeze(2).transpose(1, 2)
        scores: Tensor = self.head(x).softmax(2)
        return scores
