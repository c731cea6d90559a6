"""Reads a model file without its large weights, which stay where they are: in the file, mapped.

The decoder of protobuf copies every weight. So what it is given is an outline of the file: the bytes without
the raw data of large tensors. Encoding: protobuf documentation, "Encoding"; fields: onnx.proto. A file that
is anything but plain is decoded whole, and judged by what that finds.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from normfold.errors import InputError
from normfold.loading import places
from normfold.loading.external import tensor_nbytes
from normfold.loading.places import Kind, Pieces, Place, exchanged, message_at
from normfold.loading.transfer import Sink
from normfold.loading.wire import LENGTH_DELIMITED, Malformed, fields

_LARGE = 1 << 14
"""Bytes of raw data from which on a tensor stays in the file."""

_BYTE_BITS = 8

_DEEPEST = 100
"""Messages inside each other that the decoder of protobuf takes."""

_RAW_DATA = 9
# dims, data_type, name, raw_data, doc_string, data_location, metadata_props
_PLAIN_TENSOR = frozenset({1, 2, 8, _RAW_DATA, 12, 14, 16})

_ATTRIBUTE_TYPES = {
    places.VALUE: onnx.AttributeProto.TENSOR,
    places.VALUES: onnx.AttributeProto.TENSORS,
    places.SUBGRAPH: onnx.AttributeProto.GRAPH,
    places.SUBGRAPHS: onnx.AttributeProto.GRAPHS,
}


class MappedFile:
    """A file in memory. Whoever has it open notices when it is no longer what it was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = os.fdopen(os.dup(file.fileno()), "rb")
        self._state = self._now()
        self._mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def content(self) -> memoryview:
        """All its bytes.

        Raises:
            InputError: NF901 if the file was written to since it was opened: its pages may be gone.
        """
        if self._now() != self._state:
            raise InputError("the model file was changed while its weights were in use", code="NF901")
        return memoryview(self._mapped)

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


class MappedTensor(ir.LazyTensor):
    """A tensor whose bytes lie in a mapped file, and are looked at there."""

    def __init__(self, file: MappedFile, start: int, outline: onnx.TensorProto) -> None:
        self._content, self._start = file, start
        super().__init__(
            self._whole,
            ir.DataType(outline.data_type),
            ir.Shape(outline.dims),
            name=outline.name,
            doc_string=outline.doc_string or None,
            metadata_props={entry.key: entry.value for entry in outline.metadata_props},
        )

    def _bytes(self) -> memoryview:
        return self._content.content()[self._start : self._start + self.nbytes]

    def _whole(self) -> ir.TensorProtocol:
        array = np.frombuffer(self._bytes(), self.dtype.numpy().newbyteorder("<"))
        return ir.Tensor(array.reshape(self.shape.numpy()), dtype=self.dtype, name=self.name)

    def tofile(self, file: Sink) -> None:
        file.write(self._bytes())


@dataclass(frozen=True)
class Outline:
    """A decoded model file.

    Attributes:
        proto: the model; tensors that stay in the file have no elements.
        tensors: those, by their place in it.
    """

    proto: onnx.ModelProto
    tensors: dict[Place, MappedTensor]

    def put_back(self, model: ir.Model) -> None:
        """Gives ``model``, which was made of ``proto``, the tensors that stay in the file."""
        nodes: dict[ir.Graph, list[ir.Node]] = {}
        for place, tensor in self.tensors.items():
            graph, proto, steps = model.graph, self.proto.graph, list(place[1:])
            while len(steps) > 1:
                (_, at), (_, slot), (number, index), *steps = steps
                if graph not in nodes:
                    nodes[graph] = list(graph)
                node, attribute = nodes[graph][at], proto.node[at].attribute[slot]
                held = node.attributes[attribute.name]
                if not steps:
                    _give(node, held, index, tensor)
                elif number == places.SUBGRAPH:
                    graph, proto = held.as_graph(), attribute.g
                else:
                    graph, proto = held.as_graphs()[index], attribute.graphs[index]
            if steps:
                value = graph.initializers[tensor.name or ""]
                value.const_value = tensor
                value.shape = ir.Shape(tensor.shape.numpy())


