"""Diverse branch block: beside the conv a serial ``1x1 → BN → padded 3x3`` and ``1x1 → average pool → BN``.

The serial pairs read zero padding behind a BN, so only what is exact there may merge.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn


class DiverseBranchBlock(nn.Module):
    """ReLU of four branches: 3x3, 1x1, 1x1 then padded 3x3, 1x1 then average pool; BN after each conv."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.square = conv_bn(inputs, outputs, 3)
        self.point = conv_bn(inputs, outputs, 1)
        self.serial = nn.Sequential(conv_bn(inputs, inputs, 1), conv_bn(inputs, outputs, 3))
        self.pooled = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.AvgPool2d(3, 1, 1, count_include_pad=True),
            nn.BatchNorm2d(outputs),
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.square(x) + self.point(x) + self.serial(x) + self.pooled(x))
        return y


class DiverseBranchNet(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(DiverseBranchBlock(3, 8), DiverseBranchBlock(8, 12), classifier(12))
