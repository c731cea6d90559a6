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
from normfold.loading.places import MAIN_GRAPH, message_at
from normfold.loading.refusals import refuse
from normfold.loading.stream import outline

_UNKNOWN = "instead is null"


def diagnose(model: ir.Model) -> InputError | None:
    """Says what is wrong with a model, ``None`` if nothing is. Large weights are not read."""
    try:
        inlined = InlinePass()(model.clone()).model if model.functions else model
    except Exception as error:
        text = one_line(root_cause(error))
        return InputError(f"has local functions that cannot be inlined: {text}", code="NF913")
    try:
        proto, tensors = outline(inlined, inline)
        _make_inputs(proto, inlined)
        refuse(proto, with_data=False)
        # Inference reads types and shapes of the other tensors, and would not miss their bytes.
        for place, apart in tensors.items():
            if place[:-1] != MAIN_GRAPH:
                stub = message_at(proto, place)
                stub.data_type = apart.tensor.dtype.value
                stub.dims[:] = apart.tensor.shape.numpy()
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except InputError as error:
        return error
    except Exception as error:
        cause = _first_cause(error)
        return InputError(f"not a valid ONNX model: {cause}", code="NF903") if cause else None
    return None


def _make_inputs(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Puts an input of the same type and shape in the place of each initializer of the main graph."""
    del proto.graph.initializer[:]
    inputs = {value.name for value in proto.graph.input}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and value.name not in inputs:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(value.name or "", tensor.dtype.value, tensor.shape.numpy())
            )


def _first_cause(error: Exception) -> str | None:
    """The first line that finds a fault; a type that is unknown, as behind a custom operator, is none."""
    lines = [line for line in str(error).splitlines() if line.strip() and _UNKNOWN not in line]
    return one_line(lines[0]) if lines else None
