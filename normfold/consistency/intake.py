"""What layers are given while a model runs, wherever they stand: bodies of If, Loop and Scan included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer
from normfold.consistency.statistics import Batch, ImageMoments, image_count, image_moments
from normfold.evaluation import Evaluator

Take = Callable[[int, ImageMoments], None]
"""Is told the place of a layer and what single images gave it."""


class Intake:
    """Runs a model and hands over the inputs of layers as they are computed, so that none is kept."""

    def __init__(
        self, model: ir.Model, layers: Sequence[NormLayer], outputs: Sequence[str] | None = None
    ) -> None:
        """Prepares.

        Args:
            model: is evaluated.
            layers: of that model.
            outputs: values to compute and return; by default what it takes to run the layers.
        """
        self._evaluator = Evaluator(model)
        self._layers = layers
        self._outputs = (
            list(outputs)
            if outputs is not None
            else list(dict.fromkeys(_name(layer.holder) for layer in layers))
        )

    def run(self, batch: Batch, take: Take, each: Take | None = None) -> dict[str, Any]:
        """Runs one batch.

        Args:
            batch: the inputs; axis 0 counts images.
            take: called once for each layer that was reached, with all that the batch gave it: in a loop, the
                elements of all iterations.
            each: called each time that a layer runs.

        Raises:
            NotCovered: the model cannot be evaluated.
        """
        images = image_count(batch)
        gathered = [_Gathered(images) for _ in self._layers]

        def watch(index: int) -> Callable[[Any], None]:
            layer = self._layers[index]

            def seen(x: Any) -> None:
                x = channels_first(layer, np.asarray(x, dtype=np.float64))
                if x.size:
                    found = image_moments(x, images)
                    gathered[index].add(found)
                    if each is not None:
                        each(index, found)

            return seen

        result = self._evaluator.run(
            batch,
            self._outputs,
            watch={layer.node: watch(index) for index, layer in enumerate(self._layers)},
        )
        for index, found in enumerate(gathered):
            if (whole := found.whole()) is not None:
                take(index, whole)
        return result


class _Gathered:
    """What one layer is given while one batch runs."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._parts: list[ImageMoments] = []

    def add(self, found: ImageMoments) -> None:
        """Of all images, or of as many as one iteration takes."""
        parts = self._parts
        if parts and found.images == parts[0].images and found.images == self._images:
            parts[0] = parts[0].joined(found)
            return
        parts.append(found)
        if sum(part.images for part in parts) > self._images:
            whole = parts[0].as_one()
            for part in parts[1:]:
                whole = whole.joined(part.as_one())
            self._parts = [whole]

    def whole(self) -> ImageMoments | None:
        """Image by image where the parts are all images; else everything is one observation."""
        parts = self._parts
        if not parts:
            return None
        if len(parts) > 1 and sum(part.images for part in parts) == self._images:
            elements = parts[0].elements
            if all(part.elements == elements for part in parts):
                mean, variance = (
                    np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "variance")
                )
                return ImageMoments(mean, variance, elements)
        if len(parts) > 1:
            whole = parts[0].as_one()
            for part in parts[1:]:
                whole = whole.joined(part.as_one())
            return whole
        return parts[0]


def channels_first(layer: NormLayer, x: Array64) -> Array64:
    """``[N, C, *S]`` as it is; with ``spatial = 0`` every element is a channel: ``[N, C·S]``."""
    return x if is_per_channel(layer) else x.reshape(x.shape[0], -1)


def is_per_channel(layer: NormLayer) -> bool:
    """Whether the layer has one pair of statistics per channel; ``spatial = 0`` has one per element."""
    return layer.node.attributes.get_int("spatial", 1) == 1


def _name(node: ir.Node) -> str:
    return next(value.name for value in node.outputs if value.name)
