"""Reads a model file without its large weights, which stay where they are: in the file, mapped.

The decoder of protobuf copies every weight. So what it is given is an outline of the file: the bytes without
the raw data of large tensors. Encoding: protobuf documentation, "Encoding"; fields: onnx.proto. A file that
is anything but plain is decoded whole, and judged by what that finds.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from normfold.errors import InputError
from normfold.loading.external import tensor_nbytes
from normfold.loading.transfer import Sink
from normfold.loading.wire import LENGTH_DELIMITED, Malformed, fields, frame

_LARGE = 1 << 14
"""Bytes of raw data from which on a tensor stays in the file."""

_BYTE_BITS = 8

_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR, _RAW_DATA = 7, 1, 5, 5, 5, 9
# dims, data_type, name, raw_data, doc_string, data_location, metadata_props
_PLAIN_TENSOR = frozenset({1, 2, 8, _RAW_DATA, 12, 14, 16})

Place = tuple[int, ...]
"""Of a tensor in the main graph: index of its initializer, or indices of its node and the attribute."""

_Pieces = list[bytes | memoryview]
_Change = Callable[[int, slice], _Pieces | None]
"""Is given the index and the payload of a field; returns the payload to put there, ``None`` to leave it."""


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
        nodes = list(model.graph)
        for place, tensor in self.tensors.items():
            if len(place) == 1:
                value = model.graph.initializers[tensor.name or ""]
                value.const_value = tensor
                value.shape = ir.Shape(tensor.shape.numpy())
            else:
                node, index = place
                old = nodes[node].attributes[self.proto.graph.node[node].attribute[index].name]
                nodes[node].attributes[old.name] = ir.Attr(
                    old.name, old.type, tensor, doc_string=old.doc_string
                )


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
                _tensor_at(proto, place).raw_data = bytes(content[span])
    return Outline(proto, tensors)


def _tensor_at(proto: onnx.ModelProto, place: Place) -> onnx.TensorProto:
    tensor: onnx.TensorProto
    if len(place) == 1:
        tensor = proto.graph.initializer[place[0]]
    else:
        tensor = proto.graph.node[place[0]].attribute[place[1]].t
    return tensor


def _mappable(proto: onnx.ModelProto, place: Place, length: int) -> onnx.TensorProto | None:
    """The tensor, if ``length`` bytes are what it takes and numpy reads them as they are."""
    tensor = _tensor_at(proto, place)
    try:
        if length != tensor_nbytes(tensor) or ir.DataType(tensor.data_type).bitwidth < _BYTE_BITS:
            return None
    except (TypeError, ValueError):
        return None
    if len(place) == 1:
        named = bool(tensor.name)
    else:
        node, index = place
        named = proto.graph.node[node].attribute[index].type == onnx.AttributeProto.TENSOR
    return tensor if named and tensor.data_location == onnx.TensorProto.DEFAULT else None


def _without_raw_data(content: memoryview) -> tuple[_Pieces, dict[Place, slice]]:
    """The bytes of a model without the raw data of large tensors of the main graph, and where these lie.

    Raises:
        Malformed: the file is not plain.
    """
    found: dict[Place, slice] = {}

    def graph(index: int, span: slice) -> _Pieces | None:
        _require_first(index)
        return _message(content, span, {_NODE: node, _INITIALIZER: lambda i, inner: tensor((i,), inner)})

    def node(number: int, span: slice) -> _Pieces | None:
        def attribute(slot: int, inner: slice) -> _Pieces | None:
            def value(index: int, innermost: slice) -> _Pieces | None:
                _require_first(index)
                return tensor((number, slot), innermost)

            return _message(content, inner, {_TENSOR: value})

        return _message(content, span, {_ATTRIBUTE: attribute})

    def tensor(place: Place, span: slice) -> _Pieces | None:
        raw = _raw_data(content, span)
        if raw is None:
            return None
        field, payload = raw
        found[place] = payload
        return [content[span.start : field.start], content[field.stop : span.stop]]

    pieces = _message(content, slice(0, len(content)), {_GRAPH: graph})
    return pieces or [content], found


def _message(content: memoryview, span: slice, changes: dict[int, _Change]) -> _Pieces | None:
    """A message with some of its large fields changed; ``None`` where none is."""
    pieces: _Pieces = []
    met = dict.fromkeys(changes, 0)
    kept = span.start
    for number, kind, begin, start, stop in fields(content, span.start, span.stop):
        if number not in changes:
            continue
        if kind != LENGTH_DELIMITED:
            raise Malformed(f"field {number} has wire type {kind}")
        index = met[number]
        met[number] += 1
        inner = changes[number](index, slice(start, stop)) if stop - start >= _LARGE else None
        if inner is not None:
            pieces += [content[kept:begin], frame(number, sum(map(len, inner))), *inner]
            kept = stop
    return [*pieces, content[kept : span.stop]] if pieces else None


def _raw_data(content: memoryview, span: slice) -> tuple[slice, slice] | None:
    """The raw data of a tensor that has nothing unusual: the field and its payload."""
    found = None
    for number, kind, begin, start, stop in fields(content, span.start, span.stop):
        if number not in _PLAIN_TENSOR or (number == _RAW_DATA and found is not None):
            return None
        if number == _RAW_DATA and kind == LENGTH_DELIMITED and stop - start >= _LARGE:
            found = slice(begin, stop), slice(start, stop)
    return found


def _require_first(index: int) -> None:
    """A message that comes twice is merged by the decoder."""
    if index:
        raise Malformed("a message comes twice")
