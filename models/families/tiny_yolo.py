"""Tiny-YOLO-like detector: conv, BN, leaky ReLU; upsample and concat; two heads; a BN left on the concat."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unit(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Conv without bias, BN, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


class TinyYolo(nn.Module):
    """Images ``[N, 3, 64, 64]`` to box grids ``[N, 18, 4, 4]`` and ``[N, 18, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            unit(3, 8), nn.MaxPool2d(2), unit(8, 12), nn.MaxPool2d(2), unit(12, 16), nn.MaxPool2d(2)
        )
        self.deep = nn.Sequential(nn.MaxPool2d(2), unit(16, 24), unit(24, 16, 1))
        self.coarse = nn.Sequential(unit(16, 24), nn.Conv2d(24, 18, 1))
        self.lateral = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.Upsample(scale_factor=2))
        self.norm = nn.BatchNorm2d(24)
        self.fine = nn.Sequential(nn.LeakyReLU(0.1), unit(24, 24), nn.Conv2d(24, 18, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(images)
        deep = self.deep(x)
        joined = self.norm(torch.cat([self.lateral(deep), x], 1))
        return self.coarse(deep), self.fine(joined)
