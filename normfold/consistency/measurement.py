"""One streaming pass over the data: what every layer is given, in deployment and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from normfold.consistency.intake import Intake
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import (
    Batch,
    BatchMoments,
    ChannelMoments,
    image_count,
    output_names,
    rebatched,
)
from normfold.consistency.training import OpenBatch, in_training, open_batch, running_layers
from normfold.errors import InputError
from normfold.evaluation import NotCovered

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
    *,
    opened: OpenBatch | None = None,
    deployment: bool = True,
) -> Measured:
    """Runs every batch twice, with running and with batch statistics, and keeps moments alone.

    Args:
        model: without local functions; is not changed.
        batches: inputs; axis 0 counts images.
        batch_size: images per training batch; fewer where their values would take too much memory, the
            data's own where the model takes no other.
        progress: is told how many images were taken in.
        opened: the model with an open batch axis, where the caller has it already.
        deployment: also run under deployment conditions, not under those of training alone.

    Raises:
        InputError: the data holds no image, or the model cannot be evaluated on it.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None or image_count(first) == 0:
        raise InputError("the data holds no sample")
    try:
        opened = opened or open_batch(model, first)
        groups = _chain(first, stream)
        if opened.closed is None:
            groups = rebatched(groups, opened.within_memory(batch_size))
        return _run(opened, groups, deployment, progress)
    except NotCovered as error:
        raise InputError(f"the model cannot be evaluated on the data: {error}") from error


def _chain(first: Batch, rest: Iterable[Batch]) -> Iterable[Batch]:
    yield first
    yield from rest


def _run(
    opened: OpenBatch, groups: Iterable[Batch], deployment_too: bool, progress: Progress | None
) -> Measured:
    deployed = running_layers(opened.model)
    trained_model, trained = in_training(opened.model)
    outputs = output_names(opened.model)
    evaluation, training = Intake(opened.model, deployed, outputs), Intake(trained_model, trained, outputs)
    layers = [LayerData(layer, ChannelMoments(), ChannelMoments(), BatchMoments()) for layer in deployed]
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
        if deployment_too:
            evaluation.run(group, lambda index, found: layers[index].deployment.take(found))
        if whole:
            training.run(
                group,
                lambda index, found: layers[index].training.take(found),
                lambda index, found: layers[index].batches.take(found),
            )
        if progress is not None:
            progress(f"statistics: {images} images")
    return Measured(layers, images, batch_size, opened, samples)
