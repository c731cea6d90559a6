"""LayerNormalization over groups: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html

x [N, C, *S] is seen as [N, G, C/G·S] and normalised over its last axis, with a scale of ones of that length.
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
    normal = builder.op("LayerNormalization", [x, ones], builder.workspace.dims(x), attributes)
    return builder.batchnorm(builder.ungrouped(normal))
