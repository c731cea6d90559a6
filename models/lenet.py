"""LeNet with BatchNorm for scikit-learn's 8x8 digits, with a library or a hand-written layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class HandwrittenBatchNorm(nn.Module):
    """BatchNorm spelled out in tensor operations, as textbooks write it.

    Evaluation is ``gamma * (x - mean) / sqrt(var + eps) + beta``; exporters see arithmetic, never a
    BatchNormalization node. In training, moving averages follow ``(1 - momentum) * old + momentum * batch``
    with the biased batch variance.

    Args:
        num_features: size of the channel axis, axis 1 of the input.
        num_dims: rank of the input: 2 for ``[N, C]``, 4 for ``[N, C, H, W]``.
        eps: added to the variance.
        momentum: weight of the new batch in the moving averages.
    """

    moving_mean: Tensor
    moving_var: Tensor

    def __init__(self, num_features: int, num_dims: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        shape = (1, num_features) + (1,) * (num_dims - 2)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("moving_mean", torch.zeros(shape))
        self.register_buffer("moving_var", torch.ones(shape))
        self.eps = eps
        self.momentum = momentum
        self.axes = tuple(axis for axis in range(num_dims) if axis != 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean = x.mean(dim=self.axes, keepdim=True)
            var = ((x - mean) ** 2).mean(dim=self.axes, keepdim=True)
            with torch.no_grad():
                self.moving_mean.lerp_(mean, self.momentum)
                self.moving_var.lerp_(var, self.momentum)
        else:
            mean, var = self.moving_mean, self.moving_var
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


Norm = Callable[[int, int], nn.Module]
"""Makes the normalisation layer for (number of features, rank of the input)."""


def library_norm(num_features: int, num_dims: int) -> nn.Module:
    """torch's own BatchNorm for inputs of rank 2 or 4."""
    return nn.BatchNorm1d(num_features) if num_dims == 2 else nn.BatchNorm2d(num_features)


class LeNet(nn.Module):
    """(conv, BN, sigmoid, average pool) twice, (linear, BN, sigmoid) twice, linear.

    Input ``[N, 1, 8, 8]`` with values in 0..1, output logits ``[N, 10]``. Both convolutions keep the size,
    so that the two pools end at 2x2.
    """

    def __init__(self, norm: Norm = library_norm) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            norm(6, 4),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=3, padding=1),
            norm(16, 4),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64, 120),
            norm(120, 2),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            norm(84, 2),
            nn.Sigmoid(),
            nn.Linear(84, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits
