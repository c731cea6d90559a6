"""Token and channel mixers with layer scale: ``x + ls · (conv(x) − BN(x))``, as FastViT is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn, conv_bn_relu
from models.merging import taps, total


class TokenMixer(nn.Module):
    """``x + layer_scale · (mix(x) − BN(x))``; ``mix`` sums depthwise 3x3, 1x1 and a BN."""

    def __init__(self, channels: int, *, branched: bool) -> None:
        super().__init__()
        self.large = conv_bn(channels, channels, 3, groups=channels)
        self.small = conv_bn(channels, channels, 1, groups=channels) if branched else None
        self.skip = nn.BatchNorm2d(channels) if branched else None
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = nn.Parameter(0.3 + torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.large(x)
        if self.small is not None and self.skip is not None:
            mixed = mixed + self.small(x) + self.skip(x)
        y: Tensor = x + self.layer_scale * (mixed - self.norm(x))
        return y

    def merge(self) -> nn.Module:
        beside = self.large[0]
        branches = [branch for branch in (self.large, self.small, self.skip) if branch is not None]
        mixed = total(taps(branch, like=beside) for branch in branches)
        less = taps(self.norm, like=beside).scaled(torch.tensor(-1.0))
        return (taps(nn.Identity(), like=beside) + (mixed + less).scaled(self.layer_scale)).module()


class ChannelMixer(nn.Module):
    """``x + layer_scale · mlp(x)``; a depthwise 7x7 with BN, then two 1x1 convs around a GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *conv_bn(channels, channels, 7, groups=channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1),
        )
        self.layer_scale = nn.Parameter(0.3 + torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layer_scale * self.mlp(x)
        return y


class Mixer(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn_relu(3, 16, stride=2),
            TokenMixer(16, branched=False),
            ChannelMixer(16),
            TokenMixer(16, branched=True),
            ChannelMixer(16),
            classifier(16),
        )
