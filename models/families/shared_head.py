"""Detector head shared between two pyramid levels, with a BN per level: one weight, two different affines."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import conv_bn_relu


class SharedHead(nn.Module):
    """Images ``[N, 3, 32, 32]`` to score maps ``[N, 4, 16, 16]`` and ``[N, 4, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.level1 = conv_bn_relu(3, 12, stride=2)
        self.level2 = conv_bn_relu(12, 12, stride=2)
        self.conv = nn.Conv2d(12, 12, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(2))
        self.activation = nn.ReLU()
        self.score = nn.Conv2d(12, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.level1(images)
        levels = (x, self.level2(x))
        first, second = (
            self.score(self.activation(norm(self.conv(level))))
            for level, norm in zip(levels, self.norms, strict=True)
        )
        return first, second
