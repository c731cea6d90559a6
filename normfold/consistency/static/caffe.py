"""Caffe's statistics are sums: a converter must divide them by the layer's third blob.

One that forgets it leaves means and variances too large by one factor, about 1000 after long training with
the default moving_average_fraction of 0.999. What they ought to be can be told from the model: in training
a layer's output had mean β and variance γ² whatever its statistics say, and the operators up to the next
layer make of that a mean which is good to some ten percent (``moments``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from normfold.consistency.layers import NormLayer
from normfold.consistency.static.moments import Moments, moments_of
from normfold.consistency.static.subject import Subject
from normfold.reporting.report import Finding

_LEAST_FACTOR = 8.0
_LEAST_CHANNELS = 4
_LEAST_COSINE = 0.8
# A predicted variance leaves out what neighbouring pixels and channels have in common.
_VARIANCE_SLACK = 30.0


@dataclass(frozen=True)
class _Fit:
    """How the running statistics of a layer compare with those that the layers in front produce.

    Attributes:
        mean: factor that takes the predicted means to the running means, by least squares.
        cosine: how well it does.
        variance: median of running over predicted variance.
    """

    mean: float
    cosine: float
    variance: float


def undivided_sums(subject: Subject) -> Iterator[Finding]:
    """NF315: means and variances alike are too large by one factor in most layers that can be judged."""
    cache: dict[str, Moments | None] = {}
    fits = [(layer, fit) for layer in subject.evaluated if (fit := _fit(layer, subject, cache)) is not None]
    guilty = [(layer, fit) for layer, fit in fits if _is_sum(fit)]
    if not guilty or 2 * len(guilty) <= len(fits):
        return
    factor = float(np.median([fit.mean for _, fit in guilty]))
    worst = ", ".join(
        f"{layer.site} (means ×{fit.mean:.3g}, variances ×{fit.variance:.3g})" for layer, fit in guilty[:3]
    )
    yield Finding(
        "NF315",
        "info",
        f"running means and variances are about {factor:.3g} times what the layers in front produce, in "
        f"{len(guilty)} of "
        f"{len(fits)} layers that can be judged: {worst}",
        guilty[0][0].site if len(subject.evaluated) == 1 else None,
    )


def _is_sum(fit: _Fit) -> bool:
    ratio = fit.variance / fit.mean if fit.mean > 0 else 0.0
    return (
        fit.mean > _LEAST_FACTOR
        and fit.cosine > _LEAST_COSINE
        and 1 / _VARIANCE_SLACK < ratio < _VARIANCE_SLACK
    )


def _fit(layer: NormLayer, subject: Subject, cache: dict[str, Moments | None]) -> _Fit | None:
    if layer.channels < _LEAST_CHANNELS:
        return None
    found = moments_of(layer.node.inputs[0], subject, cache)
    if found is None or found.mean.size != layer.channels:
        return None
    finite = np.isfinite(layer.mean).all() and np.isfinite(layer.var).all()
    square, length = float(found.mean @ found.mean), float(np.linalg.norm(layer.mean))
    judged = (found.var > 0) & (layer.var > 0)
    if not finite or square == 0 or length == 0 or not judged.any():
        return None
    product = float(found.mean @ layer.mean)
    return _Fit(
        mean=product / square,
        cosine=product / (np.sqrt(square) * length),
        variance=float(np.median(layer.var[judged] / found.var[judged])),
    )
