"""Style-transfer-like: InstanceNorm behind reflection-padded convs, plain and with tracked statistics."""

from __future__ import annotations

from torch import nn


class Style(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to images; in evaluation the tracked InstanceNorm is a BatchNorm."""

    def __init__(self) -> None:
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 8, 3),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 1),
        )
