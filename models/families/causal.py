"""Causal and even kernels in parallel: left-padded 1-D convs, even 2-D kernels with uneven padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.merging import taps, total


def causal(channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution along time that sees no future: zeros on the left only."""
    return nn.Sequential(
        nn.ConstantPad1d((dilation * (kernel - 1), 0), 0.0),
        nn.Conv1d(channels, channels, kernel, dilation=dilation, bias=False),
        nn.BatchNorm1d(channels),
    )


def even(channels: int, kernel: int) -> nn.Sequential:
    """Size-keeping 2-D convolution with an even kernel: one more zero at the end than at the beginning."""
    before, after = (kernel - 1) // 2, kernel // 2
    return nn.Sequential(
        nn.ConstantPad2d((before, after, before, after), 0.0),
        nn.Conv2d(channels, channels, kernel, bias=False),
        nn.BatchNorm2d(channels),
    )


class Branches(nn.Module):
    """SiLU of the sum of branches that read one input; the last may be a bare BatchNorm."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(sum(branch(x) for branch in self.branches))
        return y

    def merge(self) -> nn.Module:
        first: Any = self.branches[0]
        merged = total(taps(branch, like=first[1]) for branch in self.branches)
        return nn.Sequential(merged.module(), self.activation)


class Causal(nn.Sequential):
    """Signals ``[N, 8, T]`` to ``[N, 4, T]``; no output depends on later input."""

    def __init__(self) -> None:
        super().__init__(
            Branches(causal(8, 5), causal(8, 2), nn.BatchNorm1d(8)),
            Branches(causal(8, 3, 2), causal(8, 3), causal(8, 1)),
            nn.Conv1d(8, 4, 1),
        )


class EvenKernels(nn.Sequential):
    """Images ``[N, 6, 16, 16]`` to ``[N, 4, 16, 16]`` through parallel even kernels."""

    def __init__(self) -> None:
        super().__init__(
            Branches(even(6, 4), even(6, 2), nn.BatchNorm2d(6)),
            Branches(even(6, 4), even(6, 3)),
            nn.Conv2d(6, 4, 1),
        )
