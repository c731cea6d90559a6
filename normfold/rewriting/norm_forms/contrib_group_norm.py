"""com.microsoft.GroupNorm, which onnxruntime's CUDA provider has a kernel for.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupNorm

It takes x as [N, H, W, C], gamma and beta [C] in float32 whatever the type of x, and computes SiLU where
``activation`` is 1.
"""

from __future__ import annotations

import onnx_ir as ir

from normfold.evaluation.call import unrounded
from normfold.rewriting.norm_forms.builder import Attributes, Builder
from normfold.rewriting.opset import import_domain

_DOMAIN = "com.microsoft"
_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


def emit_contrib_group_norm(builder: Builder) -> ir.Value:
    """Returns the value that takes the place of y, its activation included."""
    norm = builder.norm
    import_domain(builder.workspace, _DOMAIN, 1)
    n, c, h, w = builder.dims
    last = (n, h, w, c)
    x = norm.x if builder.channels_last else builder.op("Transpose", [norm.x], last, {"perm": _CHANNELS_LAST})
    operands = [
        x,
        builder.constant(norm.scale, "gamma", ir.DataType.FLOAT),
        builder.constant(norm.shift, "beta", ir.DataType.FLOAT),
    ]
    attributes: Attributes = {
        "groups": norm.groups,
        "epsilon": unrounded("epsilon", norm.epsilon),
        "activation": int(norm.activation == "silu"),
        "channels_last": 1,
    }
    y = builder.op("GroupNorm", operands, last, attributes, domain=_DOMAIN)
    return (
        y if builder.channels_last else builder.op("Transpose", [y], builder.dims, {"perm": _CHANNELS_FIRST})
    )
