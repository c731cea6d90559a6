"""Channels that are blown up, and channels that say nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer
from normfold.consistency.static.subject import Subject, channel_list, is_op
from normfold.reporting.report import Finding

MOST_AMPLIFICATION = 1e4
# Next to the loudest channel of its layer, a channel below this vanishes in float32.
_QUIET = 1e-7
# By Chebyshev at most 1 % of anything, and of a normal distribution 1e-23, lies 10 standard deviations up.
_DEVIATIONS = 10.0


def amplified_channels(subject: Subject) -> Iterator[Finding]:
    """NF310: |γ| / √(var + epsilon) above ``MOST_AMPLIFICATION``."""
    for layer in subject.evaluated:
        with np.errstate(invalid="ignore"):
            factor = np.abs(layer.inverse)
            mask = np.isfinite(factor) & (factor > MOST_AMPLIFICATION)
        if mask.any():
            worst = int(np.argmax(np.where(mask, factor, 0.0)))
            yield Finding(
                "NF310",
                "warn",
                f"{layer.site}: {channel_list(mask)} amplified by more than {MOST_AMPLIFICATION:.0e}, most "
                "by "
                f"{factor[worst]:.3g} in channel {worst} (scale {layer.gamma[worst]:.3g}, running variance "
                f"{layer.var[worst]:.3g}, epsilon {layer.epsilon:.3g})",
                layer.site,
            )


def dead_channels(subject: Subject) -> Iterator[Finding]:
    """NF313: constant behind the normalisation, or shut by the Relu behind it."""
    for layer in subject.evaluated:
        if not all(np.isfinite(a).all() for a in (layer.gamma, layer.beta, layer.var)):
            continue
        zero, still, shut = layer.gamma == 0, layer.var == 0, _shut(layer)
        deviation = _deviation(layer)
        quiet = (deviation < _QUIET * deviation.max(initial=0.0)) & ~zero & (layer.var > 0)
        parts = [
            f"{why} in {channel_list(mask)}"
            for why, mask in (
                ("scale is 0", zero),
                ("running variance is 0", still & ~zero),
                ("scale is next to nothing", quiet),
                ("the Relu behind never opens", shut & ~zero & ~still & ~quiet),
            )
            if mask.any()
        ]
        if parts:
            yield Finding("NF313", "info", f"{layer.site}: {'; '.join(parts)}", layer.site)


def _deviation(layer: NormLayer) -> Array64:
    """Standard deviation of the output that the running statistics promise, shape ``[channels]``."""
    var = np.maximum(layer.var, 0.0)
    return np.abs(layer.gamma) * np.sqrt(var / np.maximum(var + layer.epsilon, np.finfo(np.float64).tiny))


def _shut(layer: NormLayer) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Channels that the Relu behind sets to 0 for whatever is not ten standard deviations out."""
    y = layer.node.outputs[0]
    readers = [use.node for use in y.uses()]
    if not readers or y.is_graph_output() or not all(is_op(node, "Relu") for node in readers):
        return np.zeros(layer.channels, dtype=bool)
    return layer.beta + _DEVIATIONS * _deviation(layer) <= 0
