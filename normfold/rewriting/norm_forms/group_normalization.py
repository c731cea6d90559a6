"""GroupNormalization of opset 21, whose scale and bias are [C].

https://onnx.ai/onnx/operators/onnx__GroupNormalization.html
"""

from __future__ import annotations

import onnx_ir as ir

from normfold.evaluation.call import unrounded
from normfold.rewriting.norm_forms.builder import Attributes, Builder


def emit_group_normalization(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y."""
    norm = builder.norm
    operands = [builder.x, builder.constant(norm.scale, "scale"), builder.constant(norm.shift, "bias")]
    attributes: Attributes = {"num_groups": norm.groups, "epsilon": unrounded("epsilon", norm.epsilon)}
    return builder.op("GroupNormalization", operands, builder.dims, builder.stashed(attributes))
