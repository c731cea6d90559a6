"""InstanceNorm, LayerNorm over channels and RMSNorm in the ways that networks spell them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.norms.spelling import (
    EPSILON,
    Norm,
    Spelling,
    channels_first,
    channels_last,
    wide,
)


def _instance(x: Tensor, norm: Norm) -> Tensor:
    return F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=EPSILON)


def _instance_plain(x: Tensor, norm: Norm) -> Tensor:
    return F.instance_norm(x, eps=EPSILON)


def _instance_by_hand(x: Tensor, norm: Norm) -> Tensor:
    axes = list(range(2, x.dim()))
    mean = x.mean(axes, keepdim=True)
    variance = x.var(axes, unbiased=False, keepdim=True)
    return norm.affine((x - mean) / torch.sqrt(variance + EPSILON))


def _instance_channels_last(x: Tensor, norm: Norm) -> Tensor:
    axes = list(range(1, x.dim() - 1))
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON) * norm.weight + norm.bias


def _layer_norm_permuted(x: Tensor, norm: Norm) -> Tensor:
    """ConvNeXt."""
    return channels_first(F.layer_norm(channels_last(x), (norm.channels,), norm.weight, norm.bias, EPSILON))


def _layer_norm_last(x: Tensor, norm: Norm) -> Tensor:
    return F.layer_norm(x, (norm.channels,), norm.weight, norm.bias, EPSILON)


def _layer_norm_channels_first(x: Tensor, norm: Norm) -> Tensor:
    """``LayerNorm2d`` by hand."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return norm.affine((x - mean) / torch.sqrt(variance + EPSILON))


def _rms_last(x: Tensor, norm: Norm) -> Tensor:
    return F.rms_norm(x, (norm.channels,), norm.weight, EPSILON)


def _rms_by_hand(x: Tensor, norm: Norm) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * norm.weight


def _rms_in_float32(x: Tensor, norm: Norm) -> Tensor:
    """As language models write it."""
    w = wide(x)
    return norm.weight * (w * torch.rsqrt(w.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype)


def _rms_channels_first(x: Tensor, norm: Norm) -> Tensor:
    return norm.on_channels(norm.weight) * (x / torch.sqrt((x * x).mean(1, keepdim=True) + EPSILON))


_SPATIAL = (3, 4, 5)

RELATIVES: dict[str, Spelling] = {
    "instance norm": Spelling(_instance, ranks=_SPATIAL, groups="each"),
    "instance norm, no affine": Spelling(_instance_plain, ranks=_SPATIAL, affine=False, groups="each"),
    "instance norm by hand": Spelling(_instance_by_hand, ranks=_SPATIAL, groups="each"),
    "instance norm, channels last": Spelling(
        _instance_channels_last, ranks=_SPATIAL, groups="each", channels_last=True
    ),
    "layer norm, permuted": Spelling(_layer_norm_permuted, "layer", _SPATIAL),
    "layer norm": Spelling(_layer_norm_last, "layer", channels_last=True),
    "layer norm, channels first": Spelling(_layer_norm_channels_first, "layer"),
    "RMS norm": Spelling(_rms_last, "rms", channels_last=True, torchscript="no"),
    "RMS norm by hand": Spelling(_rms_by_hand, "rms", channels_last=True),
    "RMS norm in float32": Spelling(_rms_in_float32, "rms", channels_last=True),
    "RMS norm, channels first": Spelling(_rms_channels_first, "rms"),
}
