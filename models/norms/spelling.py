"""What a spelling of a norm is, and a layer and a network of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

EPSILON = 2.0**-10
"""Exact in float16."""

Kind = Literal["group", "layer", "rms"]


class Norm(nn.Module):
    """One spelling of a norm of ``[N, C, *S]``, or ``[N, *S, C]`` where the spelling says so.

    Args:
        name: what the spelling is called.
        spelling: how it is written.
        channels: C.
        groups: G.
        rank: of the input.
    """

    def __init__(
        self, name: str, spelling: Spelling, channels: int = 12, groups: int = 3, rank: int = 4
    ) -> None:
        super().__init__()
        self.name, self.spelling = name, spelling
        self.channels, self.groups, self.rank = channels, groups, rank
        generator = torch.Generator().manual_seed(len(name) + groups)
        self.weight = nn.Parameter(torch.randn(channels, generator=generator))
        self.bias = nn.Parameter(torch.randn(channels, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.spelling.function(x, self)

    def on_channels(self, parameter: Tensor) -> Tensor:
        """A parameter ``[C]`` as ``[C, 1, …]``, which broadcasts against x."""
        return parameter.reshape(-1, *[1] * (self.rank - 2))

    def affine(self, x: Tensor) -> Tensor:
        return x * self.on_channels(self.weight) + self.on_channels(self.bias)

    def shape(self, sizes: Sequence[int] = (5, 6, 7), batch: int = 2) -> tuple[int, ...]:
        """Of an input, with the first of ``sizes`` as spatial sizes."""
        spatial = tuple(sizes[: self.rank - 2])
        if self.spelling.channels_last:
            return (batch, *spatial, self.channels)
        return (batch, self.channels, *spatial)

    @property
    def open_axes(self) -> dict[int, str]:
        """Names for every axis but the channels'."""
        channel = self.rank - 1 if self.spelling.channels_last else 1
        open_ = [axis for axis in range(self.rank) if axis != channel]
        return dict(zip(open_, ("batch", "depth", "height", "width"), strict=False))


class Together(nn.Module):
    """Norms beside each other, one input and one output for each."""

    def __init__(self, norms: Sequence[Norm]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x) for norm, x in zip(self.norms, inputs, strict=True))


@dataclass(frozen=True)
class Spelling:
    """How a norm is written.

    Attributes:
        function: computes it.
        kind: ``group`` takes groups; ``layer`` and ``rms`` are over the channels of each position.
        ranks: that it is written for.
        channels_last: whether its input is ``[N, *S, C]``.
        affine: whether it has scale and shift.
        silu: whether ``v · sigmoid(v)`` follows.
        unbiased: whether its variance divides by K − 1.
        groups: ``one`` for spellings that have a single group, ``each`` for as many as channels.
        torchscript: whether that exporter can do it: not at all, or not with open sizes.
    """

    function: Callable[[Tensor, Norm], Tensor]
    kind: Kind = "group"
    ranks: tuple[int, ...] = (2, 3, 4, 5)
    channels_last: bool = False
    affine: bool = True
    silu: bool = False
    unbiased: bool = False
    groups: Literal["any", "one", "each"] = "any"
    torchscript: Literal["yes", "static", "no"] = "yes"


def as_rows(x: Tensor, norm: Norm) -> Tensor:
    """``[N, G, C/G·S]``."""
    return x.reshape(x.shape[0], norm.groups, -1)


def channels_last(x: Tensor) -> Tensor:
    """``[N, C, *S]`` as ``[N, *S, C]``."""
    return x.permute(0, *range(2, x.dim()), 1)


def channels_first(x: Tensor) -> Tensor:
    """``[N, *S, C]`` as ``[N, C, *S]``."""
    return x.permute(0, x.dim() - 1, *range(1, x.dim() - 1))


def as_parts(x: Tensor, norm: Norm) -> Tensor:
    """``[N, G, C/G, *S]``."""
    return x.view(x.shape[0], norm.groups, norm.channels // norm.groups, *x.shape[2:])


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
