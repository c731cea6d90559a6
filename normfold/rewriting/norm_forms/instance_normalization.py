"""InstanceNormalization over groups: https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html

x [N, C, *S] is seen as [N, G, C/G·S]; normalising each of its G rows is GroupNorm. Scale and shift per
channel follow. With G = C the rows are the channels, and the operator's own scale and B are those of the
norm.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import unrounded
from normfold.rewriting.norm_forms.builder import Builder


def emit_instance_normalization(builder: Builder, *, as_batchnorm: bool) -> ir.Value:
    """Returns the value that takes the place of y."""
    norm = builder.norm
    attributes = {"epsilon": unrounded("epsilon", norm.epsilon)}
    if norm.groups == norm.channels:
        parameters = [builder.constant(norm.scale, "scale"), builder.constant(norm.shift, "bias")]
        return builder.op("InstanceNormalization", [builder.x, *parameters], builder.dims, attributes)
    x = builder.grouped()
    parameters = [
        builder.constant(np.ones(norm.groups), "ones"),
        builder.constant(np.zeros(norm.groups), "zeros"),
    ]
    normal = builder.op("InstanceNormalization", [x, *parameters], builder.workspace.dims(x), attributes)
    value = builder.ungrouped(normal)
    return builder.batchnorm(value) if as_batchnorm else builder.mul_add(value)