def _give(node: ir.Node, held: ir.Attr, index: int, tensor: ir.TensorProtocol) -> None:
    """Puts a tensor into an attribute, which cannot be changed itself."""
    content: ir.TensorProtocol | list[ir.TensorProtocol] = tensor
    if held.type == ir.AttributeType.TENSORS:
        content = list(held.as_tensors())
        content[index] = tensor
    node.attributes[held.name] = ir.Attr(held.name, held.type, content, doc_string=held.doc_string)


def decode(file: BinaryIO) -> Outline:
    """Decodes a model file that is not empty.

    Raises:
        google.protobuf.message.DecodeError: it is no protobuf.
        OSError: it cannot be mapped.
    """
    mapped = MappedFile(file)
    proto = onnx.ModelProto()
    tensors: dict[Place, MappedTensor] = {}
    with mapped.content() as content:
        try:
            pieces, spans = _without_raw_data(content)
        except Malformed:
            pieces, spans = [content], {}
        proto.ParseFromString(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        for place, span in spans.items():
            tensor = _mappable(proto, place, span.stop - span.start)
            if tensor is not None:
                tensors[place] = MappedTensor(mapped, span.start, tensor)
                tensor.dims[:] = [0]
            else:
                message_at(proto, place).raw_data = bytes(content[span])
    return Outline(proto, tensors)


def _mappable(proto: onnx.ModelProto, place: Place, length: int) -> onnx.TensorProto | None:
    """The tensor, if ``length`` bytes are what it takes, numpy reads them as they are, and what it lies in is
    what it says."""
    tensor: onnx.TensorProto = message_at(proto, place)
    try:
        if length != tensor_nbytes(tensor) or ir.DataType(tensor.data_type).bitwidth < _BYTE_BITS:
            return None
    except (TypeError, ValueError):
        return None
    if tensor.data_location != onnx.TensorProto.DEFAULT:
        return None
    named = bool(tensor.name) or isinstance(message_at(proto, place[:-1]), onnx.AttributeProto)
    return tensor if named and _is_plain(proto, place) else None


def _is_plain(proto: onnx.ModelProto, place: Place) -> bool:
    """Whether every attribute on the way is of the type of what it holds, and the only one of its name."""
    for depth, (number, _) in enumerate(place):
        owner = message_at(proto, place[:depth])
        if isinstance(owner, onnx.AttributeProto):
            node: onnx.NodeProto = message_at(proto, place[: depth - 1])
            if owner.type != _ATTRIBUTE_TYPES[number]:
                return False
            if sum(attribute.name == owner.name for attribute in node.attribute) != 1:
                return False
    return True


def _without_raw_data(content: memoryview) -> tuple[Pieces[bytes], dict[Place, slice]]:
    """The bytes of a model without the raw data of large tensors, and where these lie.

    Raises:
        Malformed: the file is not plain.
    """
    found: dict[Place, slice] = {}

    def cut(kind: Kind, place: Place, span: slice) -> Pieces[bytes] | None:
        if len(place) > _DEEPEST:
            raise Malformed("too many messages lie inside each other")
        if kind is places.TENSOR:
            return tensor(place, span)

        def change(number: int, index: int, inner: slice) -> Pieces[bytes] | None:
            if index and number in kind.once:
                raise Malformed("a message comes twice")
            if inner.stop - inner.start < _LARGE:
                return None
            return cut(kind.fields[number], (*place, (number, index)), inner)

        return exchanged(content, span, kind.fields, change)

    def tensor(place: Place, span: slice) -> Pieces[bytes] | None:
        raw = _raw_data(content, span)
        if raw is None:
            return None
        field, payload = raw
        found[place] = payload
        return [content[span.start : field.start], content[field.stop : span.stop]]

    return cut(places.MODEL, (), slice(0, len(content))) or [content], found


def _raw_data(content: memoryview, span: slice) -> tuple[slice, slice] | None:
    """The raw data of a tensor that has nothing unusual: the field and its payload."""
    found = None
    for number, kind, begin, start, stop in fields(content, span.start, span.stop):
        if number not in _PLAIN_TENSOR or (number == _RAW_DATA and found is not None):
            return None
        if number == _RAW_DATA and kind == LENGTH_DELIMITED and stop - start >= _LARGE:
            found = slice(begin, stop), slice(start, stop)
    return found
