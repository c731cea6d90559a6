"""Layers held against the data, and what may have caused that they depart."""

from __future__ import annotations

from dataclasses import dataclass

from normfold.consistency.departure import Departure, departure
from normfold.consistency.measurement import LayerData, Measured

LEAST_BATCH = 16
"""Images that have to share their statistics for training conditions to be judged."""


@dataclass(frozen=True)
class Cause:
    """A likely cause of a departure.

    Attributes:
        code: its reason code.
        site: the first layer that it shows in; ``None`` where it concerns the model as a whole.
        message: what was tried and what came of it, with numbers.
        repairable: whether the running statistics are at fault, so that estimating them again repairs the
            model.
        evidence: the numbers by name.
    """

    code: str
    site: str | None
    message: str
    repairable: bool
    evidence: dict[str, float]


@dataclass(frozen=True)
class Compared:
    """One layer against the data, in deployment and in training conditions.

    The latter say nothing where batches are so small that they change what the layers are given.
    """

    data: LayerData
    deployment: Departure
    training: Departure
    judged_in_training: bool = True

    @property
    def site(self) -> str:
        return self.data.layer.site

    @property
    def departs(self) -> bool:
        return self.deployment.beyond_noise or (self.judged_in_training and self.training.beyond_noise)


def compare(measured: Measured) -> list[Compared]:
    """Every layer that the data reached, in graph order."""
    return [
        Compared(
            data,
            departure(data.deployment, data.layer),
            departure(data.training, data.layer),
            measured.batch_size >= LEAST_BATCH,
        )
        for data in measured.layers
        if data.deployment.images and data.training.images
    ]


def counted(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
