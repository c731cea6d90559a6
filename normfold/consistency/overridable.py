"""Initializers that are also graph inputs, which a caller may override: no constants unless asked for."""

from __future__ import annotations

import onnx_ir as ir

from normfold.consistency.layers import batchnorm_nodes
from normfold.preparation.workspace import Workspace


def frozen(model: ir.Model) -> ir.Model:
    """A copy in which they are constants; the same object where there are none."""
    if not any(value.is_initializer() for value in model.graph.inputs):
        return model
    copy = model.clone()
    inputs = [value for value in copy.graph.inputs if not value.is_initializer()]
    copy.graph.inputs.clear()
    copy.graph.inputs.extend(inputs)
    return copy


def reopen(model: ir.Model, like: ir.Model) -> None:
    """Gives a frozen model its inputs back, in place, but for initializers that are there no more."""
    values = {value.name: value for value in model.graph.inputs} | dict(model.graph.initializers)
    inputs = [values[value.name] for value in like.graph.inputs if value.name in values]
    model.graph.inputs.clear()
    model.graph.inputs.extend(inputs)


def overridable_layers(model: ir.Model) -> list[str]:
    """Output values of the BatchNormalizations that are no layers since a caller may override parameters."""
    return [
        node.outputs[0].name or ""
        for node in batchnorm_nodes(Workspace(model))
        if any(
            value is not None and value.is_initializer() and value.is_graph_input()
            for value in node.inputs[1:5]
        )
    ]
