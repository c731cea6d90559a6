"""Style-transfer-like: InstanceNorm of the input, and the tracked one, in evaluation a BatchNorm."""

from __future__ import annotations

from torch import nn


class Style(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to images: InstanceNorm and BatchNorm behind reflection-padded convs."""

    def __init__(self) -> None:
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 8, 3),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.InstanceNorm2d(8),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 1),
        )


class TrackedStyle(nn.Sequential):
    """Images ``[N, 3, 16, 16]`` to images: InstanceNorm with running statistics behind padded convs."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.Conv2d(8, 3, 1),
        )
