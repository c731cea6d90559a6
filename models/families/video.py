"""3-D video net: factored (2+1)-D convolutions, BN3d after conv, on a sum and behind an average pool."""

from __future__ import annotations

from torch import Tensor, nn


class Factored(nn.Sequential):
    """Spatial 1x3x3 conv, BN, ReLU, temporal 3x1x1 conv."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False),
        )


class Video(nn.Module):
    """Clips ``[N, 3, 4, 16, 16]`` (time, height, width) to logits ``[N, 6]``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 12, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False), nn.BatchNorm3d(12), nn.ReLU()
        )
        self.factored = Factored(12)
        self.depthwise = nn.Conv3d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.BatchNorm3d(12)
        self.activation = nn.ReLU()
        self.pool = nn.Sequential(
            nn.Conv3d(12, 16, 1), nn.AvgPool3d((1, 2, 2)), nn.BatchNorm3d(16), nn.ReLU()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 6))

    def forward(self, clips: Tensor) -> Tensor:
        x = self.stem(clips)
        x = self.activation(self.norm(self.factored(x) + self.depthwise(x)))
        logits: Tensor = self.head(self.pool(x))
        return logits
