"""The forms that a GroupNorm or InstanceNorm can be given, and where each is valid.

| form | nodes |
|---|---|
| ``instancenorm`` | Reshape [N, G, rest] → InstanceNormalization(1, 0) → Reshape → Mul → Add |
| ``instancenorm-bn`` | the same with one BatchNormalization in the place of Mul and Add |
| ``layernorm`` | Reshape [N, G, rest] → LayerNormalization(1) → Reshape → BatchNormalization |
| ``native`` | GroupNormalization, of opset 21, with scale and bias [C] |
| ``ms-groupnorm`` | Transpose → com.microsoft.GroupNorm over [N, H, W, C], SiLU inside → Transpose |
| ``primitive`` | Reshape → ReduceMean → Sub → Mul → ReduceMean → Add → Sqrt → Div → Reshape → Mul → Add |

With as many groups as channels the first two are one InstanceNormalization without any Reshape.

GroupNormalization of opset 18, with scale and bias [G], is not among them: ``onnx.checker`` refuses it as
deprecated.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm

Form = Literal["instancenorm", "instancenorm-bn", "layernorm", "native", "ms-groupnorm", "primitive"]
FORMS: tuple[Form, ...] = get_args(Form)

_LAYER_NORMALIZATION = 17
_SCALE_PER_CHANNEL = 21
_AXES_ARE_INPUT = 18
_INSTANCE_NORMALIZATION_OF_BFLOAT16 = 22
_NUMPY_BROADCASTING = 9
LATEST_NEEDED = 22
"""No form needs a later opset."""

_IMAGE_RANK = 4
_MOST_CHANNELS_OF_A_BLOCK = 512
"""The CUDA kernel of com.microsoft.GroupNorm sums a group within one block of two channels per thread, and is
compiled for blocks of up to 256; more it refuses when it runs, not when the model is loaded."""

_CORES: dict[tuple[str, str], Form] = {
    ("", "InstanceNormalization"): "instancenorm",
    ("", "LayerNormalization"): "layernorm",
    ("", "GroupNormalization"): "native",
}


def form_of(norm: Norm) -> Form:
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


def needed_opset(norm: Norm, form: Form, workspace: Workspace) -> int:
    """The first opset that a form of a norm exists in."""
    if form == "native":
        # Version 18 has one scale per group, and is deprecated.
        return _SCALE_PER_CHANNEL
    if form == "layernorm":
        return _LAYER_NORMALIZATION
    narrow = workspace.shapes.dtype(norm.x) == ir.DataType.BFLOAT16
    if narrow and form in ("instancenorm", "instancenorm-bn"):
        return _INSTANCE_NORMALIZATION_OF_BFLOAT16
    return _NUMPY_BROADCASTING


def obstacle(norm: Norm, form: Form, workspace: Workspace) -> str | None:
    """Why a norm cannot be given a form at any opset; ``None`` if it can."""
    dims, dtype = workspace.dims(norm.x), workspace.shapes.dtype(norm.x)
    if dims is None or len(dims) < 2:
        return "the rank is not known"
    if norm.kind not in ("groupnorm", "instancenorm") or norm.channel_axis not in (1, len(dims) - 1):
        return "its channels are neither the first axis nor the last behind the samples"
    if dtype not in FLOAT_TYPES:
        return "the type is not known"
    if dtype == ir.DataType.DOUBLE and form in ("instancenorm", "instancenorm-bn"):
        return "onnxruntime has no InstanceNormalization of float64"
    if (
        dtype == ir.DataType.DOUBLE
        and form != "primitive"
        and float(np.float32(norm.epsilon)) != norm.epsilon
    ):
        return "its epsilon is more precise than an attribute"
    if norm.groups == norm.channels and len(dims) < 3:
        return "every group is a single element"
    if norm.unbiased:
        return "its variance divides by K - 1, and K is not static"
    if form == "layernorm" and group_elements(norm, workspace) is None:
        return "LayerNormalization needs static sizes"
    if form == "ms-groupnorm":
        if len(dims) != _IMAGE_RANK:
            return f"com.microsoft.GroupNorm takes rank {_IMAGE_RANK}, not {len(dims)}"
        if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return "com.microsoft.GroupNorm takes float32 and float16 only"
        if norm.channels // norm.groups % 2:
            return "com.microsoft.GroupNorm takes an even number of channels per group"
        if norm.channels // norm.groups > _MOST_CHANNELS_OF_A_BLOCK:
            return f"com.microsoft.GroupNorm takes at most {_MOST_CHANNELS_OF_A_BLOCK} channels per group"
    return None


def spatial_dims(norm: Norm, workspace: Workspace) -> Dims:
    """Dimensions of x but for samples and channels."""
    dims = workspace.dims(norm.x) or ()
    return tuple(dim for axis, dim in enumerate(dims) if axis not in (0, norm.channel_axis))


def group_elements(norm: Norm, workspace: Workspace) -> int | None:
    """How many elements one group of one sample has, where that is static."""
    sizes = spatial_dims(norm, workspace)
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) != len(sizes):
        return None
    return norm.channels // norm.groups * math.prod(known)


def axes_are_input(workspace: Workspace) -> bool:
    """Whether ReduceMean takes its axes as an operand."""
    return workspace.opset >= _AXES_ARE_INPUT
