"""Whether running means are of these weights, told without the data that they were taken on.

In training every channel behind a BatchNorm has mean β and variance γ², whatever the data. The means that
the weights make of that for the next layer (``static/moments``) are good to some percent. Running
statistics of another domain agree with them as well as those of the data do; those of other weights do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.consistency.explanation.causes import Compared
from normfold.consistency.static.moments import Moments, moments_of
from normfold.consistency.static.subject import Subject
from normfold.preparation.workspace import Workspace

_LEAST_CHANNELS = 4
_USABLE = 1.0
_RATIO, _EXCESS = 1.8, 0.04


@dataclass(frozen=True)
class ByWeights:
    """The layer whose means are predicted best.

    Attributes:
        site: name of its output value.
        running: root mean square distance of its running means from the predicted, in standard deviations.
        data: the same of the means of the data.
    """

    site: str
    running: float
    data: float

    @property
    def are_other(self) -> bool:
        """Whether the running means are of other weights."""
        return self.running > max(_RATIO * self.data, self.data + _EXCESS)


def judged_by_weights(model: ir.Model, compared: Sequence[Compared]) -> ByWeights | None:
    """Holds running means against what weights and normalisations in front produce.

    Args:
        model: that the layers are of.
        compared: its layers, under training conditions.

    Returns:
        The verdict at the layer where the data agree best; ``None`` where no layer can be predicted.
    """
    subject = Subject(Workspace(model))
    inputs = {layer.site: layer.node.inputs[0] for layer in subject.evaluated}
    cache: dict[str, Moments | None] = {}
    found = []
    for c in compared:
        predicted = moments_of(inputs.get(c.site), subject, cache)
        layer, moments = c.data.layer, c.data.training
        if predicted is None or predicted.mean.shape != layer.mean.shape or layer.channels < _LEAST_CHANNELS:
            continue
        deviation = np.sqrt(np.maximum(moments.variance, np.finfo(np.float64).tiny))
        running, data = (
            float(np.sqrt(np.square((mean - predicted.mean) / deviation).mean()))
            for mean in (layer.mean, moments.mean)
        )
        if data < _USABLE and np.isfinite(running):
            found.append(ByWeights(c.site, running, data))
    return min(found, key=lambda judged: judged.data, default=None)
