"""What is refused before the in-memory model is built: what it would lose, and what is not a valid model.

The checks run on the protobuf, because onnx_ir drops sparse initializers and training info silently and
accepts invalid graphs. The specific checks come first, for a precise message; the ONNX checker is the net
behind them.
"""

from __future__ import annotations

import math
from typing import Any

import onnx
import onnx_ir as ir
from onnx import TensorProto

from normfold.errors import InputError
from normfold.loading import walk
from normfold.loading.external import tensor_nbytes
from normfold.loading.messages import one_line
from normfold.loading.structure import check_structure

_ONNX_DOMAINS = ("", "ai.onnx")
_STANDARD_DOMAINS = ("", "ai.onnx.ml")

# Operators of the default domain whose schema is missing or deprecated at some opset, and which onnxruntime
# runs there all the same: GroupNormalization 18-20 is deprecated; onnxruntime's own tools write
# LayerNormalization before 17.
_TOLERATED = frozenset({"GroupNormalization", "LayerNormalization", "SimplifiedLayerNormalization"})
_TOLERATED_DOMAIN = "normfold.tolerated"

_SMALL_TENSOR_BYTES = 1024


def refuse(model: onnx.ModelProto, *, with_data: bool = True) -> None:
    """Raises unless ``model`` is valid and nothing of it would be lost.

    External data is not looked at here (see ``external.check_external``).

    Args:
        model: the model.
        with_data: check the data of tensors too.

    Raises:
        InputError: NF902 to NF908, NF911 or NF912, in one line.
    """
    if not model.HasField("graph") or not model.HasField("ir_version"):
        raise InputError("not an ONNX model: it has no graph or no IR version", code="NF902")
    skeleton = _skeleton(model)
    _refuse_undecodable(skeleton)
    _refuse_what_would_be_lost(model)
    _refuse_unknown_versions(model)
    check_structure(skeleton)
    if with_data:
        for tensor in walk.tensors(model):
            _check_tensor(tensor)
    _check_schemas(skeleton)


