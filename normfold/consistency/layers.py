"""The BatchNormalization layers of a model, with their parameters in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from normfold.affine import Array64
from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import epsilon_of, is_inference

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, eq=False)
class NormLayer:
    """One BatchNormalization whose four parameters are constants of the model.

    Attributes:
        site: name of its output value.
        node: the node, in the model that was read.
        x: name of its input value.
        channels: number of parameters of each kind.
        gamma: scale, shape ``[channels]``.
        beta: shift, shape ``[channels]``.
        mean: running mean, shape ``[channels]``.
        var: running variance, shape ``[channels]``.
        epsilon: as the runtime reads it, a float32.
        training: whether it normalises with the statistics of the batch, by the rule of its opset.
    """

    site: str
    node: ir.Node
    x: str
    channels: int
    gamma: Array64
    beta: Array64
    mean: Array64
    var: Array64
    epsilon: float
    training: bool = False

    @property
    def stated_weight(self) -> float | None:
        """Weight of the new batch in training as the node states it; ``None`` where it does not."""
        if "momentum" not in self.node.attributes:
            return None
        return 1.0 - float(self.node.attributes.get_float("momentum", 0.9))

    @property
    def inverse(self) -> Array64:
        """``γ / √(var + epsilon)``, NaN or infinite where that does not exist; shape ``[channels]``."""
        with np.errstate(all="ignore"):
            return self.gamma / np.sqrt(self.var + self.epsilon)


def inlined(model: ir.Model) -> ir.Model:
    """The model without local functions; the same object where it has none."""
    return InlinePass()(model.clone()).model if model.functions else model


def batchnorm_layers(model: ir.Model) -> list[NormLayer]:
    """Reads every BatchNormalization with constant parameters, in graph order, subgraphs included.

    Parameters may be expressions of constants. A node that normalises a constant is left out: it spells a
    standardised weight, and is no layer. Bodies of local functions are not entered; see ``inlined``.

    Args:
        model: is not changed, and holds the nodes of the result.
    """
    return read_layers(Workspace(model))


def read_layers(workspace: Workspace) -> list[NormLayer]:
    """As ``batchnorm_layers``, on a workspace that is there already."""
    layers = (_read(node, workspace) for node in batchnorm_nodes(workspace))
    return [layer for layer in layers if layer is not None]


def batchnorm_nodes(workspace: Workspace) -> Iterator[ir.Node]:
    """Every BatchNormalization of something that is not a constant."""
    for graph in graphs_of(workspace.model):
        for node in graph:
            if (
                node.op_type == "BatchNormalization"
                and node.domain in _STANDARD
                and not workspace.constants.is_constant(node.inputs[0])
            ):
                yield node


def _read(node: ir.Node, workspace: Workspace) -> NormLayer | None:
    arrays = [workspace.constants.array(operand) for operand in node.inputs[1:5]]
    x = node.inputs[0]
    if x is None or len(arrays) < 4 or any(array is None for array in arrays):
        return None
    gamma, beta, mean, var = (np.asarray(array, dtype=np.float64).reshape(-1) for array in arrays)
    if len({gamma.size, beta.size, mean.size, var.size}) != 1:
        return None
    return NormLayer(
        site=node.outputs[0].name or "",
        node=node,
        x=x.name or "",
        channels=gamma.size,
        gamma=gamma,
        beta=beta,
        mean=mean,
        var=var,
        epsilon=epsilon_of(node),
        training=not is_inference(node, workspace.opset),
    )
