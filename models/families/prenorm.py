"""Pre-norm transformer over NCHW: a residual read twice, ``Add → BN → Conv 1x1``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier


class ConvAttention(nn.Module):
    """Self-attention over the pixels of ``[N, C, H, W]``; one 1x1 conv makes query, key and value."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, 3, self.heads, channels // self.heads, height * width).unbind(1)
        weights = torch.softmax(q.transpose(-2, -1) @ k * (channels // self.heads) ** -0.5, dim=-1)
        y = (v @ weights.transpose(-2, -1)).reshape(batch, channels, height, width)
        projected: Tensor = self.project(y)
        return projected


class PreNormBlock(nn.Module):
    """``x + attention(BN(x))``, then ``x + mlp(BN(x))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = ConvAttention(channels, heads=2)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class PreNorm(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to logits ``[N, 10]``."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__(
            nn.Conv2d(3, channels, 4, stride=4),
            PreNormBlock(channels),
            PreNormBlock(channels),
            nn.BatchNorm2d(channels),
            classifier(channels),
        )
