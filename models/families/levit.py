"""LeViT-like: Linear → BatchNorm1d on tokens, exported as ``MatMul → Reshape → BN → Reshape``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.families.blocks import conv_bn


class LinearNorm(nn.Module):
    """Linear without bias and BatchNorm1d over all tokens of the batch, ``[N, L, C]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        normalised: Tensor = self.norm(y.flatten(0, 1))
        return normalised.reshape_as(y)


class Attention(nn.Module):
    """Attention whose projections are normalised after they are computed, with a learned position bias."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.key = heads, width // (2 * heads)
        self.value = 2 * self.key
        self.qkv = LinearNorm(width, heads * (2 * self.key + self.value))
        self.bias = nn.Parameter(torch.randn(heads, tokens, tokens))
        self.project = nn.Sequential(nn.Hardswish(), LinearNorm(heads * self.value, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        split = self.qkv(x).view(batch, tokens, self.heads, -1).split([self.key, self.key, self.value], dim=3)
        q, k, v = (part.permute(0, 2, 1, 3) for part in split)
        weights = (q @ k.transpose(-2, -1) * self.key**-0.5 + self.bias).softmax(dim=-1)
        y: Tensor = self.project((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))
        return y


class Levit(nn.Module):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``: conv stem, two blocks, BN before two heads."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_bn(3, 8, 3, stride=2),
            nn.Hardswish(),
            conv_bn(8, 16, 3, stride=2),
            nn.Hardswish(),
            conv_bn(16, width, 3, stride=2),
        )
        self.attentions = nn.ModuleList(Attention(width, 2, 16) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(LinearNorm(width, 2 * width), nn.Hardswish(), LinearNorm(2 * width, width))
            for _ in range(2)
        )
        # Two heads after one BN each, as in distilled training: averaged in evaluation.
        self.heads = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 10)) for _ in range(2)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        x = x.mean(1)
        first, second = (head(x) for head in self.heads)
        logits: Tensor = (first + second) / 2
        return logits
