"""LayerNormalization over groups: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html

For a GroupNorm x [N, C, *S] is seen as [N, G, C/G·S] and normalised over its last axis, with a scale of ones
of that length. A LayerNorm over channels is one of [N, *S, C], between two Transposes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import unrounded
from normfold.planning.norm_forms import group_elements
from normfold.rewriting.norm_forms.builder import Attributes, Builder


def emit_layer_normalization(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y; sizes are static."""
    size = group_elements(builder.norm, builder.workspace)
    assert size is not None
    x = builder.grouped()
    ones = builder.constant(np.ones(size), "ones")
    attributes: Attributes = {"axis": -1, "epsilon": unrounded("epsilon", builder.norm.epsilon)}
    normal = builder.op(
        "LayerNormalization", [x, ones], builder.workspace.dims(x), builder.stashed(attributes)
    )
    return builder.batchnorm(builder.ungrouped(normal))


def emit_over_channels(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y, of a LayerNorm over axis 1."""
    rank = len(builder.dims)
    last, first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    dims = tuple(builder.dims[axis] for axis in last)
    operands = [
        builder.op("Transpose", [builder.x], dims, {"perm": last}),
        builder.constant(builder.norm.scale, "scale"),
        builder.constant(builder.norm.shift, "bias"),
    ]
    attributes: Attributes = {"axis": -1, "epsilon": unrounded("epsilon", builder.norm.epsilon)}
    normal = builder.op("LayerNormalization", operands, dims, attributes)
    return builder.op("Transpose", [normal], builder.dims, {"perm": first})
