"""BN → Flatten → Linear: a channel affine becomes one per flattened feature."""

from __future__ import annotations

from torch import Tensor, nn


class FlattenLinear(nn.Module):
    """Images ``[N, 1, 12, 12]`` to logits ``[N, 10]``; a second BN stands after the Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.Tanh(), nn.BatchNorm2d(6)
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(6 * 25, 24, bias=False),
            nn.Sigmoid(),
            nn.Unflatten(1, (6, 4)),
            nn.BatchNorm1d(6),
            nn.Flatten(),
            nn.BatchNorm1d(24),
            nn.Linear(24, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
