"""Statistics that were never trained, and numbers that no training gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from normfold.consistency.layers import NormLayer
from normfold.consistency.static.spelled import WrittenLayer, written_layers
from normfold.consistency.static.subject import Subject, channel_list, name_list
from normfold.reporting.report import Finding


def untrained_statistics(subject: Subject) -> Iterator[Finding]:
    """NF304: mean ≡ 0, variance ≡ 1. An error where it is so in every layer, a warning in some."""
    layers = [
        WrittenLayer(layer.site, layer.channels, not layer.mean.any() and bool((layer.var == 1.0).all()))
        for layer in subject.evaluated
    ]
    layers += written_layers(subject)
    initial = [layer for layer in layers if layer.initial]
    if initial and len(initial) == len(layers):
        one = len(layers) == 1
        where = "the only layer" if one else f"all {len(layers)} layers"
        yield Finding(
            "NF304",
            "error",
            f"running mean is 0 and running variance 1 in {where} "
            f"({name_list([layer.site for layer in layers])}): the statistics were never trained",
            layers[0].site if one else None,
        )
        return
    for layer in initial:
        yield Finding(
            "NF304",
            "warn",
            f"{layer.site}: running mean is 0 and running variance 1 in all {layer.channels} channels, "
            f"unlike {len(layers) - len(initial)} other layers: the statistics were never trained",
            layer.site,
        )


def impossible_parameters(subject: Subject) -> Iterator[Finding]:
    """NF305 and NF306."""
    for layer in subject.layers:
        yield from _not_finite(layer)
        negative = layer.var < 0
        if negative.any():
            undefined = int(np.count_nonzero(layer.var + layer.epsilon <= 0))
            after = f"with epsilon {layer.epsilon:.6g} still not positive in {undefined}" if undefined else ""
            yield Finding(
                "NF305",
                "error",
                f"{layer.site}: running variance is negative in {channel_list(negative)}, least "
                f"{layer.var[negative].min():.6g}{', ' + after if after else ''}",
                layer.site,
            )


def _not_finite(layer: NormLayer) -> Iterator[Finding]:
    named = (("scale", layer.gamma), ("shift", layer.beta), ("mean", layer.mean), ("variance", layer.var))
    for name, values in named:
        for kind, mask in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
            if mask.any():
                yield Finding(
                    "NF306", "error", f"{layer.site}: {name} is {kind} in {channel_list(mask)}", layer.site
                )
