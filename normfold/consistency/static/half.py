"""What float16 would make of the weights, once the normalisations are folded into them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer
from normfold.consistency.static.linear import linear_before
from normfold.consistency.static.subject import Subject, channel_list, largest
from normfold.reporting.report import Finding

_LARGEST = 65504.0
_SMALLEST_NORMAL = 2.0**-14


def beyond_float16(subject: Subject) -> Iterator[Finding]:
    """NF311 and NF312."""
    for layer in subject.evaluated:
        scale = layer.inverse
        with np.errstate(all="ignore"):
            shift = layer.beta - layer.mean * scale
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            continue
        weight, bias, holder = _folded(layer, scale, shift, subject)
        over = (weight > _LARGEST) | (np.abs(bias) > _LARGEST)
        if over.any():
            yield Finding(
                "NF311",
                "info",
                f"{layer.site}: folded into {holder}, {channel_list(over)} beyond float16: largest weight "
                f"{largest(weight[over]):.3g}, largest bias {largest(bias[over]):.3g}, float16 ends at 65504",
                layer.site,
            )
        under = (weight > 0) & (weight < _SMALLEST_NORMAL)
        if under.any():
            yield Finding(
                "NF312",
                "info",
                f"{layer.site}: folded into {holder}, {channel_list(under)} subnormal in float16: largest "
                "weight "
                f"{weight[under].min():.3g} in the quietest, float16 is exact from {_SMALLEST_NORMAL:.3g} on",
                layer.site,
            )


def _folded(
    layer: NormLayer, scale: Array64, shift: Array64, subject: Subject
) -> tuple[Array64, Array64, str]:
    """Largest weight and the bias of each channel after folding, and what holds them."""
    linear = linear_before(layer.node.inputs[0], subject)
    if linear is None or linear.weight.shape[0] != layer.channels:
        return np.abs(scale), shift, "an affine"
    high = linear.weight.max(axis=(1, 2), initial=0.0).astype(np.float64)
    low = linear.weight.min(axis=(1, 2), initial=0.0).astype(np.float64)
    weight = np.maximum(high, -low) * np.abs(scale)
    return weight, scale * linear.bias + shift, f"{linear.node.op_type} {linear.node.outputs[0].name}"
