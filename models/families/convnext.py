"""ConvNeXt-like: layer scale behind a Linear, LayerNorm permuted and, between stages, by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelsFirstLayerNorm(nn.Module):
    """LayerNorm over axis 1 of ``[N, C, H, W]``, spelled out."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.4 * torch.randn(channels))
        self.bias = nn.Parameter(0.3 * torch.randn(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        y = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * y + self.bias[:, None, None]


class Block(nn.Module):
    """``x + layer_scale · linear(gelu(linear(LN(depthwise(x)))))``, channels last inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(4 * channels, channels)
        self.layer_scale = nn.Parameter(0.3 + 0.5 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.layer_scale * self.reduce(self.activation(self.expand(y)))
        total: Tensor = x + y.permute(0, 3, 1, 2)
        return total


class ConvNext(nn.Module):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``; a BN stands before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4),
            ChannelsFirstLayerNorm(16),
            Block(16),
            Block(16),
            ChannelsFirstLayerNorm(16),
            nn.Conv2d(16, 24, 2, 2),
            Block(24),
        )
        self.norm = nn.LayerNorm(24, eps=1e-6)
        self.head = nn.Sequential(nn.BatchNorm1d(24), nn.Linear(24, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.features(images).mean([-2, -1])))
        return logits
