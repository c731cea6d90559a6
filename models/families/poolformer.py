"""PoolFormer-like: ``x̂ = GN(x); x + ls · (pool(x̂) − x̂)``, a norm with two readers that agree."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier


class PoolBlock(nn.Module):
    """Average-pool token mixing and a 1x1 MLP, both behind a GroupNorm of one group and with layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, channels)
        self.norm2 = nn.GroupNorm(1, channels)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )
        self.scale1 = nn.Parameter(0.3 + 0.5 * torch.randn(channels, 1, 1))
        self.scale2 = nn.Parameter(0.3 + 0.5 * torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * (self.pool(y) - y)
        z: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return z


class PoolFormer(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__(
            nn.Conv2d(3, channels, 7, 4, 2), PoolBlock(channels), PoolBlock(channels), classifier(channels)
        )
