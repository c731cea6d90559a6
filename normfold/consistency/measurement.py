"""One streaming pass over the data: what every layer is given, in deployment and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import (
    Batch,
    BatchMoments,
    ChannelMoments,
    image_count,
    observe,
    output_names,
    rebatched,
)
from normfold.consistency.training import (
    OpenBatch,
    is_per_channel,
    open_batch,
    running_layers,
    with_batch_statistics,
)
from normfold.errors import InputError
from normfold.evaluation import Evaluator, NotCovered

TRAINING_BATCH = 64
"""Images that share their statistics under training conditions, where the model takes that many."""

KEPT_IMAGES, KEPT_BYTES = 256, 64 * 1024**2

Progress = Callable[[str], None]
"""Is told what is being done."""


@dataclass
class LayerData:
    """What one layer was given.

    Attributes:
        layer: the layer, with its running statistics.
        deployment: its input where all layers above use running statistics.
        training: its input where all layers above use the statistics of the batch.
        batches: its statistics of single batches in training.
    """

    layer: NormLayer
    deployment: ChannelMoments
    training: ChannelMoments
    batches: BatchMoments


@dataclass
class Measured:
    """The pass over the data.

    Attributes:
        layers: in graph order.
        images: how many there were.
        batch_size: images that shared their statistics in training.
        opened: the model that was run.
        samples: the first batches, for experiments afterwards: at most ``KEPT_IMAGES`` and ``KEPT_BYTES``,
            and at least one batch.
    """

    layers: list[LayerData]
    images: int
    batch_size: int
    opened: OpenBatch
    samples: list[Batch]


def measure_layers(
    model: ir.Model,
    batches: Iterable[Batch],
    batch_size: int = TRAINING_BATCH,
    progress: Progress | None = None,
) -> Measured:
    """Runs every batch twice, with running and with batch statistics, and keeps moments alone.

    Args:
        model: without local functions; is not changed.
        batches: inputs; axis 0 counts images.
        batch_size: images per training batch; the data's own where the model takes no other.
        progress: is told how many images were taken in.

    Raises:
        InputError: the data holds no image, or the model cannot be evaluated on it.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None or image_count(first) == 0:
        raise InputError("the data holds no sample")
    try:
        opened = open_batch(model, first)
        groups = _chain(first, stream)
        return _run(opened, rebatched(groups, batch_size) if opened.closed is None else groups, progress)
    except NotCovered as error:
        raise InputError(f"the model cannot be evaluated on the data: {error}") from error


def _chain(first: Batch, rest: Iterable[Batch]) -> Iterable[Batch]:
    yield first
    yield from rest


def _run(opened: OpenBatch, groups: Iterable[Batch], progress: Progress | None) -> Measured:
    found = running_layers(opened.model)
    layers = {
        layer.site: LayerData(layer, ChannelMoments(), ChannelMoments(), BatchMoments()) for layer in found
    }
    readers = reading(found)
    outputs = output_names(opened.model)
    evaluation, training = Evaluator(opened.model), Evaluator(with_batch_statistics(opened.model))
    images, batch_size, kept = 0, 0, 0
    samples: list[Batch] = []
    for group in groups:
        count = image_count(group)
        if not count:
            continue
        # The small rest of the data would be the noisiest batch.
        whole = count * 2 > batch_size
        batch_size = max(batch_size, count)
        images += count
        kept += sum(array.nbytes for array in group.values())
        if not samples or (images <= KEPT_IMAGES and kept <= KEPT_BYTES):
            samples.append(group)

        def deployed(site: str, x: np.ndarray, count: int = count) -> None:
            layers[site].deployment.add(channels_first(layers[site].layer, x), count)

        def trained(site: str, x: np.ndarray, count: int = count) -> None:
            x = channels_first(layers[site].layer, x)
            layers[site].training.add(x, count)
            layers[site].batches.add(x)

        observe(evaluation, outputs, group, readers, deployed)
        if whole:
            observe(training, outputs, group, readers, trained)
        if progress is not None:
            progress(f"statistics: {images} images")
    return Measured([layers[layer.site] for layer in found], images, batch_size, opened, samples)


def reading(layers: Iterable[NormLayer]) -> dict[str, list[str]]:
    """Sites of the layers that read a value, by its name."""
    result: dict[str, list[str]] = {}
    for layer in layers:
        result.setdefault(layer.x, []).append(layer.site)
    return result


def channels_first(layer: NormLayer, x: Array64) -> Array64:
    """``[N, C, *S]`` as it is; with ``spatial = 0`` every element is a channel: ``[N, C·S]``."""
    return x if is_per_channel(layer) else x.reshape(x.shape[0], -1)
