"""Random weights that keep a fold honest: no normalisation is an identity, no activation dies out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NEGATIVE_SHARE = 0.3


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Give every layer random parameters and statistics, in place; returns the module in evaluation mode.

    Weights of linear layers are normal with variance 1 / fan-in, so that signals neither vanish nor grow.
    Normalisations get a gamma of magnitude 0.6..1.4 of which about a third is negative (at least one per
    layer), a beta and a running mean around 0, and a running variance in 0.5..2. Parameters of other modules
    stay as their constructor made them.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, std: float) -> Tensor:
        return torch.randn(like.shape, generator=generator) * std

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    def gamma(like: Tensor) -> Tensor:
        negative = torch.rand(like.shape, generator=generator) < NEGATIVE_SHARE
        negative.view(-1)[like.numel() // 2] = True
        return torch.where(negative, -1.0, 1.0) * uniform(like, 0.6, 1.4)

    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | _TRANSPOSED):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, _TRANSPOSED):
                fan_in = layer.weight.numel() // (layer.out_channels * math.prod(layer.stride))
            layer.weight.copy_(normal(layer.weight, max(1, fan_in) ** -0.5))
            if layer.bias is not None:
                layer.bias.copy_(normal(layer.bias, 0.2))
        elif isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
            if layer.weight is not None:
                layer.weight.copy_(gamma(layer.weight))
                layer.bias.copy_(normal(layer.bias, 0.3))
            if isinstance(layer, _NormBase) and layer.running_mean is not None:
                assert layer.running_var is not None
                layer.running_mean.copy_(normal(layer.running_mean, 0.3))
                layer.running_var.copy_(uniform(layer.running_var, 0.5, 2.0))
    return module.eval()


_TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
