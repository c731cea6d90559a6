"""GroupNormalization: https://onnx.ai/onnx/operators/onnx__GroupNormalization.html

Scale and bias are [G] in opset 18 to 20, and [C] from 21 on.
"""

from __future__ import annotations

import onnx_ir as ir

from normfold.planning.norm_forms import per_group
from normfold.rewriting.norm_forms.builder import Builder

_PER_CHANNEL = 21


def emit_group_normalization(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y."""
    norm = builder.norm
    operands = [norm.x]
    for values, stem in ((norm.scale, "scale"), (norm.shift, "bias")):
        parameter = values if builder.workspace.opset >= _PER_CHANNEL else per_group(values, norm)
        assert parameter is not None
        operands.append(builder.constant(parameter, stem))
    attributes = {"num_groups": norm.groups, "epsilon": norm.epsilon}
    return builder.op("GroupNormalization", operands, builder.dims, attributes)
