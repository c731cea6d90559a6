"""ACNet: a square kernel and its horizontal and vertical skeletons, each with BN, summed."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier
from models.merging import taps, total


class AsymmetricBlock(nn.Module):
    """ReLU of 3x3, 1x3 and 3x1 branches, each with its BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel, stride, (kernel[0] // 2, kernel[1] // 2), bias=False),
                nn.BatchNorm2d(outputs),
            )
            for kernel in ((3, 3), (1, 3), (3, 1))
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        square, horizontal, vertical = (branch(x) for branch in self.branches)
        y: Tensor = self.activation(square + horizontal + vertical)
        return y

    def merge(self) -> nn.Module:
        return nn.Sequential(total(taps(branch) for branch in self.branches).module(), self.activation)


class AcNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            AsymmetricBlock(3, 16, 2), AsymmetricBlock(16, 16), AsymmetricBlock(16, 24, 2), classifier(24)
        )
