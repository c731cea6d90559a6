"""Models that normalise with the statistics of the batch, and with an open batch axis.

Training mode means here what it means to a BatchNormalization layer alone: ``y = γ·(x − m)/√(v + ε) + β``
with the mean ``m`` and the biased variance ``v`` of the batch. Dropout stays off.
https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.consistency.intake import is_per_channel
from normfold.consistency.layers import NormLayer, batchnorm_layers
from normfold.consistency.statistics import Batch, image_count, output_names
from normfold.evaluation import Evaluator, NotCovered
from normfold.preparation.workspace import Workspace

# The opsets whose node says by an attribute alone that it trains: 15 per channel, 6 with ``spatial = 0``.
_PER_CHANNEL, _PER_ELEMENT = 15, 6
_SAME = 1e-9

_LARGEST_VALUE, _ROUND = 256 * 1024**2, 16
_PROBES = 2


def running_layers(model: ir.Model) -> list[NormLayer]:
    """The layers that use running statistics: those that can drift. Bodies of If, Loop and Scan included."""
    return [layer for layer in batchnorm_layers(model) if not layer.training and not layer.affine]


def with_batch_statistics(model: ir.Model, sites: Collection[str] | None = None) -> ir.Model:
    """A copy whose layers normalise with batch statistics, for float64 evaluation only.

    onnxruntime's kernel for this updates running statistics in place, and shared initializers with them.

    Args:
        model: is not changed.
        sites: output values of the layers that are to train; ``None`` is every layer.
    """
    return in_training(model, sites)[0]


def in_training(model: ir.Model, sites: Collection[str] | None = None) -> tuple[ir.Model, list[NormLayer]]:
    """As ``with_batch_statistics``, with all layers of the copy, in the order of ``running_layers``."""
    copy = model.clone()
    layers = running_layers(copy)
    for layer in layers:
        if sites is not None and layer.site not in sites:
            continue
        node = layer.node
        if is_per_channel(layer):
            node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
            node.version = _PER_CHANNEL
        else:
            node.attributes["is_test"] = ir.AttrInt64("is_test", 0)
            node.version = _PER_ELEMENT
    return copy, layers


@dataclass(frozen=True)
class OpenBatch:
    """A model that takes any number of images.

    Attributes:
        model: the model, or a copy of it with relaxed Reshape targets.
        relaxed: output values of the Reshapes whose targets carried the batch size.
        closed: why no other batch size than the exported one can be run; ``None`` where any can.
        largest: bytes of the largest value in float64, for one image.
    """

    model: ir.Model
    relaxed: tuple[str, ...] = ()
    closed: str | None = None
    largest: float = 0.0

    def within_memory(self, images: int) -> int:
        """As many of these images as may share a batch: its largest value stays within 256 MiB."""
        fitting = int(_LARGEST_VALUE // max(self.largest, 1.0)) // _ROUND * _ROUND
        return min(images, max(fitting, _ROUND))


def open_batch(model: ir.Model, sample: Batch) -> OpenBatch:
    """Finds a form of the model that runs on batches of any size, and shows that it is one.

    A size baked into the targets of Reshape is relaxed. That nothing else carries it is not argued but tried:
    with running statistics, two samples run as one batch must give the outputs of each alone.

    Args:
        model: is not changed.
        sample: inputs that the model accepts.
    """
    images = image_count(sample)
    if images == 0:
        return OpenBatch(model, closed="the data holds no image")
    if images > _PROBES and _is_declared_open(model, sample, images):
        few = {name: a[:_PROBES] if _counts(a, images) else a for name, a in sample.items()}
        try:
            found = _opened(model, few, _PROBES)
        except NotCovered:
            pass
        else:
            if not found.relaxed and found.closed is None:
                return found
    return _opened(model, sample, images)


def _is_declared_open(model: ir.Model, sample: Batch, images: int) -> bool:
    """Whether the inputs that count images say that they take any number."""
    return all(
        value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)
        for value in model.graph.inputs
        if value.name and value.name in sample and _counts(sample[value.name], images)
    )


def _counts(array: np.ndarray[Any, Any], images: int) -> bool:
    return np.ndim(array) > 0 and np.shape(array)[0] == images


def _opened(model: ir.Model, sample: Batch, images: int) -> OpenBatch:
    largest = 0

    def seen(name: str, content: object) -> None:
        nonlocal largest
        if isinstance(content, np.ndarray):
            largest = max(largest, content.size * 8)

    other = {name: _mirrored(array, images) for name, array in sample.items()}
    evaluator = Evaluator(model)
    alone = evaluator.run(sample, observe=seen), evaluator.run(other)
    size = largest / images
    found = _try(model, (sample, other), images, alone)
    if found is None:
        return OpenBatch(model, largest=size)
    copy, relaxed = _relaxed(model, images)
    if relaxed and _try(copy, (sample, other), images, alone) is None:
        return OpenBatch(copy, relaxed, largest=size)
    reason, runs = found
    return OpenBatch(model, closed=None if runs else reason, largest=size)


def _mirrored(array: np.ndarray[Any, Any], images: int) -> np.ndarray[Any, Any]:
    """Other inputs that are as acceptable."""
    counts = np.ndim(array) > 1 and np.shape(array)[0] == images
    return np.flip(array, axis=-1) if counts else array


def _try(
    model: ir.Model, samples: tuple[Batch, Batch], images: int, alone: tuple[dict[str, Any], dict[str, Any]]
) -> tuple[str, bool] | None:
    """What two samples in one batch do that neither does alone, and whether the model runs on them at all."""
    first, second = samples
    double = {
        name: np.concatenate([array, second[name]])
        if np.ndim(array) and np.shape(array)[0] == images
        else array
        for name, array in first.items()
    }
    try:
        together = Evaluator(model).run(double)
    except NotCovered as error:
        return f"the model does not run on {2 * images} images: {error}", False
    for name in output_names(model):
        one, two = np.asarray(alone[0][name]), np.asarray(together[name])
        if one.dtype.kind == "f" and (two.shape[:1] != (2 * images,) or two.shape[1:] != one.shape[1:]):
            return f"output '{name}' has shape {list(two.shape)} for {2 * images} images", False
    for name in output_names(model):
        two = np.asarray(together[name])
        for index in range(2):
            one = np.asarray(alone[index][name])
            if one.dtype.kind != "f":
                continue
            scale = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one))) or 1.0
            part = two[index * images : (index + 1) * images]
            if not np.allclose(part, one, rtol=0.0, atol=_SAME * scale, equal_nan=True):
                return f"output '{name}' of an image depends on the images beside it", True
    return None


def _relaxed(model: ir.Model, images: int) -> tuple[ir.Model, tuple[str, ...]]:
    copy = model.clone()
    workspace = Workspace(copy)
    relaxed = []
    for node in list(copy.graph):
        if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
            continue
        source, target = node.inputs[0], workspace.constants.array(node.inputs[1])
        into, out = None if source is None else workspace.dims(source), workspace.dims(node.outputs[0])
        if target is None or not into or not out:
            continue
        sizes = _relaxed_target([int(size) for size in target], into, out, images)
        if sizes is None or (0 in target and node.attributes.get_int("allowzero", 0) != 0):
            continue
        name = workspace.fresh_name(f"{node.outputs[0].name}:open")
        constant = ir.Value(name=name, const_value=ir.tensor(np.array(sizes, dtype=np.int64), name=name))
        copy.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
        # torch's exporter writes allowzero = 1 everywhere; without zeros in the target it says nothing.
        node.attributes.pop("allowzero", None)
        relaxed.append(node.outputs[0].name or "")
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    return copy, tuple(relaxed)


def _relaxed_target(
    target: list[int], into: tuple[Any, ...], out: tuple[Any, ...], images: int
) -> list[int] | None:
    """The target with axis 0 left open; ``None`` where it does not carry the batch size."""
    if not target or target[0] in (0, -1) or images not in (into[0], out[0]):
        return None
    if into[0] == out[0]:
        return [0, *target[1:]]
    if not all(isinstance(size, int) for size in out[1:]):
        return None
    return [-1, *out[1:]]
