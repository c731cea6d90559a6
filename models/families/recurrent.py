"""BN in front of recurrent layers: ``Conv → ReLU → BN → Transpose → LSTM``, then BN before a GRU."""

from __future__ import annotations

from torch import Tensor, nn


class Recurrent(nn.Module):
    """Feature sequences ``[N, 10, T]`` to per-step logits ``[N, T, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(10, 12, 3, padding=1), nn.ReLU())
        self.norm = nn.BatchNorm1d(12)
        self.lstm = nn.LSTM(12, 8, batch_first=True, bidirectional=True)
        self.norm2 = nn.BatchNorm1d(16)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, features: Tensor) -> Tensor:
        x = self.norm(self.conv(features)).transpose(1, 2)
        x = self.lstm(x)[0]
        x = self.norm2(x.transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.head(self.gru(x)[0])
        return logits
