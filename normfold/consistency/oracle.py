"""The train-mode oracle: what the model computes with batch statistics, and how far that is from evaluation.

Everything runs in float64. onnxruntime is of no use here: its kernel for training updates running statistics
in place, and with them whatever initializer its optimiser merged with them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.intake import Intake, is_per_channel
from normfold.consistency.layers import NormLayer, inlined
from normfold.consistency.statistics import Batch, image_count, output_names, rebatched
from normfold.consistency.training import (
    OpenBatch,
    open_batch,
    running_layers,
    with_batch_statistics,
)
from normfold.errors import InputError
from normfold.evaluation import Evaluator, NotCovered

BATCH_SIZES = (1, 2, 8, 64)
MOST_IMAGES = 128
"""Images that a gap is measured on; it is an average, and converges soon."""


@dataclass(frozen=True)
class OutputGap:
    """How far one output in training mode is from evaluation, at one batch size.

    Attributes:
        output: its name.
        batch_size: images that shared their statistics.
        images: images compared.
        largest: largest absolute difference.
        rms: root mean square of the difference.
        relative: ``rms`` divided by the standard deviation of the output in evaluation.
        flips: share of positions whose largest score is another one; ``None`` where the output is not scores.
    """

    output: str
    batch_size: int
    images: int
    largest: float
    rms: float
    relative: float
    flips: float | None


@dataclass(frozen=True)
class LayerShare:
    """What one layer alone does to the outputs when it takes batch statistics and all others stay.

    Attributes:
        site: name of its output value.
        relative: root mean square change of each output, relative to its standard deviation, by name.
    """

    site: str
    relative: dict[str, float]

    @property
    def largest(self) -> float:
        """The largest relative change over the outputs; infinite where one is not finite."""
        values = list(self.relative.values())
        return max((v if math.isfinite(v) else math.inf for v in values), default=0.0)


@dataclass
class TrainEvalGap:
    """What the oracle found.

    Attributes:
        gaps: one for each output and batch size.
        layers: the share of each layer, largest first, at the largest batch size.
        batch_dependence: for each output, the largest difference in evaluation between an image among others
            and the same image alone, relative to the largest value; empty where the batch size is fixed.
        relaxed: Reshapes whose baked-in batch size was relaxed.
        notes: what could not be measured, and why.
    """

    gaps: list[OutputGap] = field(default_factory=list)
    layers: list[LayerShare] = field(default_factory=list)
    batch_dependence: dict[str, float] = field(default_factory=dict)
    relaxed: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def train_mode(
    model: ir.Model, inputs: Batch, sites: Collection[str] | None = None, outputs: Sequence[str] | None = None
) -> dict[str, Any]:
    """Evaluates a model in float64 with the statistics of this batch.

    Args:
        model: is not changed.
        inputs: arrays by input name; axis 0 counts the images that share their statistics.
        sites: output values of the layers that use batch statistics; ``None`` is all of the main graph.
        outputs: values wanted; the graph outputs by default.

    Returns:
        The values in float64, by name.

    Raises:
        NotCovered: the model cannot be evaluated.
    """
    return Evaluator(with_batch_statistics(inlined(model), sites)).run(inputs, outputs)


def measure_gap(
    model: ir.Model,
    batches: Iterable[Batch],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    most_images: int = MOST_IMAGES,
    budget_seconds: float = 60.0,
    opened: OpenBatch | None = None,
) -> TrainEvalGap:
    """Compares training mode with evaluation at several batch sizes, and layer by layer.

    Costs one evaluation and one training-mode pass over the images per batch size, and one largest batch
    per layer; what the budget does not reach is named in ``notes``.

    Args:
        model: is not changed.
        batches: inputs; axis 0 counts images.
        batch_sizes: numbers of images that share their statistics.
        most_images: images used.
        budget_seconds: time after which no other batch size or layer is begun; the largest batch is measured
            in any case.
        opened: the model with an open batch axis, where the caller has it already.

    Raises:
        InputError: there is no image, or the model does not run on the data.
    """
    deadline = time.monotonic() + budget_seconds
    images = _some(batches, most_images)
    try:
        opened = opened or open_batch(inlined(model), images[0])
        return _measure(opened, images, batch_sizes, deadline)
    except NotCovered as error:
        raise InputError(f"the model cannot be evaluated on the data: {error}") from error


def _some(batches: Iterable[Batch], most: int) -> list[Batch]:
    taken: list[Batch] = []
    count = 0
    for batch in batches:
        taken.append(batch)
        count += image_count(batch)
        if count >= most:
            break
    if not count:
        raise InputError("the data holds no sample")
    return taken


def _measure(
    opened: OpenBatch, images: list[Batch], batch_sizes: Sequence[int], deadline: float
) -> TrainEvalGap:
    result = TrainEvalGap(relaxed=opened.relaxed)
    total = sum(image_count(batch) for batch in images)
    sizes = [size for size in batch_sizes if size <= total]
    if opened.closed is not None:
        sizes = [image_count(images[0])]
        result.notes.append(f"only batch size {sizes[0]} was measured: {opened.closed}")
    elif missing := [size for size in batch_sizes if size > total]:
        result.notes.append(
            f"batch size {', '.join(map(str, missing))}: the data holds {total} image{'s' * (total != 1)}"
        )
    if opened.closed is None and sizes and (fitting := opened.within_memory(max(sizes))) < max(sizes):
        result.notes.append(f"batch size {max(sizes)}: {fitting} instead, to spare memory")
        sizes = sorted({min(size, fitting) for size in sizes})
    evaluation, training = Evaluator(opened.model), Evaluator(with_batch_statistics(opened.model))
    if opened.closed is None:
        result.batch_dependence = _batch_dependence(evaluation, images[0])
    layers = running_layers(opened.model)
    share = max(deadline - time.monotonic(), 0.0) / (2 * max(len(sizes), 1))
    largest: tuple[list[Batch], list[dict[str, Any]]] = [], []
    skipped = []
    for size in sorted(sizes, reverse=True):
        if largest[0] and time.monotonic() > deadline:
            skipped.append(size)
            continue
        groups: list[Batch] = []
        references: list[dict[str, Any]] = []
        outputs: list[dict[str, Any]] = []
        began = time.monotonic()
        for group in rebatched(images, size):
            if image_count(group) < size or (groups and time.monotonic() > began + share):
                break
            groups.append(group)
            references.append(evaluation.run(group))
            outputs.append(training.run(group))
        if not groups:
            result.notes.append(f"batch size {size}: the data hold no so many images of one size in a row")
            continue
        if not largest[0]:
            largest = groups, references
        result.gaps += [
            output_gap(name, size, references, outputs) for name in _floating(opened.model, references[0])
        ]
        if size == 1 and _normalises_single_elements(opened.model, layers, groups[0]):
            result.notes.append(
                "batch size 1: a layer normalises single elements there, which frameworks refuse to train"
            )
    if skipped:
        result.notes.append(f"batch size {', '.join(map(str, skipped))}: out of time")
    result.gaps.sort(key=lambda gap: gap.batch_size)
    groups, references = largest[0][:1], largest[1][:1]
    if not groups:
        return result
    left = 0
    for layer in layers:
        if time.monotonic() > deadline:
            left += 1
            continue
        alone = Evaluator(with_batch_statistics(opened.model, {layer.site}))
        outputs = [alone.run(group) for group in groups]
        names = _floating(opened.model, references[0])
        result.layers.append(
            LayerShare(
                layer.site,
                {
                    name: output_gap(name, image_count(groups[0]), references, outputs).relative
                    for name in names
                },
            )
        )
    if left:
        result.notes.append(f"the share of {left} of {len(layers)} layers was not measured: out of time")
    if any(not is_per_channel(layer) for layer in layers):
        result.notes.append("layers with spatial = 0 normalise every element over the images alone")
    result.layers.sort(key=lambda share: -share.largest)
    return result


def _floating(model: ir.Model, values: dict[str, Any]) -> list[str]:
    return [
        name
        for name in output_names(model)
        if isinstance(values[name], np.ndarray) and values[name].dtype.kind == "f"
    ]


def _normalises_single_elements(model: ir.Model, layers: Sequence[NormLayer], batch: Batch) -> bool:
    elements: list[float] = []
    Intake(model, layers).run(
        batch, lambda index, found: None, lambda index, found: elements.append(found.images * found.elements)
    )
    return 1 in elements


def _batch_dependence(evaluation: Evaluator, batch: Batch) -> dict[str, float]:
    count = image_count(batch)
    if count < 2:
        return {}
    (alone,) = islice(rebatched([batch], 1), 1)
    together, single = evaluation.run(batch), evaluation.run(alone)
    result = {}
    for name, value in together.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape[:1] == (count,):
            finite = np.isfinite(value)
            # What is no number either way is the same.
            same = (value[:1] == single[name]) | (np.isnan(value[:1]) & np.isnan(single[name]))
            change = np.where(same, 0.0, np.abs(value[:1] - single[name]))
            scale = float(np.max(np.abs(value), initial=0.0, where=finite)) or 1.0
            result[name] = float(np.max(change, initial=0.0)) / scale
    return result


def output_gap(
    name: str, batch_size: int, references: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> OutputGap:
    """Compares one output over groups of images.

    Args:
        name: of the output.
        batch_size: images per group.
        references: the outputs of each group that are compared to.
        outputs: the outputs of each group.
    """
    largest, squares, count, flipped, positions = 0.0, 0.0, 0, 0, 0
    mean, scatter = 0.0, 0.0
    for reference, output in zip(references, outputs, strict=True):
        a, b = reference[name], output[name]
        difference = np.abs(b - a)
        largest = max(largest, float(np.max(difference, initial=0.0)))
        squares += float(np.square(difference).sum())
        step = float(a.mean()) - mean if a.size else 0.0
        scatter += float(np.square(a - a.mean()).sum()) if a.size else 0.0
        scatter += step * step * count * a.size / max(count + a.size, 1)
        count += a.size
        mean += step * a.size / max(count, 1)
        axis = score_axis(a)
        if axis is not None:
            changed = a.argmax(axis) != b.argmax(axis)
            flipped += int(changed.sum())
            positions += changed.size
    rms = math.sqrt(squares / max(count, 1))
    deviation = math.sqrt(scatter / max(count, 1))
    return OutputGap(
        name,
        batch_size,
        batch_size * len(references),
        largest,
        rms,
        _relative(rms, deviation),
        flipped / positions if positions else None,
    )


def _relative(rms: float, deviation: float) -> float:
    """NaN where an output is no number; infinite where a constant one moves."""
    if math.isnan(rms) or math.isnan(deviation):
        return math.nan
    if deviation > 0:
        return rms / deviation
    return 0.0 if rms == 0 else math.inf


def score_axis(output: Array64) -> int | None:
    """The axis of class scores: axis 1 of ``[N, K]`` and ``[N, K, H, W]``, the last of ``[N, L, K]``."""
    if output.ndim not in (2, 3, 4):
        return None
    axis = 2 if output.ndim == 3 else 1
    return axis if output.shape[axis] >= 2 else None
