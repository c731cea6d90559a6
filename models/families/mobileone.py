"""MobileOne-like: several branches of one kernel size, a 1x1 branch and a BN skip."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn
from models.merging import taps, total


class MobileOneBlock(nn.Module):
    """ReLU of ``count`` k x k branches, a 1x1 branch (for k > 1) and, where shapes allow, a BN skip."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, count: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv_bn(inputs, outputs, kernel, stride=stride, groups=groups) for _ in range(count)
        )
        self.scale = conv_bn(inputs, outputs, 1, stride=stride, groups=groups) if kernel > 1 else None
        self.skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.activation = nn.ReLU()

    def branches(self) -> list[nn.Module]:
        return [*self.convs, *(branch for branch in (self.scale, self.skip) if branch is not None)]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(sum(branch(x) for branch in self.branches()))
        return y

    def merge(self) -> nn.Module:
        first: Any = self.convs[0]
        merged = total(taps(branch, like=first[0]) for branch in self.branches())
        return nn.Sequential(merged.module(), self.activation)


class MobileOne(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            MobileOneBlock(3, 16, 3, stride=2),
            MobileOneBlock(16, 16, 3, groups=16),
            MobileOneBlock(16, 24, 1),
            MobileOneBlock(24, 24, 3, groups=24, stride=2),
            MobileOneBlock(24, 24, 1, count=2),
            classifier(24),
        )
