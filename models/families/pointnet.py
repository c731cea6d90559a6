"""PointNet-like: 1-D convs with BN over any number of points, a learned transform, max over points."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """Conv1d of one tap, BN, ReLU."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU())


class PointNet(nn.Module):
    """Point clouds ``[N, 3, P]`` to logits ``[N, 8]``; a BN stands on either side of the max."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(pointwise(3, 16), pointwise(16, 32))
        self.transform_head = nn.Sequential(
            nn.Linear(32, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 9)
        )
        self.features = nn.Sequential(pointwise(3, 16), nn.Conv1d(16, 32, 1), nn.ReLU(), nn.BatchNorm1d(32))
        self.head = nn.Sequential(
            nn.BatchNorm1d(32), nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8)
        )

    def forward(self, points: Tensor) -> Tensor:
        matrix = self.transform_head(self.transform(points).amax(2)).view(-1, 3, 3)
        matrix = matrix + torch.eye(3, device=points.device)
        moved = torch.bmm(points.transpose(1, 2), matrix).transpose(1, 2)
        logits: Tensor = self.head(self.features(moved).amax(2))
        return logits
