"""RepVGG-like: ``Relu → {Conv 3x3, Conv 1x1, BN} → Add → Add → Relu``, plain, strided and grouped."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn
from models.merging import taps, total


class RepVggBlock(nn.Module):
    """ReLU of a 3x3 branch, a 1x1 branch and, where shapes allow, an identity branch, each with its BN."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.large = conv_bn(inputs, outputs, 3, stride=stride, groups=groups)
        self.small = conv_bn(inputs, outputs, 1, stride=stride, groups=groups)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.large(x) + self.small(x)
        if self.identity is not None:
            y = y + self.identity(x)
        activated: Tensor = self.activation(y)
        return activated

    def merge(self) -> nn.Module:
        branches = [self.large, self.small] + ([] if self.identity is None else [self.identity])
        merged = total(taps(branch, like=self.large[0]) for branch in branches)
        return nn.Sequential(merged.module(), self.activation)


class RepVgg(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            RepVggBlock(3, 16, stride=2),
            RepVggBlock(16, 16),
            RepVggBlock(16, 24, stride=2),
            RepVggBlock(24, 24, groups=2),
            RepVggBlock(24, 24),
            classifier(24),
        )
