"""U-Net: ``Concat(ConvTranspose, skip) → BN → ReLU → Conv``, each producer asked for its slice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import conv_bn_relu


class Up(nn.Module):
    """Up-sampling by a strided ConvTranspose, concat with a projected skip, BN, ReLU, Conv."""

    def __init__(self, inputs: int, skip: int, outputs: int, *, groups: int = 1) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups)
        self.skip = nn.Conv2d(skip, outputs, 1)
        self.norm = nn.BatchNorm2d(2 * outputs)
        self.activation = nn.ReLU()
        self.conv = nn.Conv2d(2 * outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        both = torch.cat([self.up(x), self.skip(skip)], 1)
        y: Tensor = self.conv(self.activation(self.norm(both)))
        return y


class UNet(nn.Module):
    """Images ``[N, 3, 32, 32]`` to per-pixel logits ``[N, 2, 32, 32]``."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = conv_bn_relu(3, 8)
        self.down2 = conv_bn_relu(8, 16)
        self.middle = conv_bn_relu(16, 24)
        self.pool = nn.MaxPool2d(2)
        self.up2 = Up(24, 16, 16, groups=2)
        self.up1 = Up(16, 8, 8)
        self.head = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        x1 = self.down1(images)
        x2 = self.down2(self.pool(x1))
        x = self.up2(self.middle(self.pool(x2)), x2)
        logits: Tensor = self.head(self.up1(x, x1))
        return logits
