"""BN behind operators that only move or average pixels: PixelShuffle, Upsample, AvgPool, PixelUnshuffle."""

from __future__ import annotations

from torch import Tensor, nn


class Resampling(nn.Module):
    """Images ``[N, 3, 16, 16]`` to ``[N, 3, 32, 32]``: one branch per operator, each ended by BN and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.shuffle = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.PixelShuffle(2), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.nearest = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.bilinear = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        )
        self.pool = nn.Sequential(
            nn.Conv2d(6, 12, 3, padding=1), nn.AvgPool2d(2), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.unshuffle = nn.Sequential(
            nn.Conv2d(6, 3, 3, padding=1), nn.PixelUnshuffle(2), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.tail = nn.Sequential(nn.Conv2d(12, 12, 1), nn.PixelShuffle(2), nn.BatchNorm2d(3))

    def forward(self, images: Tensor) -> Tensor:
        x = self.shuffle(images) + self.nearest(images) + self.bilinear(images)
        y: Tensor = self.tail(self.pool(x) + self.unshuffle(x))
        return y
