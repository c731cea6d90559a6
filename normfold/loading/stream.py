"""Writes a model as protobuf without ever holding more than one weight.

The bytes equal ``ModelProto.SerializeToString(deterministic=True)``: protobuf writes fields in the order of
their numbers, so a graph is a head (nodes, name), its initializers one by one, and a tail; only the length in
front of the graph has to be known beforehand, and tensors know their size. Encoding: protobuf documentation,
"Encoding", wire type 2 (length-delimited).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir

from normfold.errors import OutputError
from normfold.loading.layout import PROTOBUF_LIMIT, inline
from normfold.loading.transfer import DigestingSink, Sink, write_tensor
from normfold.loading.wire import frame
from normfold.progress import meter

_GRAPH_FIELD = 7
_INITIALIZER_FIELD = 5
_RAW_DATA_FIELD = 9
_MAX_FRAME = 16
_TENSOR_ATTRIBUTES = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)

Replacement = Callable[[ir.TensorProtocol], ir.TensorProtocol]


def write_model(
    model: ir.Model, file: Sink, replace: Replacement, check: Callable[[onnx.ModelProto], None] | None = None
) -> None:
    """Writes ``model`` to ``file``.

    Args:
        model: not changed.
        file: opened for writing.
        replace: gives for each initializer and tensor attribute the tensor to write in its place, or the
            tensor itself.
        check: is given the model with empty initializers before anything is written; may raise.

    Raises:
        OutputError: NF921 if the result is above the 2 GB limit of protobuf.
    """
    proto, tensors = outline(model, replace)
    if check is not None:
        check(proto)
    head, tail = _split(proto, _GRAPH_FIELD)
    graph_head, graph_tail = _split(proto.graph, _INITIALIZER_FIELD)
    entries = [_Entry(name, tensor) for name, tensor in tensors]
    graph_size = len(graph_head) + sum(entry.framed_size for entry in entries) + len(graph_tail)
    prefix = head + frame(_GRAPH_FIELD, graph_size) + graph_head
    if len(head) + graph_size + len(tail) > PROTOBUF_LIMIT - _MAX_FRAME:
        raise OutputError("the result is above the 2 GB limit of a single protobuf file", code="NF921")
    file.write(prefix)
    advance = meter(graph_size)
    for entry in entries:
        entry.write(file)
        advance(entry.framed_size)
    file.write(graph_tail)
    file.write(tail)


def model_sha256(model: ir.Model) -> tuple[str, int]:
    """SHA-256 and size in bytes of what ``write_model`` would write with all weights inside.

    Raises:
        OutputError: NF921 as ``write_model``.
    """

    sink = DigestingSink()
    write_model(model, sink, inline)
    return sink.sha256, sink.size


def outline(
    model: ir.Model, replace: Replacement
) -> tuple[onnx.ModelProto, list[tuple[str, ir.TensorProtocol]]]:
    """Serialises everything but the data of the main graph's initializers.

    Returns:
        The model, with an empty tensor for each initializer, and the initializers (name, tensor) to put in
        their place, in order.
    """
    main = {
        id(value): (value.name or "", value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None
    }
    tensors = [(name, replace(tensor)) for name, tensor in main.values()]

    empty = ir.Tensor(np.zeros(0, np.uint8))  # takes the name of each value while that is serialised

    def stub(value: ir.Value, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        return empty if id(value) in main else replace(tensor)

    with _substituted(model, stub, replace):
        proto = ir.to_proto(model)
    return proto, tensors


@contextmanager
def _substituted(
    model: ir.Model,
    for_initializer: Callable[[ir.Value, ir.TensorProtocol], ir.TensorProtocol],
    for_attribute: Replacement,
) -> Iterator[None]:
    """Exchanges all tensors of ``model`` for the duration of the block: the serialiser takes no mapping."""
    tops = (model.graph, *(function.graph for function in model.functions.values()))
    values = [
        (value, value.const_value)
        for top in tops
        for graph in (top, *top.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    names = [(tensor, tensor.name) for _, tensor in values]
    attributes = [
        (node, attribute)
        for top in tops
        for node in top.all_nodes()
        for attribute in node.attributes.values()
        if attribute.type in _TENSOR_ATTRIBUTES and not attribute.is_ref()
    ]
    try:
        for value, tensor in values:
            value.const_value = for_initializer(value, tensor)
        for node, attribute in attributes:
            content = (
                for_attribute(attribute.as_tensor())
                if attribute.type == ir.AttributeType.TENSOR
                else [for_attribute(tensor) for tensor in attribute.as_tensors()]
            )
            node.attributes[attribute.name] = ir.Attr(
                attribute.name, attribute.type, content, doc_string=attribute.doc_string
            )
        yield
    finally:
        for value, tensor in values:
            value.const_value = tensor
        for node, attribute in attributes:
            node.attributes[attribute.name] = attribute
        for tensor, name in names:
            if tensor.name != name:
                tensor.name = name


class _Entry:
    """One initializer. Its size is known from the start; its bytes are fetched when it is written, and not
    kept."""

    def __init__(self, name: str, tensor: ir.TensorProtocol) -> None:
        self._name = name
        self._tensor = tensor
        self._lazy = not isinstance(tensor, (ir.TensorProtoTensor, ir.ExternalTensor, ir.StringTensor))
        if self._lazy:
            head, self._tail = _split(_shell(name, tensor), _RAW_DATA_FIELD)
            self._head = head + frame(_RAW_DATA_FIELD, tensor.nbytes)
            self._size = len(self._head) + tensor.nbytes + len(self._tail)
        else:
            with _named(tensor, name) as proto:
                self._size = proto.ByteSize()

    @property
    def framed_size(self) -> int:
        return len(frame(_INITIALIZER_FIELD, self._size)) + self._size

    def write(self, file: Sink) -> None:
        file.write(frame(_INITIALIZER_FIELD, self._size))
        if not self._lazy:
            with _named(self._tensor, self._name) as proto:
                file.write(proto.SerializeToString(deterministic=True))
            return
        file.write(self._head)
        write_tensor(self._tensor, file, self._name)
        file.write(self._tail)


@contextmanager
def _named(tensor: ir.TensorProtocol, name: str) -> Iterator[onnx.TensorProto]:
    """Gives the protobuf of ``tensor`` under ``name``. A tensor that values of several names share keeps its
    own."""
    if not isinstance(tensor, ir.TensorProtoTensor):
        proto = ir.to_proto(tensor)
        proto.name = name
        yield proto
        return
    own = tensor.raw.name
    tensor.raw.name = name
    try:
        yield tensor.raw
    finally:
        tensor.raw.name = own


def _shell(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """Everything of a raw tensor but its bytes."""
    proto = onnx.TensorProto(name=name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key, value in sorted(tensor.metadata_props.items()):
        proto.metadata_props.add(key=key, value=value)
    return proto


def _split(message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto, number: int) -> tuple[bytes, bytes]:
    """Encodes the fields of ``message`` below ``number`` and those above, leaving out the field itself."""
    head, tail = type(message)(), type(message)()
    for field, value in message.ListFields():
        if field.number == number:
            continue
        part = head if field.number < number else tail
        own = getattr(part, field.name)
        if hasattr(own, "MergeFrom"):
            own.MergeFrom(value)
        else:
            setattr(part, field.name, value)
    return head.SerializeToString(deterministic=True), tail.SerializeToString(deterministic=True)
