"""Whether running means are off in the directions in which images differ, and by how many images' average.

The mean of a few images is off along what images vary in, all channels together: little where they never
differ. Statistics of other weights, of another domain, or of too few updates are off in any direction, and a
measure that knows the covariance of the channels sees that where channels one by one do not. The first layers
are judged: what they are given does not depend on the statistics of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.intake import Intake
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import Batch

_LEAST_IMAGES, _IMAGES_PER_CHANNEL = 32, 6
_RIDGE = 0.01
"""Share of a channel's variance taken for noise of other origin: weights move, float32 rounds."""

_NORMAL_QUANTILE = 3.1
_NOT_NORMAL = 2.0


@dataclass(frozen=True)
class ImageScatter:
    """How far the running means of the first layers are off, in units of one image's variance.

    Attributes:
        square: squared Mahalanobis distance from the mean of the data, over ``freedom``.
        freedom: independent directions that it counts.
        images: that the covariance and the mean of the data are of.
    """

    square: float
    freedom: float
    images: int

    def explained_by(self, images: float) -> bool:
        """Whether the average of so many images is as far off, one time in a thousand at the least."""
        expected = 1.0 / images + 1.0 / self.images
        # Wilson and Hilferty's quantile of chi-squared over its freedom.
        part = 2.0 / (9.0 * self.freedom)
        most = (1.0 - part + _NORMAL_QUANTILE * math.sqrt(part)) ** 3
        return self.square <= _NOT_NORMAL * most * expected


def image_scatter(
    model: ir.Model, layers: Sequence[NormLayer], samples: Sequence[Batch]
) -> ImageScatter | None:
    """Measures it; ``None`` where too few images or directions tell.

    Args:
        model: takes the samples' batch sizes.
        layers: the first layers; see ``order.first_layers``.
        samples: some of the data.

    Raises:
        NotCovered: the model cannot be evaluated.
    """
    means: list[list[Array64]] = [[] for _ in layers]
    intake = Intake(model, layers)
    for sample in samples:
        intake.run(sample, lambda index, found: means[index].append(found.mean))
    squares, freedom, least = 0.0, 0.0, math.inf
    for layer, parts in zip(layers, means, strict=True):
        observed = np.concatenate(parts) if parts else np.zeros((0, layer.channels))
        finite = np.isfinite(observed).all() and np.isfinite(layer.mean).all()
        if len(observed) < _LEAST_IMAGES or not finite:
            continue
        square, directions = _distance(observed, layer.mean)
        squares, freedom, least = squares + square, freedom + directions, min(least, len(observed))
    if freedom < 1.0:
        return None
    return ImageScatter(squares / freedom, freedom, int(least))


def _distance(observed: Array64, mean: Array64) -> tuple[float, float]:
    """Squared distance of ``mean`` from that of ``observed``, ``[N, C]``, and the directions in it."""
    images = len(observed)
    deviation = observed.std(axis=0, ddof=1)
    varying = np.flatnonzero(deviation > 1e-6 * np.abs(observed).max(axis=0))
    # As many channels as so few images tell a covariance of.
    count = min(len(varying), images // _IMAGES_PER_CHANNEL)
    chosen = varying[np.linspace(0, len(varying) - 1, count).round().astype(int)]
    if not count:
        return 0.0, 0.0
    scaled = (observed[:, chosen] - observed[:, chosen].mean(axis=0)) / deviation[chosen]
    covariance = scaled.T @ scaled / (images - 1)
    off = (mean[chosen] - observed[:, chosen].mean(axis=0)) / deviation[chosen]
    ridged = covariance + _RIDGE * np.eye(count)
    directions = float(np.trace(np.linalg.solve(ridged, covariance)))
    # The inverse of a covariance of few images is too large by this factor.
    excess = images / max(images - directions - 2.0, 1.0)
    return float(off @ np.linalg.solve(ridged, off)) / excess, directions
