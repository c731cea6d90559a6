"""The forms that a GroupNorm or InstanceNorm can be given, and where each is valid.

| form | nodes |
|---|---|
| ``instancenorm`` | Reshape [N, G, rest] → InstanceNormalization(1, 0) → Reshape → Mul → Add |
| ``instancenorm-bn`` | the same with one BatchNormalization in the place of Mul and Add |
| ``layernorm`` | Reshape [N, G, rest] → LayerNormalization(1) → Reshape → BatchNormalization |
| ``native`` | GroupNormalization, of opset 21, with scale and bias [C] |
| ``primitive`` | Reshape → ReduceMean → Sub → Mul → ReduceMean → Add → Sqrt → Div → Reshape → Mul → Add |

With as many groups as channels the first two are one InstanceNormalization without any Reshape.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import onnx_ir as ir

from normfold.preparation.constants import FLOAT_TYPES
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm

Form = Literal["instancenorm", "instancenorm-bn", "layernorm", "native", "primitive"]
FORMS: tuple[Form, ...] = get_args(Form)

_LAYER_NORMALIZATION = 17
_SCALE_PER_CHANNEL = 21
_AXES_ARE_INPUT = 18
_INSTANCE_NORMALIZATION_OF_BFLOAT16 = 22
_NUMPY_BROADCASTING = 9

_CORES: dict[tuple[str, str], Form] = {
    ("", "InstanceNormalization"): "instancenorm",
    ("", "LayerNormalization"): "layernorm",
    ("", "GroupNormalization"): "native",
}


def form_of(norm: Norm) -> str:
    """The form that a norm has now; ``primitive`` is every spelling without an operator of its own."""
    for node in norm.nodes:
        if (node.domain, node.op_type) == ("com.microsoft", "GroupNorm"):
            return "ms-groupnorm"
        core = _CORES.get((node.domain.replace("ai.onnx", ""), node.op_type))
        if core == "instancenorm" and any(n.op_type == "BatchNormalization" for n in norm.nodes):
            return "instancenorm-bn"
        if core is not None:
            return core
    return "primitive"


def obstacle(norm: Norm, form: Form, workspace: Workspace) -> str | None:
    """Why a norm cannot be given a form; ``None`` if it can."""
    dims, dtype, opset = workspace.dims(norm.x), workspace.shapes.dtype(norm.x), workspace.opset
    if norm.kind not in ("groupnorm", "instancenorm") or norm.channel_axis != 1:
        return "its channels are not axis 1"
    if dims is None or len(dims) < 2:
        return "the rank is not known"
    if dtype not in FLOAT_TYPES:
        return "the type is not known"
    if opset < _NUMPY_BROADCASTING:
        return f"opset {opset} is older than {_NUMPY_BROADCASTING}"
    if norm.groups == norm.channels and len(dims) < 3:
        return "every group is a single element"
    if form in ("instancenorm", "instancenorm-bn"):
        if dtype == ir.DataType.BFLOAT16 and opset < _INSTANCE_NORMALIZATION_OF_BFLOAT16:
            return f"InstanceNormalization takes bfloat16 from opset {_INSTANCE_NORMALIZATION_OF_BFLOAT16} on"
    elif form == "layernorm":
        if opset < _LAYER_NORMALIZATION:
            return f"LayerNormalization needs opset {_LAYER_NORMALIZATION}, the model has {opset}"
        if group_elements(norm, workspace) is None:
            return "LayerNormalization needs static sizes"
    elif form == "native" and opset < _SCALE_PER_CHANNEL:
        # Version 18 has one scale per group, and is deprecated.
        return f"a scale per channel needs opset {_SCALE_PER_CHANNEL}, the model has {opset}"
    return None


def group_elements(norm: Norm, workspace: Workspace) -> int | None:
    """How many elements one group of one sample has, where that is static."""
    sizes = (workspace.dims(norm.x) or (None, None, None))[2:]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) != len(sizes):
        return None
    return norm.channels // norm.groups * math.prod(known)


def axes_are_input(workspace: Workspace) -> bool:
    """Whether ReduceMean takes its axes as an operand."""
    return workspace.opset >= _AXES_ARE_INPUT
