"""Whether statistics that were calibrated on a known number of images are no further off than that explains.

Nothing is assumed of how noise spreads: images are drawn from the data with replacement, the model is
calibrated on as many as the record says, and held against others. That holds for layers that see a single
element per image, for channels that few images reach, and for what layers above make of their own noise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.consistency.departure import LEAST_LOG_RATIO, LEAST_Z, images_behind, rms
from normfold.consistency.explanation.causes import Compared, compare
from normfold.consistency.layers import NormLayer
from normfold.consistency.measurement import Measured, measure_layers
from normfold.consistency.statistics import Batch, ChannelMoments, image_count, rebatched
from normfold.consistency.training import running_layers

_REPLICATES = 10
_TOLERANCE = 2.0
"""Over the worst replicate: they are few, and drawn from few images."""

_MOST_Z, _MOST_LOG_RATIO = 1.0, float(np.log(10.0))
"""A channel counts no further than this, so that one that few images reach does not outweigh the others."""


def explained_by_calibration(measured: Measured, compared: Sequence[Compared], deadline: float) -> str | None:
    """Says that the departures are those of a fresh calibration, ``None`` where they are not, or may be.

    Args:
        measured: the pass over the data.
        compared: its layers.
        deadline: no other replicate is begun after this moment of ``time.monotonic()``.
    """
    counts = [images_behind(c.data.layer) for c in compared if c.departs and c.data.layer.images is not None]
    images = _joined(measured.samples)
    if images is None or len(counts) < sum(c.departs for c in compared):
        return None
    rng = np.random.default_rng(0)
    limits: list[tuple[float, float]] = []
    for _ in range(_REPLICATES):
        if limits and time.monotonic() > deadline:
            break
        calibrated = _calibrated(measured, _drawn(images, min(counts), rng))
        others = rebatched([_drawn(images, measured.images, rng)], measured.batch_size)
        again = compare(
            measure_layers(
                calibrated,
                others,
                measured.batch_size,
                opened=replace(measured.opened, model=calibrated),
            )
        )
        if len(again) != len(compared):
            return None
        found = [_size(c) for c in again]
        limits = [_larger(*pair) for pair in zip(limits, found, strict=True)] if limits else found
    for c, limit in zip(compared, limits, strict=True):
        allowed = [
            max(_TOLERANCE * most, least)
            for most, least in zip(limit, (LEAST_Z, LEAST_LOG_RATIO), strict=True)
        ]
        if c.departs and any(not own <= most for own, most in zip(_size(c), allowed, strict=True)):
            return None
    return f"calibration on {min(counts)} images leaves its statistics as far off, tried on these"


def _joined(samples: Sequence[Batch]) -> Batch | None:
    """All of them as one batch; ``None`` where they do not fit together."""
    groups = list(rebatched(samples, sum(image_count(sample) for sample in samples)))
    return groups[0] if len(groups) == 1 else None


def _drawn(images: Batch, number: int, rng: np.random.Generator) -> Batch:
    """As many images, drawn with replacement."""
    count = image_count(images)
    chosen = rng.integers(0, count, number)
    return {
        name: array[chosen] if np.ndim(array) and np.shape(array)[0] == count else array
        for name, array in images.items()
    }


def _calibrated(measured: Measured, images: Batch) -> ir.Model:
    """A copy with the statistics of these images, each layer behind others that have them already."""
    found = measure_layers(
        measured.opened.model,
        rebatched([images], measured.batch_size),
        measured.batch_size,
        opened=measured.opened,
        deployment=False,
    )
    copy = measured.opened.model.clone()
    for layer, data in zip(running_layers(copy), found.layers, strict=True):
        if not data.training.images:
            continue
        for slot, values in ((3, data.training.mean), (4, data.training.variance)):
            old = layer.node.inputs[slot]
            assert old is not None
            tensor = ir.tensor(values.astype((old.dtype or ir.DataType.FLOAT).numpy()))
            value = ir.Value(name=f"{layer.site}:drawn{slot}", const_value=tensor)
            value.dtype, value.shape = tensor.dtype, ir.Shape(values.shape)
            copy.graph.register_initializer(value)
            layer.node.replace_input_with(slot, value)
    return copy


def _size(c: Compared) -> tuple[float, float]:
    """How far the layer's own statistics are off: in deployment those of the layers above show too."""
    found, moments = (
        (c.training, c.data.training) if c.judged_in_training else (c.deployment, c.data.deployment)
    )
    channels = _varying(c.data.layer, moments)
    return (
        rms(np.clip(found.z[channels], -_MOST_Z, _MOST_Z)),
        rms(np.clip(found.log_variance_ratio[channels], -_MOST_LOG_RATIO, _MOST_LOG_RATIO)),
    )


def _varying(layer: NormLayer, moments: ChannelMoments) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Channels that vary more than epsilon lets show, in the data or by the statistics.

    Another is a constant, which an image that is not among these may have moved: nothing tells by how much.
    """
    return np.maximum(layer.var, moments.variance) > layer.epsilon


def _larger(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), max(one[1], other[1])
