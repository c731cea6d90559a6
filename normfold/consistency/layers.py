"""The BatchNormalization layers of a model, with their parameters in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from normfold.affine import Array64
from normfold.consistency.counted import recorded_images
from normfold.evaluation.schedule import subgraphs
from normfold.preparation.constant64 import Constant64
from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import epsilon_of, is_inference
from normfold.reporting.provenance import KEY

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
        images: images that its statistics were calibrated on; ``None`` where the model does not say.
        within: nodes whose bodies it stands in, the outermost first; none in the main graph.
        affine: whether it is no layer, but normfold's spelling of ``γ·x + β``.
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
    images: int | None = None
    within: tuple[ir.Node, ...] = ()
    affine: bool = False

    @property
    def holder(self) -> ir.Node:
        """The node of the main graph that it is, or stands in."""
        return self.within[0] if self.within else self.node

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
    images = recorded_images(workspace.model)
    layers = (_read(node, within, workspace, images) for node, within in _placed_nodes(workspace))
    return [layer for layer in layers if layer is not None]


def batchnorm_nodes(workspace: Workspace) -> Iterator[ir.Node]:
    """Every BatchNormalization of something that is not a constant."""
    return (node for node, _ in _placed_nodes(workspace))


def _placed_nodes(workspace: Workspace) -> Iterator[tuple[ir.Node, tuple[ir.Node, ...]]]:
    """Those nodes in the order in which they run, each with the nodes whose bodies it stands in."""
    stack: list[tuple[Iterator[ir.Node], tuple[ir.Node, ...]]] = [(iter(workspace.model.graph), ())]
    while stack:
        nodes, within = stack[-1]
        node = next(nodes, None)
        if node is None:
            stack.pop()
            continue
        if (
            node.op_type == "BatchNormalization"
            and node.domain in _STANDARD
            and not workspace.constants.is_constant(node.inputs[0])
        ):
            yield node, within
        if node.attributes:
            stack += [(iter(body), (*within, node)) for body in reversed(list(subgraphs(node)))]


def _read(
    node: ir.Node,
    within: tuple[ir.Node, ...],
    workspace: Workspace,
    images: Callable[[str], int | None],
) -> NormLayer | None:
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
        images=images(node.outputs[0].name or ""),
        within=within,
        affine=_is_affine(node, mean, var, workspace),
    )


def _is_affine(node: ir.Node, mean: Array64, var: Array64, workspace: Workspace) -> bool:
    """With mean 0 and variance 1 − epsilon it is ``γ·x + β`` as normfold spells it, without statistics."""
    if mean.any():
        return False
    value = node.inputs[4]
    dtype = workspace.constants.dtype_of(value)
    unit = Constant64.of(np.array(1.0 - epsilon_of(node)), dtype).rounded().astype(np.float64)
    if not (var == unit).all():
        return False
    # Where 1 − epsilon rounds to 1, as in float16, only the record of the fold tells.
    return bool(unit != 1.0) or (
        KEY in workspace.model.metadata_props
        and value is not None
        and (value.name or "").startswith(f"{node.outputs[0].name}_var")
    )
