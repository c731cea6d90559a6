"""The scale and shift of a normalisation go forward into the linear layer behind it (``--fold-norm-affine``).

The normalisation stays, with scale 1 and without shift; the layer behind it takes ``γ ⊙ x̂ + β`` instead
of ``x̂``. It removes no node, so it is not done unasked: it helps a runtime that has a cheaper kernel
without an affine, and quantisers that want one range per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.cost import Elements, charge_edit, is_bias
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.plan import Walk
from normfold.planning.ranges import check_ranges
from normfold.planning.walk import walk_forward
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

_SCALE, _SHIFT = 1, 2
_GROUP_PARAMETERS_PER_CHANNEL = 21


@dataclass(frozen=True)
class NormRelease:
    """``way`` takes the affine of ``node`` over; ``bare`` is what the node keeps."""

    node: ir.Node
    bare: Crossing
    way: Walk


def find_norm_release(
    node: ir.Node, workspace: Workspace, table: Mapping[str, Operator]
) -> NormRelease | None:
    """How the scale and shift of a normalisation can go forward, if something absorbs them exactly."""
    if node.domain not in ("", "ai.onnx"):
        return None
    view = NodeView(node, workspace)
    affine = _affine_of(view)
    if affine is None or affine.is_identity:
        return None
    try:
        way = walk_forward(node.outputs[0], affine, workspace, table)
        price = Elements()
        for reader, crossing in way.crossings.items():
            check_ranges(NodeView(reader, workspace), crossing)
            charge_edit(price, reader, crossing, workspace)
    except Refused:
        return None
    # Any other affine that stays would only hold it, and may give it back.
    if price.number != 0 or not all(_is_bias(*item, workspace) for item in way.composed.items()):
        return None
    constants = {
        slot: _filled(view, slot, value) for slot, value in ((_SCALE, 1.0), (_SHIFT, 0.0)) if view.has(slot)
    }
    return NormRelease(node, Crossing(constants=constants), way)


def _is_bias(node: ir.Node, affine: Affine, workspace: Workspace) -> bool:
    x = node.inputs[0]
    return x is not None and is_bias(affine, x, workspace)


def _affine_of(view: NodeView) -> Affine | None:
    """The normalisation's own scale and shift on its output, where both are constant."""
    dims = view.output_dims() or view.dims(0)
    scale, shift = view.array(_SCALE), view.array(_SHIFT) if view.has(_SHIFT) else np.zeros(1)
    if dims is None or scale is None or shift is None:
        return None
    rank = len(dims)
    if view.op_type in ("LayerNormalization", "RMSNormalization"):
        return Affine.of(scale, shift if view.op_type == "LayerNormalization" else 0.0, rank=rank)
    if view.op_type == "InstanceNormalization":
        return Affine.on_axis(scale, shift, axis=1, rank=rank)
    if view.op_type == "GroupNormalization":
        channels = dims[1]
        if view.opset < _GROUP_PARAMETERS_PER_CHANNEL:
            if not isinstance(channels, int) or channels % scale.size:
                return None
            scale, shift = (np.repeat(a, channels // scale.size) for a in (scale, shift))
        return Affine.on_axis(scale, shift, axis=1, rank=rank)
    return None


def _filled(view: NodeView, slot: int, value: float) -> Constant64:
    constant = view.constant(slot)
    assert constant is not None
    return Constant64.of(np.full(constant.shape, value), constant.dtype)
