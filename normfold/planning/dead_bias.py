"""A bias that what follows takes out again: a Conv's in front of InstanceNormalization, for one."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.crossing import Operator
from normfold.planning.plan import Walk
from normfold.planning.walk import walk_forward
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

_BIAS = 2
_CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1}
_GEMM_OPTIONAL_C = 11


def find_dead_bias(node: ir.Node, workspace: Workspace, table: Mapping[str, Operator]) -> Walk | None:
    """The way on which the node's bias vanishes, if the model computes the same without it.

    The bias is a shift of the result; it is dead if it goes forward to where it vanishes and edits nothing
    on the way.
    """
    axis = _CHANNEL_AXIS.get(node.op_type)
    if axis is None or node.domain not in ("", "ai.onnx") or len(node.inputs) <= _BIAS:
        return None
    if node.op_type == "Gemm" and workspace.opset_of(node) < _GEMM_OPTIONAL_C:
        return None
    view = NodeView(node, workspace)
    bias, dims = view.constant(_BIAS), view.output_dims()
    if bias is None or dims is None or len(bias.shape) != 1:
        return None
    values = bias.compute() * view.float_attribute("beta", 1.0)
    if not values.any():
        return None
    try:
        return walk_forward(
            node.outputs[0],
            Affine.on_axis(1.0, values, axis=axis, rank=len(dims)),
            workspace,
            table,
            edits=False,
        )
    except Refused:
        return None
