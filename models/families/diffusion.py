"""Diffusion-like U-Net: GroupNorm + SiLU + Conv residual blocks, time embedding, attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """``GN → SiLU → Conv`` twice, the time embedding added between; a 1x1 shortcut where channels change."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.time = nn.Linear(embedding, outputs)
        self.second = nn.Sequential(
            nn.GroupNorm(groups, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.first(x) + self.time(embedding)[:, :, None, None]
        total: Tensor = self.shortcut(x) + self.second(y)
        return total


class AttentionBlock(nn.Module):
    """Self-attention over pixels behind a GroupNorm, with a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(self.norm(x).flatten(2)).chunk(3, dim=1)
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(channels), dim=-1)
        y = self.project(v @ weights.transpose(1, 2))
        total: Tensor = x + y.reshape(batch, channels, height, width)
        return total


class DiffusionUNet(nn.Module):
    """Noisy images ``[N, 4, H, W]`` and a time embedding ``[N, embedding]`` to noise ``[N, 4, H, W]``."""

    def __init__(self, width: int = 16, embedding: int = 16, groups: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.down1 = ResidualBlock(width, width, embedding, groups)
        self.pool = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down2 = ResidualBlock(width, 2 * width, embedding, groups)
        self.attention = AttentionBlock(2 * width, groups)
        self.up2 = ResidualBlock(2 * width, width, embedding, groups)
        self.grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1))
        self.up1 = ResidualBlock(2 * width, width, embedding, groups)
        self.head = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        skip = self.down1(self.stem(images), time)
        x = self.attention(self.down2(self.pool(skip), time))
        x = self.grow(self.up2(x, time))
        noise: Tensor = self.head(self.up1(torch.cat([x, skip], 1), time))
        return noise
