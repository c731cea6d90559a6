"""LSTM, GRU and RNN, on their input X: https://onnx.ai/onnx/operators/onnx__LSTM.html

X [seq, batch, I] ([batch, seq, I] with layout 1), W [D, g·H, I], B [D, 2·g·H] = Wb ‖ Rb, with D directions
and g gates (4, 3 and 1). Every gate reads ``X @ Wᵀ + Wb``, so forward, with s and t of [I] on the last
axis: ``W' = W · s``, ``Wb' = Wb + W @ t``. GRU's linear_before_reset concerns Rb only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_X, _W, _B = 0, 1, 3


class Recurrent(Operator):
    op_types = ("GRU", "LSTM", "RNN")

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [_X]:
            raise Refused("NF114", f"a state or weight of {node.op_type} {node.name!r} brings it")
        affine, weight = given[_X], node.weight(_W)
        require_axes(affine.scale, {2}, "scale", node)
        require_axes(affine.shift, {2}, "shift", node)
        scale, shift = affine.channel(2, weight.shape[2])
        constants = {}
        if affine.has_scale:
            constants[_W] = weight.map(lambda w: w * scale)
        if affine.has_shift:
            added = weight.compute() @ shift
            constants[_B] = self._bias(node, added, weight)
        return Crossing(constants=constants)

    def _bias(self, node: NodeView, added: Array64, weight: Constant64) -> Constant64:
        """B with ``added`` [D, g·H] in its first half."""
        extra = np.concatenate([added, np.zeros_like(added)], axis=1)
        if not node.has(_B):
            return Constant64.of(extra, weight.dtype)
        return node.weight(_B, "bias").map(lambda b: b + extra)


OPERATORS: tuple[Operator, ...] = (Recurrent(),)
