"""Running statistics estimated anew from data, layer by layer, the layers above already corrected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.counted import record_images
from normfold.consistency.departure import LEAST_IMAGES, rms
from normfold.consistency.explanation.causes import Cause, compare
from normfold.consistency.explanation.diagnosis import diagnose
from normfold.consistency.intake import Intake, is_per_channel
from normfold.consistency.layers import NormLayer, batchnorm_layers, inlined
from normfold.consistency.measurement import Measured, Progress, measure_layers
from normfold.consistency.oracle import OutputGap, output_gap
from normfold.consistency.order import in_loop, independent_groups
from normfold.consistency.overridable import overridable_layers
from normfold.consistency.statistics import Batch, ChannelMoments, image_count, output_names
from normfold.consistency.training import running_layers, with_batch_statistics
from normfold.consistency.unfolding import unfold
from normfold.consistency.written import spelled_as_layers
from normfold.errors import InputError
from normfold.evaluation import Evaluator, NotCovered
from normfold.preparation.names import FreshNames
from normfold.reporting.report import Finding

_LITTLE = 0.05

_MOST_ROUNDS, _SETTLED = 10, 1e-3
"""Of going over layers whose input depends on their own output, through a loop."""


@dataclass(frozen=True)
class LayerChange:
    """What calibration did to one layer.

    Attributes:
        site: name of its output value.
        images: images that its statistics are of; 0 where the data do not reach it and it stayed.
        z: change of the mean in old running standard deviations, root mean square over channels.
        log_variance_ratio: logarithm of new over old variance, epsilon added to both, root mean square.
        mean: the new running mean, shape ``[C]``.
        var: the new running variance, shape ``[C]``: the population's, so without Bessel's correction.
    """

    site: str
    images: int
    z: float
    log_variance_ratio: float
    mean: Array64
    var: Array64


@dataclass
class Calibrated:
    """A model with the statistics of the data.

    Attributes:
        model: a new model, without local functions; layers that were folded away stand in it again, and
            hand-written ones as BatchNormalization.
        layers: every layer, in graph order.
        outputs: how each output changed, evaluation before against evaluation after.
        images: how many there were.
        passes: how often the data were run, to the depth of the layer in question.
        causes: why the statistics departed before, where they did.
        gap_before: training mode against evaluation, relative to the output's standard deviation, worst
            output.
        gap_after: the same with the new statistics.
        unsettled: layers in loops whose statistics moved on as often as they were estimated, since their
            own output comes back to them.
        findings: what calibration cannot repair, and what limits it.
    """

    model: ir.Model
    layers: list[LayerChange] = field(default_factory=list)
    outputs: list[OutputGap] = field(default_factory=list)
    images: int = 0
    passes: int = 0
    causes: list[Cause] = field(default_factory=list)
    gap_before: float = 0.0
    gap_after: float = 0.0
    unsettled: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def calibrate(
    model: ir.Model,
    batches: Iterable[Batch],
    *,
    diagnosis: bool = True,
    budget_seconds: float = 60.0,
    progress: Progress | None = None,
) -> Calibrated:
    """Estimates the running statistics of every layer from data.

    Costs one pass over the data per group of layers that do not depend on each other, each only as deep as
    the group
    stands: for a chain of L layers about L/2 whole evaluations of the data, and two for the report.

    Args:
        model: is not changed.
        batches: inputs by name, axis 0 counts images. It is gone through once per pass, so it should be a
            list or another object that can be; an iterator is kept in memory.
        diagnosis: say whether the statistics are the cause of what they repair.
        budget_seconds: time for experiments on the cause.
        progress: is told what is being done.

    Raises:
        InputError: there is no layer, no image, or the model cannot be evaluated on the data.
    """
    data = list(batches) if isinstance(batches, Iterator) else batches
    work = unfold(spelled_as_layers(inlined(model))[0]).model.clone()
    layers = running_layers(work)
    if not layers:
        if overridable_layers(work):
            raise InputError(
                "a caller may override the parameters of every BatchNormalization: --freeze-initializers "
                "takes them for constants"
            )
        raise InputError(
            "the model has no BatchNormalization with running statistics, and its provenance knows of none"
        )
    measured = measure_layers(work, data, progress=progress)
    result = Calibrated(work, images=measured.images)
    before = _outputs(measured, measured.opened.model)
    if diagnosis and measured.images >= LEAST_IMAGES:
        result.causes = diagnose(measured, compare(measured), budget_seconds).causes
    opened = measured.opened.model
    copies = [_Copy(work, layers)]
    if opened is not work:
        copies.append(_Copy(opened, running_layers(opened)))
    replaced = [value for layer in layers for value in layer.node.inputs[3:5] if value is not None]
    changes: dict[int, LayerChange] = {}
    place = {layer.node: index for index, layer in enumerate(layers)}
    groups = independent_groups(work, layers)
    for _ in range(_MOST_ROUNDS):
        earlier = dict(changes)
        for group in groups:
            if progress is not None:
                done = min(len(changes) + len(group), len(layers))
                progress(f"layers up to {done} of {len(layers)}")
            result.passes += 1
            for layer, found in zip(group, _estimate(work, group, data), strict=True):
                index = place[layer.node]
                change = changes[index] = _change(layer, found)
                for copy in copies if change.images else ():
                    copy.write(index, change)
        result.unsettled = [
            layers[index].site
            for index, change in changes.items()
            if in_loop(layers[index]) and not _is_settled(layers[index], earlier.get(index), change)
        ]
        groups = _from_first_loop(groups)
        if not result.unsettled:
            break
    _sweep(work, replaced)
    result.layers = [changes[index] for index in range(len(layers))]
    record_images(work, result.images, {change.site: change.images or None for change in result.layers})
    _report(result, measured, before)
    result.findings += _remarks(result, work, layers)
    return result


def _estimate(model: ir.Model, group: Sequence[NormLayer], data: Iterable[Batch]) -> list[ChannelMoments]:
    moments = [ChannelMoments() for _ in group]
    intake = Intake(model, group)
    try:
        for batch in data:
            if image_count(batch):
                intake.run(batch, lambda index, found: moments[index].take(found))
    except NotCovered as error:
        raise InputError(f"the model cannot be evaluated on the data: {error}") from error
    return moments


def _from_first_loop(groups: list[list[NormLayer]]) -> list[list[NormLayer]]:
    """The groups that further rounds can change: what a loop hands on may come back to its layers."""
    first = next((i for i, group in enumerate(groups) if any(in_loop(layer) for layer in group)), len(groups))
    return groups[first:]


def _is_settled(layer: NormLayer, earlier: LayerChange | None, change: LayerChange) -> bool:
    if earlier is None:
        return False
    with np.errstate(all="ignore"):
        deviation = np.sqrt(change.var + layer.epsilon)
        moved = np.maximum(
            np.abs(change.mean - earlier.mean) / deviation,
            np.abs(np.log((change.var + layer.epsilon) / (earlier.var + layer.epsilon))),
        )
    return not change.images or bool((moved < _SETTLED).all())


def _change(layer: NormLayer, moments: ChannelMoments) -> LayerChange:
    if not moments.images:
        return LayerChange(layer.site, 0, 0.0, 0.0, layer.mean, layer.var)
    if moments.mean.size != layer.channels:
        raise InputError(
            f"'{layer.site}': its input has {moments.mean.size} channels, the layer {layer.channels}"
        )
    mean, var = moments.mean, moments.variance
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        raise InputError(
            f"'{layer.site}': its input over the data is not finite, so no statistics can be taken"
        )
    if layer.epsilon == 0.0:
        # A constant divided by its deviation is no number; its old variance is as good as any.
        var = np.where(var > 0, var, layer.var)
    with np.errstate(all="ignore"):
        running = layer.var + layer.epsilon
        z = (mean - layer.mean) / np.sqrt(running)
        ratio = np.log((var + layer.epsilon) / running)
    return LayerChange(layer.site, moments.images, rms(z), rms(ratio), mean, var)


class _Copy:
    """A model that takes on new statistics."""

    def __init__(self, model: ir.Model, layers: Sequence[NormLayer]) -> None:
        self._graph = model.graph
        self._layers = layers
        self._names = FreshNames(model)
        self._made: set[ir.Value] = set()

    def write(self, index: int, change: LayerChange) -> None:
        """Gives the layer at this place initializers of its own."""
        layer = self._layers[index]
        for slot, values in ((3, change.mean), (4, change.var)):
            old = layer.node.inputs[slot]
            assert old is not None
            dtype = old.dtype or ir.DataType.FLOAT
            with np.errstate(over="ignore"):
                content = values.reshape(_shape(old, values)).astype(dtype.numpy())
            if not np.isfinite(content.astype(np.float64)).all():
                raise InputError(f"'{layer.site}': its statistics are beyond the range of {dtype.name}")
            if old in self._made:
                old.const_value = ir.tensor(content, name=old.name)
                continue
            name = self._names.take(f"{old.name or layer.site}_calibrated")
            value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
            value.dtype, value.shape = dtype, ir.Shape(content.shape)
            self._graph.register_initializer(value)
            self._made.add(value)
            layer.node.replace_input_with(slot, value)


def _shape(old: ir.Value, values: Array64) -> tuple[int, ...]:
    if old.const_value is not None and old.const_value.size == values.size:
        return tuple(old.const_value.shape.numpy())
    return values.shape


def _sweep(model: ir.Model, replaced: Iterable[ir.Value]) -> None:
    """Takes out statistics that nothing reads any more, unless a caller may still name them."""
    named = {*model.graph.inputs, *model.graph.outputs}
    for value in replaced:
        if value in named or value.uses():
            continue
        producer, graph = value.producer(), value.graph
        if value.is_initializer() and value.name is not None and graph is not None:
            del graph.initializers[value.name]
        elif producer is not None and producer.op_type == "Constant" and producer.graph is not None:
            producer.graph.remove(producer, safe=True)


def _outputs(measured: Measured, model: ir.Model) -> list[dict[str, Any]]:
    evaluator = Evaluator(model)
    return [evaluator.run(sample) for sample in measured.samples]


def _report(result: Calibrated, measured: Measured, before: list[dict[str, Any]]) -> None:
    """Outputs before and after on the first images, and both against training mode."""
    opened = measured.opened.model
    after = _outputs(measured, opened)
    training = _outputs(measured, with_batch_statistics(opened))
    size = image_count(measured.samples[0])
    for name in output_names(opened):
        if not isinstance(after[0][name], np.ndarray) or after[0][name].dtype.kind != "f":
            continue
        result.outputs.append(output_gap(name, size, before, after))
        result.gap_before = max(result.gap_before, output_gap(name, size, training, before).relative)
        result.gap_after = max(result.gap_after, output_gap(name, size, training, after).relative)


def _remarks(result: Calibrated, model: ir.Model, layers: Sequence[NormLayer]) -> list[Finding]:
    found = []
    if result.images < LEAST_IMAGES:
        found.append(
            Finding(
                "NF341",
                "warn",
                f"the statistics are of {result.images} images; below {LEAST_IMAGES} they are noisy "
                f"themselves",
            )
        )
    for cause in result.causes:
        if not cause.repairable:
            found.append(
                Finding(
                    "NF352",
                    "warn",
                    "the running statistics are not the cause, and new ones do not remove it: "
                    f"{cause.message}",
                    cause.site,
                )
            )
        else:
            found.append(Finding(cause.code, "info", cause.message, cause.site))
    moved = max((max(c.z, c.log_variance_ratio) for c in result.layers), default=0.0)
    if not result.causes and result.images >= LEAST_IMAGES and moved < _LITTLE:
        found.append(
            Finding(
                "NF352",
                "info",
                "the running statistics agreed with the data before: whatever is wrong with the "
                "model, it is not they",
            )
        )
    for change in result.layers:
        if not change.images:
            found.append(
                Finding("NF353", "info", "the data do not reach it: it keeps its statistics", change.site)
            )
    for site in result.unsettled:
        found.append(
            Finding(
                "NF352",
                "warn",
                f"its own output comes back to it through a loop, and after {_MOST_ROUNDS} estimates its "
                "statistics still move: they are not those of its input",
                site,
            )
        )
    for layer in batchnorm_layers(model):
        if layer.training:
            found.append(
                Finding("NF353", "info", "it uses batch statistics, and is left as it is", layer.site)
            )
    if any(not is_per_channel(layer) for layer in layers):
        found.append(
            Finding(
                "NF353", "info", "with spatial = 0 every element has statistics of its own, over images alone"
            )
        )
    return found
