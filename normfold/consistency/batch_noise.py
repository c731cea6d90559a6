"""Whether running statistics are what a running average over batches of some size and momentum would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.consistency.measurement import LayerData
from normfold.consistency.statistics import ChannelMoments

SIMULATED = (2, 4, 8)
"""Batch sizes at which layers are given something else, each batch being normalised by itself."""

ASSUMED = (16, 32, 64, 128)
MOMENTA = (0.01, 0.1, 0.9)
"""Weight of the new batch: PyTorch's default is 0.1, that of Keras 0.01; 0.9 is the wrong way round."""

_HEAVY_TAIL = 4.0
_VOTES = 20
_GOOD_FIT = 2.5


@dataclass(frozen=True)
class BatchHypothesis:
    """One way in which running statistics may have come about.

    Attributes:
        batch_size: images per batch.
        momentum: weight of the new batch.
        likelihood: logarithm, comparable between hypotheses of one model.
        misfit: mean square deviation in units of what it predicts, at the worst layer; 1 is perfect.
    """

    batch_size: int
    momentum: float
    likelihood: float
    misfit: float

    @property
    def fits(self) -> bool:
        return self.misfit < _GOOD_FIT

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
    """

    mean: Array64
    variance: Array64
    mean_spread: Array64
    variance_spread: Array64
    error: float


def simulated(data: LayerData) -> Prediction:
    """From batches of that very size."""
    b = data.batches
    return Prediction(
        b.mean,
        b.variance,
        b.mean_spread,
        b.variance_spread,
        1.0 / max(b.batches, 1),
    )


def assumed(moments: ChannelMoments, batch_size: int) -> Prediction:
    """From the spread over single images, for batches whose own statistics hardly differ."""
    return Prediction(
        moments.mean,
        moments.variance,
        moments.between / batch_size,
        moments.variance_spread / batch_size,
        batch_size / max(moments.images, 1),
    )


def rank(layers: Sequence[LayerData], simulations: dict[int, Sequence[LayerData]]) -> list[BatchHypothesis]:
    """All hypotheses: first those that fit, each group with the likeliest first.

    Channels of a layer move together, and so do layers, so the likelihood alone is too sure of itself.

    Args:
        layers: the main pass.
        simulations: the layers as given in batches of other sizes, by batch size.
    """
    found = []
    predictions = {size: [simulated(data) for data in given] for size, given in simulations.items() if given}
    predictions |= {size: [assumed(data.training, size) for data in layers] for size in ASSUMED}
    for size, predicted in predictions.items():
        for momentum in MOMENTA:
            found.append(_weigh(layers, predicted, size, momentum))
    return sorted(found, key=lambda hypothesis: (not hypothesis.fits, -hypothesis.likelihood))


def _weigh(
    layers: Sequence[LayerData],
    predictions: Sequence[Prediction],
    batch_size: int,
    momentum: float,
) -> BatchHypothesis:
    likelihood, misfit = 0.0, 0.0
    for data, predicted in zip(layers, predictions, strict=True):
        layer = data.layer
        running = layer.var + layer.epsilon
        expected = predicted.variance + layer.epsilon
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
    return BatchHypothesis(batch_size, momentum, likelihood, misfit)
