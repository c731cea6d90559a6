"""Whether another preparation of the inputs would bring the first layers to their running statistics.

Nothing is inferred from patterns: every candidate is applied to the data and the first layers are computed
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.departure import LEAST_LOG_RATIO, LEAST_Z, Departure, departure
from normfold.consistency.intake import Intake, channels_first
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import Batch, ChannelMoments, image_count
from normfold.evaluation import EvaluationFailed, Evaluator

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])

_BETTER = 8.0
"""How many times smaller the divergence has to become."""

_NOISE = 3.0

_BYTES = 4.0
"""Values beyond are on the scale of 0 to 255."""

Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Candidate:
    """One preparation of an input.

    Attributes:
        code: NF346 range, NF347 mean and standard deviation, NF348 channel order.
        text: what it does to the data as given.
        change: does it.
    """

    code: str
    text: str
    change: Change


@dataclass(frozen=True)
class Preparation:
    """A candidate that explains the departure.

    Attributes:
        candidate: the preparation.
        input: name of the model's input.
        before: mean divergence at the first layers with the data as given, in nats.
        after: the same with the candidate.
    """

    candidate: Candidate
    input: str
    before: float
    after: float


def find_preparation(
    model: ir.Model, layers: Sequence[NormLayer], samples: Sequence[Batch]
) -> Preparation | None:
    """The candidate after which the first layers agree with their statistics; ``None`` if there is none.

    Args:
        model: takes the samples' batch sizes.
        layers: the first layers; see ``order.first_layers``.
        samples: some of the data.
    """
    intake = Intake(model, layers)
    before = _divergence(intake, layers, samples)
    if before is None:
        return None
    best: Preparation | None = None
    for name in _floating_inputs(samples[0]):
        for candidate in _candidates([np.asarray(sample[name]) for sample in samples], layers):
            changed = [_with(sample, name, candidate) for sample in samples]
            after = _divergence(intake, layers, changed)
            if after is None or not _agrees(after) or _total(after) * _BETTER > _total(before):
                continue
            # The plainest explanation stands first; another must be clearly better.
            if best is None or _total(after) * 2 < best.after:
                best = Preparation(candidate, name, _total(before), _total(after))
    return best


def _floating_inputs(sample: Batch) -> Iterator[str]:
    images = image_count(sample)
    for name, array in sample.items():
        if array.dtype.kind in "fu" and array.ndim >= 2 and array.shape[0] == images:
            yield name


def _with(sample: Batch, name: str, candidate: Candidate) -> dict[str, Any]:
    array = np.asarray(sample[name])
    return {**sample, name: candidate.change(array.astype(np.float64))}


def _divergence(
    intake: Intake, layers: Sequence[NormLayer], samples: Iterable[Batch]
) -> list[Departure] | None:
    moments = [ChannelMoments() for _ in layers]
    for sample in samples:
        try:
            intake.run(sample, lambda index, found: moments[index].take(found))
        except EvaluationFailed:
            return None
    if not all(found.images for found in moments):
        return None
    return [departure(found, layer) for found, layer in zip(moments, layers, strict=True)]


def _total(found: Sequence[Departure]) -> float:
    return sum(d.score for d in found) / max(len(found), 1)


def _agrees(found: Sequence[Departure]) -> bool:
    return all(
        d.finite
        and d.z_rms < max(1.5 * LEAST_Z, _NOISE * float(d.z_noise.mean()))
        and d.log_variance_rms < max(1.5 * LEAST_LOG_RATIO, _NOISE * float(d.log_variance_noise.mean()))
        for d in found
    )


def _candidates(arrays: Sequence[np.ndarray[Any, Any]], layers: Sequence[NormLayer]) -> Iterator[Candidate]:
    plain = list(_scalings(arrays))
    yield from plain
    axis = _colour_axis(arrays[0])
    if axis is None:
        return

    def flipped(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.flip(x, axis)

    yield Candidate("NF348", "reversing the channels", flipped)
    for candidate in plain:
        yield Candidate(
            candidate.code,
            f"{candidate.text} and reversing the channels",
            lambda x, change=candidate.change: change(flipped(x)),  # type: ignore[misc]
        )


def _scalings(arrays: Sequence[np.ndarray[Any, Any]]) -> Iterator[Candidate]:
    yield from _ranges(min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays))
    axis = _colour_axis(arrays[0])
    if axis is not None:
        shape = [1] * arrays[0].ndim
        shape[axis] = 3
        mean, std = IMAGENET_MEAN.reshape(shape), IMAGENET_STD.reshape(shape)
        name = "the ImageNet mean and standard deviation"
        yield Candidate("NF347", f"taking out {name}", lambda x: (x - mean) / std)
        yield Candidate("NF347", f"dividing by 255 and taking out {name}", lambda x: (x / 255.0 - mean) / std)
        yield Candidate("NF347", f"putting {name} back", lambda x: x * std + mean)
        yield Candidate(
            "NF347", f"putting {name} back and multiplying by 255", lambda x: (x * std + mean) * 255.0
        )
    moments = ChannelMoments()
    for array in arrays:
        values = array.astype(np.float64).reshape(array.shape[0], 1, -1)
        moments.add(values, array.shape[0])
    centre, spread = float(moments.mean[0]), math.sqrt(float(moments.variance[0]))
    if spread > 0:
        yield Candidate(
            "NF347",
            f"taking out their mean {centre:.3g} and standard deviation {spread:.3g}",
            lambda x: (x - centre) / spread,
        )


def _ranges(low: float, high: float) -> Iterator[Candidate]:
    """Other ranges of pixels, as far as values from ``low`` to ``high`` can be meant to be such."""
    if low >= 0 and high > _BYTES:
        yield Candidate("NF346", "dividing by 255", lambda x: x / 255.0)
        yield Candidate("NF346", "bringing 0…255 to −1…1", lambda x: x / 127.5 - 1.0)
    if high <= _BYTES:
        yield Candidate("NF346", "multiplying by 255", lambda x: x * 255.0)
    if low >= 0 and high <= _BYTES:
        yield Candidate("NF346", "bringing 0…1 to −1…1", lambda x: 2.0 * x - 1.0)
    if low < 0 and high <= _BYTES:
        yield Candidate("NF346", "bringing −1…1 to 0…1", lambda x: (x + 1.0) / 2.0)
        yield Candidate("NF346", "bringing −1…1 to 0…255", lambda x: (x + 1.0) * 127.5)


def _colour_axis(array: np.ndarray[Any, Any]) -> int | None:
    if array.ndim != 4:
        return None
    return 1 if array.shape[1] == 3 else 3 if array.shape[3] == 3 else None


def explained_by_inputs(model: ir.Model, layer: NormLayer, samples: Sequence[Batch]) -> float | None:
    """Which share of the departing means other inputs would explain, where the layer is linear in its input.

    With stationary inputs of another brightness and contrast, the means of the layer's input lie on a line
    through ``f(0)``, ``f(x)`` and ``f(1)``; statistics taken with other weights do not.

    Returns:
        ``1 − residual / departure`` of the squares, adjusted for the numbers fitted; ``None`` where there is
        no one floating input, the layer is not linear in it, or it has too few channels to tell.
    """
    names = list(_floating_inputs(samples[0]))
    if len(samples[0]) != 1 or len(names) != 1 or layer.x in names or layer.within:
        return None
    name, evaluator = names[0], Evaluator(model)
    x = np.asarray(samples[0][name], dtype=np.float64)

    def means(value: np.ndarray[Any, Any]) -> Array64:
        found = channels_first(layer, evaluator.run({name: value}, [layer.x])[layer.x])
        return np.asarray(found.mean(axis=(0, *range(2, found.ndim))))

    zero, once, twice = means(np.zeros_like(x)), means(x), means(2 * x)
    if not np.isfinite(twice).all():
        return None
    if not np.allclose(twice - zero, 2 * (once - zero), rtol=1e-6, atol=1e-9 * float(np.abs(twice).max())):
        return None
    directions = [once - zero]
    channels = x.shape[1] if x.ndim > 2 and x.shape[1] <= 4 else 1
    for channel in range(channels):
        ones = np.zeros_like(x) if channels > 1 else np.ones_like(x)
        if channels > 1:
            ones[:, channel] = 1.0
        directions.append(means(ones) - zero)
    freedom = layer.channels - len(directions)
    if freedom < 2:
        return None
    weight = 1.0 / np.sqrt(layer.var + layer.epsilon)
    matrix = np.stack(directions, axis=1) * weight[:, None]
    target = (layer.mean - zero) * weight
    fitted, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    residual = float(np.square(target - matrix @ fitted).sum()) / freedom
    departing = float(np.square((layer.mean - once) * weight).sum()) / layer.channels
    return 1.0 - residual / departing if departing > 0 else None