def _refuse_undecodable(message: Any) -> None:
    """Text that is not UTF-8 comes out of protobuf as bytes, and nothing behind here expects that."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if walk.is_repeated(value) else (value,):
                _refuse_undecodable(inner)
        elif field.type == field.TYPE_STRING:
            for text in value if walk.is_repeated(value) else (value,):
                if not isinstance(text, str):
                    raise InputError(
                        f"not an ONNX model, or damaged: {field.name} {text!r} is not valid UTF-8",
                        code="NF902",
                    )


def _refuse_what_would_be_lost(model: onnx.ModelProto) -> None:
    if model.training_info:
        raise InputError("the model carries training_info, which would be lost", code="NF905")
    for graph in walk.graphs(model):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise InputError(f"sparse initializer {name!r} would be lost", code="NF904")
    for top in (model.graph.node, *(function.node for function in model.functions)):
        for node in walk.nodes(top):
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    owner = node.output[0] if node.output else node.op_type
                    raise InputError(
                        f"sparse tensor in the attributes of {owner!r} would be lost", code="NF904"
                    )


def _refuse_unknown_versions(model: onnx.ModelProto) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"IR version {model.ir_version} is newer than the installed onnx {onnx.__version__} knows "
            f"({onnx.IR_VERSION})",
            code="NF911",
        )
    imports = [model.opset_import, *(function.opset_import for function in model.functions)]
    if not model.opset_import:
        raise InputError("the model imports no operator set", code="NF912")
    for opsets in imports:
        for opset in opsets:
            domain = "" if opset.domain in _ONNX_DOMAINS else opset.domain
            if domain not in _STANDARD_DOMAINS:
                continue
            newest = onnx.defs.onnx_opset_version() if not domain else onnx.defs.onnx_ml_opset_version()
            if opset.version > newest:
                raise InputError(
                    f"opset {opset.version} of domain {domain or 'ai.onnx'} is newer than the installed onnx "
                    f"{onnx.__version__} knows ({newest})",
                    code="NF911",
                )


def _check_tensor(tensor: onnx.TensorProto) -> None:
    name = tensor.name or "<unnamed>"
    if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
        raise InputError(f"tensor {name!r} has the unknown data type {tensor.data_type}", code="NF903")
    if tensor.HasField("segment"):
        raise InputError(f"tensor {name!r} is stored in segments", code="NF913")
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    try:
        needed = tensor_nbytes(tensor)
    except ValueError as error:
        raise InputError(f"tensor {name!r}: {error}", code="NF903") from error
    if tensor.HasField("raw_data"):
        unit, found = "bytes", len(tensor.raw_data)
    else:
        unit, field = "values", onnx.helper.tensor_dtype_to_field(tensor.data_type)
        needed, found = _typed_length(tensor), len(getattr(tensor, field))
    if found != needed:
        raise InputError(
            f"tensor {name!r} of shape {list(tensor.dims)} needs {needed} {unit}, it has {found}",
            code="NF903",
        )


def _typed_length(tensor: onnx.TensorProto) -> int:
    """Entries of the typed data field: complex numbers take two, types of two or four bits share one."""
    elements = math.prod(map(int, tensor.dims))
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * elements
    if tensor.data_type == TensorProto.STRING:
        return elements
    bits: int = ir.DataType(tensor.data_type).bitwidth
    return (elements * bits + 7) // 8 if bits in (2, 4) else elements


def _check_schemas(skeleton: onnx.ModelProto) -> None:
    """Runs the ONNX checker; marks tolerated operators in ``skeleton``.

    Raises:
        InputError: NF903 (NF912 for a domain without an operator set), with the checker's first line.
    """
    _mark_tolerated(skeleton)
    try:
        onnx.checker.check_model(skeleton)
    except onnx.checker.ValidationError as error:
        text = one_line(error)
        lines = str(error).splitlines()
        if text.endswith("of node:") and len(lines) > 1:
            text = one_line(" ".join(line for line in lines[:3]))
        code = "NF912" if text.startswith("No opset import") else "NF903"
        raise InputError(f"not a valid ONNX model: {text}", code=code) from error


def _mark_tolerated(skeleton: onnx.ModelProto) -> None:
    for top in (skeleton.graph.node, *(function.node for function in skeleton.functions)):
        for node in walk.nodes(top):
            if node.domain in _ONNX_DOMAINS and node.op_type in _TOLERATED:
                node.domain = _TOLERATED_DOMAIN
    for opsets in (skeleton.opset_import, *(function.opset_import for function in skeleton.functions)):
        opsets.add(domain=_TOLERATED_DOMAIN, version=1)


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copies ``model`` without its large tensors.

    So the checks need no second copy of the weights and no file, and models above 2 GB are checked like
    small ones.
    """
    skeleton = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(skeleton, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(skeleton.graph, field.name, value)
    skeleton.graph.SetInParent()
    for tensor in model.graph.initializer:
        _add_outline(skeleton.graph, tensor)
    for tensor in walk.tensors(skeleton):
        if tensor.data_location == TensorProto.EXTERNAL:
            _empty(tensor)
    return skeleton


def _copy_field(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    own = getattr(target, name)
    if hasattr(own, "MergeFrom"):
        own.MergeFrom(value)
    else:
        setattr(target, name, value)


def _add_outline(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() <= _SMALL_TENSOR_BYTES:
        graph.initializer.add().CopyFrom(tensor)
        return
    outline = graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
    _empty(outline)


def _empty(tensor: onnx.TensorProto) -> None:
    """Leaves a valid tensor of the same type without elements."""
    kept = (tensor.name, tensor.data_type)
    tensor.Clear()
    tensor.name, tensor.data_type = kept
    tensor.dims.append(0)
