"""Why a fold stumbled over a model: is the model at fault?

The ONNX checker looks at nodes one by one, and not into local functions. A model may pass it and still have
operands of impossible types and shapes. To refuse all that at the start would also refuse models that are
merely annotated wrongly, so it is asked only where something has gone wrong.
"""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from normfold.errors import InputError
from normfold.loading.layout import inline
from normfold.loading.messages import one_line, root_cause
from normfold.loading.refusals import refuse
from normfold.loading.stream import outline

_UNKNOWN = "instead is null"


def diagnose(model: ir.Model) -> InputError | None:
    """Says what is wrong with a model, ``None`` if nothing is. Weights of the main graph are not read."""
    try:
        inlined = InlinePass()(model.clone()).model if model.functions else model
    except Exception as error:
        text = one_line(root_cause(error))
        return InputError(f"has local functions that cannot be inlined: {text}", code="NF913")
    try:
        proto = _without_weights(inlined)
        refuse(proto, with_data=False)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except InputError as error:
        return error
    except Exception as error:
        cause = _first_cause(error)
        return InputError(f"not a valid ONNX model: {cause}", code="NF903") if cause else None
    return None


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with an input of the same type and shape for each initializer."""
    proto, tensors = outline(model, inline)
    del proto.graph.initializer[:]
    inputs = {value.name for value in proto.graph.input}
    for name, tensor in tensors:
        if name not in inputs:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.dtype.value, tensor.shape.numpy())
            )
    return proto


def _first_cause(error: Exception) -> str | None:
    """The first line that finds a fault; a type that is unknown, as behind a custom operator, is none."""
    lines = [line for line in str(error).splitlines() if line.strip() and _UNKNOWN not in line]
    return one_line(lines[0]) if lines else None
