"""DCGAN-like generator: Linear → Reshape → BN, then ConvTranspose with BN, one of them grouped, one 1-D."""

from __future__ import annotations

from torch import Tensor, nn


class Dcgan(nn.Module):
    """Latents ``[N, 16]`` to images ``[N, 3, 32, 32]`` and a sound ``[N, 1, 32]``."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 24 * 4 * 4, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(24, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=4, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
        )
        self.sound = nn.Sequential(
            nn.ConvTranspose1d(24, 8, 4, 2, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 1, 3, padding=1)
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.project(latents).view(-1, 24, 4, 4))
        return self.body(x), self.sound(x.flatten(2))
