"""Tabular MLP: BN on the graph input and BN after activations, in front of one or two Linear layers."""

from __future__ import annotations

from torch import Tensor, nn


class Tabular(nn.Module):
    """Rows ``[N, 12]`` to a class score ``[N, 3]`` and a value ``[N, 1]``, which share the last BN."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(12),
            nn.Linear(12, 32),
            nn.ReLU(),
            nn.BatchNorm1d(32),
            nn.Dropout(0.1),
            nn.Linear(32, 32, bias=False),
            nn.SELU(),
            nn.BatchNorm1d(32),
            nn.Linear(32, 16),
            nn.BatchNorm1d(16),
            nn.LeakyReLU(0.1),
            nn.BatchNorm1d(16),
        )
        self.score = nn.Linear(16, 3)
        self.value = nn.Linear(16, 1)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(rows)
        return self.score(x), self.value(x)
