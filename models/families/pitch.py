"""Pitch-tracker-like: ``Conv → ReLU → BN → MaxPool → padded Conv``, where zero padding stops a shift."""

from __future__ import annotations

from torch import Tensor, nn


class Layer(nn.Sequential):
    """Same-padded convolution along time, ReLU, BN, max pool of two."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2),
            nn.ReLU(),
            nn.BatchNorm1d(outputs),
            nn.MaxPool1d(2),
        )


class Pitch(nn.Module):
    """Audio frames ``[N, 256]`` to 36 pitch bins ``[N, 36]``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(1, 16, 33, 4), Layer(16, 8, 9), Layer(8, 8, 9), Layer(8, 16, 9))
        self.head = nn.Linear(16 * 4, 36)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.layers(frames[:, None])
        bins: Tensor = self.head(x.transpose(1, 2).flatten(1)).sigmoid()
        return bins
