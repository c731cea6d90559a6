"""BatchNorm written by hand: textbook, frozen backbone, and TF's ``x · inv + (offset − mean · inv)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier


class Statistics(nn.Module):
    """Random parameters and statistics of a BatchNorm over axis 1 of ``[N, C, H, W]``."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.beta = nn.Parameter(0.3 * torch.randn(1, channels, 1, 1))
        self.register_buffer("mean", 0.3 * torch.randn(1, channels, 1, 1))
        self.register_buffer("var", 0.5 + torch.rand(1, channels, 1, 1))
        self.eps = eps


class Textbook(Statistics):
    """``gamma · (x − mean) / sqrt(var + eps) + beta``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x - self.mean) / torch.sqrt(self.var + self.eps) + self.beta


class Frozen(Statistics):
    """``x · scale + bias`` computed from the statistics on the way, as detectors freeze their backbones."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gamma * (self.var + self.eps).rsqrt()
        return x * scale + (self.beta - self.mean * scale)


class ChannelsLast(Statistics):
    """The frozen form on ``[N, H, W, C]``, between two transposes."""

    def forward(self, x: Tensor) -> Tensor:
        inv = torch.rsqrt(self.var + self.eps).flatten() * self.gamma.flatten()
        y = x.permute(0, 2, 3, 1) * inv + (self.beta.flatten() - self.mean.flatten() * inv)
        return y.permute(0, 3, 1, 2)


class Handwritten(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to logits ``[N, 10]``: each spelling behind a conv, one between ReLUs."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            Textbook(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            Frozen(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            ChannelsLast(8),
            nn.ReLU(),
            Textbook(8),
            nn.ReLU(),
            classifier(8),
        )
