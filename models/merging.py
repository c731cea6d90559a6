"""Merging parallel branches at source level: what a network's own re-parameterisation script does.

For tests to compare with: float64, on torch modules, by adding up taps. It shares nothing with the library.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PADS = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}


@dataclass(frozen=True)
class Taps:
    """A convolution as a sum over taps.

    ``y[o, p] = bias[o] + Σ weight[o, i, k] · x[i, p·stride + k·dilation − begin]``

    Attributes:
        weight: ``[O, I / groups, *kernel]``, float64.
        bias: ``[O]``, float64.
        begin, end: zero padding per spatial axis.
        dtype: of the module that it was read from, and of the one that it becomes.
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    groups: int
    dtype: torch.dtype

    @property
    def offsets(self) -> tuple[list[int], ...]:
        """Where the taps read, relative to ``p · stride``, per spatial axis."""
        return tuple(
            [tap * d - b for tap in range(k)]
            for k, d, b in zip(self.weight.shape[2:], self.dilation, self.begin, strict=True)
        )

    def scaled(self, factor: Tensor) -> Taps:
        """The same times one factor per output channel."""
        factor = factor.detach().double().reshape(-1).expand(self.bias.shape)
        weight = self.weight * factor.view(-1, *[1] * (self.weight.dim() - 1))
        return replace(self, weight=weight, bias=self.bias * factor)

    def __add__(self, other: Taps) -> Taps:
        """The sum of two branches that read the same input and agree in stride and groups."""
        if (self.stride, self.groups) != (other.stride, other.groups):
            raise ValueError("branches differ in stride or groups")
        axes = [sorted({*mine, *theirs}) for mine, theirs in zip(self.offsets, other.offsets, strict=True)]
        dilation = tuple(math.gcd(*(offset - axis[0] for offset in axis)) or 1 for axis in axes)
        kernel = tuple((axis[-1] - axis[0]) // d + 1 for axis, d in zip(axes, dilation, strict=True))
        weight = torch.zeros(*self.weight.shape[:2], *kernel, dtype=torch.float64)
        for branch in (self, other):
            places = [
                torch.tensor([(offset - axis[0]) // d for offset in offsets])
                for offsets, axis, d in zip(branch.offsets, axes, dilation, strict=True)
            ]
            channels = [torch.arange(size) for size in self.weight.shape[:2]]
            weight[torch.meshgrid(*channels, *places, indexing="ij")] += branch.weight
        begin = tuple(-axis[0] for axis in axes)
        # The output size must not change; it depends on begin + end − (last tap − first tap).
        end = tuple(
            axis[-1] + e - mine[-1] for axis, e, mine in zip(axes, self.end, self.offsets, strict=True)
        )
        return replace(
            self, weight=weight, bias=self.bias + other.bias, dilation=dilation, begin=begin, end=end
        )

    def module(self) -> nn.Module:
        """One Conv, behind a zero padding layer where the padding is not symmetric."""
        rank = len(self.stride)
        symmetric = self.begin == self.end
        conv = cast(Callable[..., nn.Module], _CONVS[rank])(
            self.weight.shape[1] * self.groups,
            self.weight.shape[0],
            tuple(self.weight.shape[2:]),
            stride=self.stride,
            padding=self.begin if symmetric else 0,
            dilation=self.dilation,
            groups=self.groups,
            dtype=self.dtype,
        )
        conv.load_state_dict({"weight": self.weight, "bias": self.bias})
        if symmetric:
            return conv
        pads = [pad for pair in zip(reversed(self.begin), reversed(self.end), strict=True) for pad in pair]
        return nn.Sequential(cast(Callable[..., nn.Module], _PADS[rank])(tuple(pads), 0.0), conv)


def taps(branch: nn.Module, *, like: nn.Module | None = None) -> Taps:
    """Read a branch: ``[ConstantPad] [Conv] [BatchNorm]`` in a Sequential, or one of them, or Identity.

    Args:
        branch: the module.
        like: a Conv whose channels, groups, rank and stride (of 1) a branch without Conv has.
    """
    parts: list[Any] = list(branch) if isinstance(branch, nn.Sequential) else [branch]
    pads: tuple[int, ...] | None = None
    result: Taps | None = None
    for part in parts:
        if type(part) in _PADS.values():
            pads = part.padding
        elif type(part) in _CONVS.values():
            begin, end = (pads[-2::-2], pads[::-2]) if pads else (part.padding, part.padding)
            weight = part.weight.detach().double()
            bias = torch.zeros(len(weight)).double() if part.bias is None else part.bias.detach().double()
            dtype = part.weight.dtype
            result = Taps(weight, bias, part.stride, part.dilation, begin, end, part.groups, dtype)
        else:
            result = result or _dirac(like)
            if not isinstance(part, nn.Identity):
                scale, shift = _affine(part)
                result = result.scaled(scale)
                result = replace(result, bias=result.bias + shift)
    if result is None:
        raise ValueError(f"not a branch: {branch}")
    return result


def total(branches: Iterable[Taps]) -> Taps:
    """The sum of all branches."""
    first, *rest = branches
    for branch in rest:
        first = first + branch
    return first


def has_branches(network: nn.Module) -> bool:
    """Whether any module of the network has a method ``merge``."""
    return any(hasattr(module, "merge") for module in network.modules())


def merge_branches(network: nn.Module) -> nn.Module:
    """A copy of the network in which every module with a method ``merge`` is replaced by what it returns."""
    merge = getattr(network, "merge", None)
    if merge is not None:
        return cast(nn.Module, merge())
    result = copy.copy(network)
    result._modules = {name: child and merge_branches(child) for name, child in network._modules.items()}
    return result


def _dirac(like: Any) -> Taps:
    if like is None:
        raise ValueError("a branch without Conv needs to know what it stands beside")
    channels, rank = like.out_channels, len(like.kernel_size)
    size = channels // like.groups
    weight = torch.eye(size, dtype=torch.float64).repeat(like.groups, 1).view(channels, size, *[1] * rank)
    bias = torch.zeros(channels, dtype=torch.float64)
    ones, zeros = (1,) * rank, (0,) * rank
    return Taps(weight, bias, ones, ones, zeros, zeros, like.groups, like.weight.dtype)


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale
