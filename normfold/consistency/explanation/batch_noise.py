"""Whether running statistics are what a running average over batches of some size and momentum would be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.consistency.explanation.image_scatter import ImageScatter
from normfold.consistency.measurement import LayerData
from normfold.consistency.statistics import ChannelMoments

SIMULATED = (2, 4, 8)
"""Batch sizes at which layers are given something else, each batch being normalised by itself."""

ASSUMED = (16, 32, 64, 128)
MOMENTA = (0.01, 0.1, 0.9)
"""Weight of the new batch: PyTorch's default is 0.1, that of Keras 0.01; 0.9 is the wrong way round."""

TINY_BATCH = 4

FEWEST_IMAGES = SIMULATED[0] * (2 - MOMENTA[-1]) / MOMENTA[-1]
"""That any running average here stands for."""

_HEAVY_TAIL = 4.0
_VOTES = 20

_HONEST_FIT, _TINY_FIT, _WORST_FIT = 1.6, 2.0, 4.0
_CLEARLY_LIKELIER = 30.0
_STATED_IMAGES = 400
"""Below this, a file that says that the new batch weighs most is believed."""


@dataclass(frozen=True)
class BatchHypothesis:
    """One way in which running statistics may have come about.

    Attributes:
        batch_size: images per batch.
        momentum: weight of the new batch.
        likelihood: logarithm, comparable between hypotheses of one model.
        misfit: mean square deviation in units of what it predicts, over all layers; 1 is perfect, less is
            less scatter than predicted.
        worst: the same at the worst layer.
    """

    batch_size: int
    momentum: float
    likelihood: float
    misfit: float
    worst: float

    @property
    def is_short(self) -> bool:
        """Whether the average is over the last few batches alone."""
        return self.momentum > 0.5

    @property
    def is_tiny(self) -> bool:
        return not self.is_short and self.batch_size <= TINY_BATCH

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
    """All hypotheses, the likeliest first.

    Args:
        layers: the main pass.
        simulations: the layers as given in batches of other sizes, by batch size.
    """
    predictions = {size: [simulated(data) for data in given] for size, given in simulations.items() if given}
    predictions |= {size: [assumed(data.training, size) for data in layers] for size in ASSUMED}
    found = [
        _weigh(layers, predicted, size, momentum)
        for size, predicted in predictions.items()
        for momentum in MOMENTA
    ]
    return sorted(found, key=lambda hypothesis: -hypothesis.likelihood)


def choose(
    ranked: Sequence[BatchHypothesis], stated: float, scatter: ImageScatter | None
) -> BatchHypothesis | None:
    """The hypothesis to believe, ``None`` where none explains the scatter.

    Channels of a layer move together, and so do layers, so the likelihood alone is too sure of itself: it
    decides between batches, and the fit whether honest training is enough of an explanation.

    Args:
        ranked: the likeliest first.
        stated: weight of the new batch that the file states.
        scatter: how far the first layers are off, where that could be told: noise that does not explain it is
            not to blame.
    """
    noise = _possible(ranked, scatter)
    shorts = [h for h in noise if h.is_short and h.misfit < _TINY_FIT and h.worst < _WORST_FIT]
    short = _first(h for h in shorts if h.misfit < _HONEST_FIT)
    tiny = _first(h for h in noise if h.is_tiny and h.misfit < _TINY_FIT)
    honest = _first(
        h for h in ranked if not (h.is_short or h.is_tiny) and h.misfit < _HONEST_FIT and h.worst < _WORST_FIT
    )
    if short is not None and stated > 0.5:
        return short
    if (
        tiny is not None
        and (honest is None or tiny.likelihood > honest.likelihood)
        and (not shorts or tiny.likelihood > shorts[0].likelihood + _CLEARLY_LIKELIER)
    ):
        return tiny
    return honest or short or (_first(shorts) if tiny is not None else None)


def rival(
    chosen: BatchHypothesis, ranked: Sequence[BatchHypothesis], scatter: ImageScatter | None
) -> BatchHypothesis | None:
    """Training with tiny batches, where it explains the scatter as well as the last few batches alone do."""
    return _first(
        h
        for h in _possible(ranked, scatter)
        if chosen.is_short
        and h.is_tiny
        and h.misfit < _TINY_FIT
        and h.likelihood > chosen.likelihood - _CLEARLY_LIKELIER
    )


def _possible(ranked: Sequence[BatchHypothesis], scatter: ImageScatter | None) -> list[BatchHypothesis]:
    return [h for h in ranked if scatter is None or scatter.explained_by(h.images)]


def _first(hypotheses: Iterable[BatchHypothesis]) -> BatchHypothesis | None:
    return next(iter(hypotheses), None)


def stated_weight(layers: Sequence[LayerData]) -> float:
    """Weight of the new batch by the nodes' ``momentum``, which is that of the old: the median; 0 without.

    torch's exporters write 1 − momentum. Alone it proves nothing, as converters copy it from frameworks where
    it means the opposite.
    """
    found = [weight for data in layers if (weight := data.layer.stated_weight) is not None]
    return float(np.median(found)) if found else 0.0


def effective_images(layers: Sequence[LayerData]) -> float | None:
    """Images whose average would scatter like the running statistics; ``None`` where too many to tell.

    Args:
        layers: the main pass.
    """
    squares = []
    for data in layers:
        layer, moments = data.layer, data.training
        for deviation, spread in (
            (layer.mean - moments.mean, moments.between),
            (layer.var - moments.variance, moments.variance_spread),
        ):
            squares.append(float((np.square(deviation) / np.maximum(spread, 1e-12)).mean()))
    sampling = 1.0 / max(min(data.training.images for data in layers), 1)
    scatter = float(np.mean(squares))
    if scatter < max(1.0 / _STATED_IMAGES + sampling, 1.8 * sampling):
        return None
    return 1.0 / (scatter - sampling)


def _weigh(
    layers: Sequence[LayerData],
    predictions: Sequence[Prediction],
    batch_size: int,
    momentum: float,
) -> BatchHypothesis:
    likelihood = 0.0
    misfits = []
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
            misfits.append(float(square.mean()))
    return BatchHypothesis(batch_size, momentum, likelihood, float(np.mean(misfits)), max(misfits))
