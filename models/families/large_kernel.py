"""Large depthwise kernels with small parallel ones, also dilated (as RepLKNet and UniRepLKNet train them)."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn, conv_bn_relu
from models.merging import taps, total


class LargeKernel(nn.Module):
    """Sum of depthwise branches with BN, each given as (kernel size, dilation) and keeping the image size."""

    def __init__(self, channels: int, branches: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    padding=dilation * (kernel - 1) // 2,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.BatchNorm2d(channels),
            )
            for kernel, dilation in branches
        )

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = (branch(x) for branch in self.branches)
        y: Tensor = first
        for branch in rest:
            y = y + branch
        return y

    def merge(self) -> nn.Module:
        return total(taps(branch) for branch in self.branches).module()


class LargeKernelNet(nn.Sequential):
    """Images ``[N, 3, 64, 64]`` to logits ``[N, 10]``: a 31x31 + 5x5 block and a 13x13 + dilated block."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__(
            conv_bn_relu(3, channels, stride=2),
            LargeKernel(channels, ((31, 1), (5, 1))),
            nn.GELU(),
            *conv_bn(channels, channels),
            LargeKernel(channels, ((13, 1), (5, 1), (5, 2), (3, 3), (3, 5))),
            nn.GELU(),
            *conv_bn(channels, channels),
            classifier(channels),
        )
