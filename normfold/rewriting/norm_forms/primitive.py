"""Two passes of primitive operators: the mean is subtracted before squares are taken.

float16 and bfloat16 are widened for the statistics.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.planning.norm_forms import axes_are_input
from normfold.preparation.constant64 import Constant64
from normfold.rewriting.initializers import new_initializer
from normfold.rewriting.norm_forms.builder import Builder

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def emit_primitive(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y."""
    x = builder.grouped()
    dims = builder.workspace.dims(x)
    assert dims is not None
    narrow = builder.dtype in _NARROW
    wide = ir.DataType.FLOAT if narrow else builder.dtype
    row = (dims[0], dims[1], 1)
    if narrow:
        x = builder.op("Cast", [x], dims, {"to": int(wide)}, dtype=wide)

    def mean(value: ir.Value) -> ir.Value:
        if axes_are_input(builder.workspace):
            axes = builder.integers([2], "axes")
            return builder.op("ReduceMean", [value, axes], row, {"keepdims": 1}, dtype=wide)
        return builder.op("ReduceMean", [value], row, {"axes": [2], "keepdims": 1}, dtype=wide)

    centred = builder.op("Sub", [x, mean(x)], dims, dtype=wide)
    variance = mean(builder.op("Mul", [centred, centred], dims, dtype=wide))
    graph = builder.norm.y.graph
    assert graph is not None
    epsilon = new_initializer(
        Constant64.of(np.array(builder.norm.epsilon), wide),
        f"{builder.norm.y.name}_epsilon",
        graph,
        builder.workspace,
    )
    deviation = builder.op("Sqrt", [builder.op("Add", [variance, epsilon], row, dtype=wide)], row, dtype=wide)
    normal = builder.op("Div", [centred, deviation], dims, dtype=wide)
    if narrow:
        normal = builder.op("Cast", [normal], dims, {"to": int(builder.dtype)})
    return builder.mul_add(builder.ungrouped(normal))
