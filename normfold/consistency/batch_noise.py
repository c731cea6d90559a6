"""Whether running statistics are what a running average over batches of some size and momentum would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.consistency.measurement import LayerData
from normfold.consistency.statistics import ChannelMoments

SIMULATED = (2, 4, 8)
"""Batch sizes at which the layers are given something else, for each batch is normalised by its own statistics."""

ASSUMED = (16, 32, 64, 128)
MOMENTA = (0.01, 0.1, 0.9)
"""Weight of the new batch: PyTorch's default is 0.1, that of Keras 0.01; 0.9 is PyTorch's the wrong way round."""

_HEAVY_TAIL = 4.0
_VOTES = 20
_WORST_FIT = 8.0


@dataclass(frozen=True)
class BatchHypothesis:
    """One way in which running statistics may have come about.

    Attributes:
        batch_size: images per batch.
        momentum: weight of the new batch.
        biased: whether the biased variance was stored; torch stores the unbiased one.
        likelihood: logarithm, comparable between hypotheses of one model.
        misfit: mean square deviation in units of what it predicts, at the worst layer; 1 is perfect.
    """

    batch_size: int
    momentum: float
    biased: bool
    likelihood: float
    misfit: float

    @property
    def fits(self) -> bool:
        return self.misfit < _WORST_FIT

    @property
    def images(self) -> float:
        """Images that the running average stands for."""
        return self.batch_size * (2 - self.momentum) / self.momentum


@dataclass(frozen=True)
class Prediction:
    """Statistics of batches of one size, at one layer; arrays of shape ``[C]``.

    Attributes:
        mean: expected batch mean.
        variance: expected unbiased batch variance.
        mean_spread: variance of the batch mean.
        variance_spread: variance of the batch variance.
        error: share of the spreads by which the expectations are uncertain.
        elements: elements per channel in a batch.
    """

    mean: Array64
    variance: Array64
    mean_spread: Array64
    variance_spread: Array64
    error: float
    elements: float


def simulated(data: LayerData, batch_size: int) -> Prediction:
    """From batches of that very size."""
    b = data.batches
    return Prediction(
        b.mean,
        b.variance,
        b.mean_spread,
        b.variance_spread,
        1.0 / max(b.batches, 1),
        batch_size * data.training.positions,
    )


def assumed(moments: ChannelMoments, batch_size: int) -> Prediction:
    """From the spread over single images, for batches whose own statistics hardly differ."""
    return Prediction(
        moments.mean,
        moments.variance,
        moments.between / batch_size,
        moments.variance_spread / batch_size,
        batch_size / max(moments.images, 1),
        batch_size * moments.positions,
    )


def rank(layers: Sequence[LayerData], simulations: dict[int, Sequence[LayerData]]) -> list[BatchHypothesis]:
    """All hypotheses, the likeliest first.

    Args:
        layers: the main pass.
        simulations: the layers as given in batches of other sizes, by batch size.
    """
    found = []
    predictions = {
        size: [simulated(data, size) for data in given] for size, given in simulations.items() if given
    }
    predictions |= {size: [assumed(data.training, size) for data in layers] for size in ASSUMED}
    for size, predicted in predictions.items():
        for momentum in MOMENTA:
            for biased in (False, True):
                found.append(_weigh(layers, predicted, size, momentum, biased))
    return sorted(found, key=lambda hypothesis: -hypothesis.likelihood)


def _weigh(
    layers: Sequence[LayerData],
    predictions: Sequence[Prediction],
    batch_size: int,
    momentum: float,
    biased: bool,
) -> BatchHypothesis:
    likelihood, misfit = 0.0, 0.0
    for data, predicted in zip(layers, predictions, strict=True):
        layer = data.layer
        running = layer.var + layer.epsilon
        factor = 1.0 - 1.0 / max(predicted.elements, 2.0) if biased else 1.0
        expected = predicted.variance * factor + layer.epsilon
        noise = momentum / (2 - momentum) + predicted.error
        mean_noise = predicted.mean_spread * noise / running + 1e-10
        variance_noise = predicted.variance_spread * noise / np.square(expected) + 1e-10
        z = (layer.mean - predicted.mean) / np.sqrt(running)
        ratio = np.log(running / expected)
        for deviation, spread in ((z, mean_noise), (ratio, variance_noise)):
            square = np.square(deviation) / spread
            score = -0.5 * np.log(spread) - (_HEAVY_TAIL + 1) / 2 * np.log1p(square / _HEAVY_TAIL)
            likelihood += min(layer.channels, _VOTES) * float(score.mean())
            misfit = max(misfit, float(square.mean()))
    return BatchHypothesis(batch_size, momentum, biased, likelihood, misfit)
