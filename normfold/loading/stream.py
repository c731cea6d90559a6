"""Writes a model as protobuf without ever holding more than one weight.

The bytes equal ``ModelProto.SerializeToString(deterministic=True)``: an outline of the model, which has
empty tensors, is encoded, and each tensor is written in its place. Only the lengths in front of what it lies
in have to be known beforehand, and tensors know their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from normfold.errors import OutputError
from normfold.loading import places
from normfold.loading.layout import PROTOBUF_LIMIT, inline
from normfold.loading.places import MAIN_GRAPH, Pieces, Place, exchanged
from normfold.loading.transfer import DigestingSink, Sink, write_tensor
from normfold.loading.walk import is_repeated
from normfold.loading.wire import frame
from normfold.progress import meter

_RAW_DATA_FIELD = 9
_MAX_FRAME = 16

_APART = 1 << 10
"""Bytes from which on a tensor is written by itself."""

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
        check: is given the model with empty tensors before anything is written; may raise.

    Raises:
        OutputError: NF921 if the result is above the 2 GB limit of protobuf.
    """
    proto, tensors = outline(model, replace)
    if check is not None:
        check(proto)
    content = memoryview(proto.SerializeToString(deterministic=True))
    del proto
    pieces = _filled(content, slice(0, len(content)), _tree(tensors)) or [content]
    size = sum(map(len, pieces))
    if size > PROTOBUF_LIMIT - _MAX_FRAME:
        raise OutputError("the result is above the 2 GB limit of a single protobuf file", code="NF921")
    advance = meter(size)
    for piece in pieces:
        if isinstance(piece, _Entry):
            piece.write(file)
        else:
            file.write(piece)
        advance(len(piece))


def model_sha256(model: ir.Model) -> tuple[str, int]:
    """SHA-256 and size in bytes of what ``write_model`` would write with all weights inside.

    Raises:
        OutputError: NF921 as ``write_model``.
    """

    sink = DigestingSink()
    write_model(model, sink, inline)
    return sink.sha256, sink.size


@dataclass(frozen=True)
class Apart:
    """A tensor of which an outline has an empty one.

    Attributes:
        tensor: the tensor.
        name: what it is written as; an attribute's tensor keeps its own.
    """

    tensor: ir.TensorProtocol
    name: str | None


def outline(model: ir.Model, replace: Replacement) -> tuple[onnx.ModelProto, dict[Place, Apart]]:
    """Serialises everything but large tensors.

    Returns:
        The model, with an empty tensor for each large one, and the tensors to put in their place.
    """
    with _Substitution(replace) as substitution:
        substitution.enter(model.graph, MAIN_GRAPH)
        for function in model.functions.values():
            substitution.enter(function.graph, None)
        proto = ir.to_proto(model)
    return proto, substitution.apart


class _Substitution:
    """Exchanges tensors of a model for the duration of the block: the serialiser takes no mapping."""

    def __init__(self, replace: Replacement) -> None:
        self.apart: dict[Place, Apart] = {}
        self._replace = replace
        self._empty = ir.Tensor(np.zeros(0, np.uint8))  # takes the name of a value while that is serialised
        self._values: list[tuple[ir.Value, ir.TensorProtocol]] = []
        self._names: list[tuple[ir.TensorProtocol, str | None]] = []
        self._attributes: list[tuple[ir.Node, ir.Attr]] = []

    def __enter__(self) -> _Substitution:
        return self

    def __exit__(self, *_: object) -> None:
        for value, tensor in self._values:
            value.const_value = tensor
        for node, attribute in self._attributes:
            node.attributes[attribute.name] = attribute
        for tensor, name in self._names:
            if tensor.name != name:
                tensor.name = name

    def enter(self, graph: ir.Graph, place: Place | None) -> None:
        """Exchanges the tensors of a graph and of its subgraphs, in the order in which they are serialised.

        Args:
            graph: the graph.
            place: where it lies; ``None`` to take no tensor out of it.
        """
        initializers = [v for v in graph.initializers.values() if v.const_value is not None]
        for index, value in enumerate(initializers):
            tensor = value.const_value
            assert tensor is not None
            self._values.append((value, tensor))
            self._names.append((tensor, tensor.name))
            value.const_value = self._instead(tensor, _inside(place, places.INITIALIZER, index), value.name)
        for at, node in enumerate(graph):
            for slot, attribute in enumerate(list(node.attributes.values())):
                if not attribute.is_ref():
                    inside = _inside(_inside(place, places.NODE, at), places.ATTRIBUTE_OF_NODE, slot)
                    self._enter_attribute(node, attribute, inside)

    def _enter_attribute(self, node: ir.Node, attribute: ir.Attr, place: Place | None) -> None:
        content: ir.TensorProtocol | list[ir.TensorProtocol]
        match attribute.type:
            case ir.AttributeType.TENSOR:
                content = self._instead(attribute.as_tensor(), _inside(place, places.VALUE, 0), None)
            case ir.AttributeType.TENSORS:
                content = [
                    self._instead(tensor, _inside(place, places.VALUES, index), None)
                    for index, tensor in enumerate(attribute.as_tensors())
                ]
            case ir.AttributeType.GRAPH:
                self.enter(attribute.as_graph(), _inside(place, places.SUBGRAPH, 0))
                return
            case ir.AttributeType.GRAPHS:
                for index, graph in enumerate(attribute.as_graphs()):
                    self.enter(graph, _inside(place, places.SUBGRAPHS, index))
                return
            case _:
                return
        self._attributes.append((node, attribute))
        node.attributes[attribute.name] = ir.Attr(
            attribute.name, attribute.type, content, doc_string=attribute.doc_string
        )

    def _instead(self, tensor: ir.TensorProtocol, place: Place | None, name: str | None) -> ir.TensorProtocol:
        written = self._replace(tensor)
        if place is None or isinstance(written, ir.ExternalTensor):
            return written
        if written.dtype != ir.DataType.STRING and written.nbytes < _APART:
            return written
        self.apart[place] = Apart(written, name)
        return self._empty


def _inside(place: Place | None, number: int, index: int) -> Place | None:
    return None if place is None else (*place, (number, index))


_Tree = dict[tuple[int, int], "_Tree | _Entry"]


def _tree(tensors: dict[Place, Apart]) -> _Tree:
    root: _Tree = {}
    for place, apart in tensors.items():
        branch = root
        for step in place[:-1]:
            inner = branch.setdefault(step, {})
            assert isinstance(inner, dict)
            branch = inner
        branch[place[-1]] = _Entry(apart)
    return root


def _filled(content: memoryview, span: slice, tree: _Tree) -> Pieces[_Entry] | None:
    """The encoded outline with the tensors in it."""

    def change(number: int, index: int, inner: slice) -> Pieces[_Entry] | None:
        found = tree.get((number, index))
        if found is None:
            return None
        return [found] if isinstance(found, _Entry) else _filled(content, inner, found)

    return exchanged(content, span, {number for number, _ in tree}, change)


class _Entry:
    """One tensor, encoded. Its size is known from the start; its bytes are fetched when it is written, and
    not kept."""

    def __init__(self, apart: Apart) -> None:
        self._tensor = tensor = apart.tensor
        self._name = apart.name
        self._lazy = not isinstance(tensor, (ir.TensorProtoTensor, ir.StringTensor))
        if self._lazy:
            head, self._tail = _around_raw_data(_shell(tensor, self._name or tensor.name))
            self._head = head + frame(_RAW_DATA_FIELD, tensor.nbytes)
            self._size = len(self._head) + tensor.nbytes + len(self._tail)
        else:
            with _named(tensor, self._name) as proto:
                self._size = proto.ByteSize()

    def __len__(self) -> int:
        return self._size

    def write(self, file: Sink) -> None:
        if not self._lazy:
            with _named(self._tensor, self._name) as proto:
                file.write(proto.SerializeToString(deterministic=True))
            return
        file.write(self._head)
        write_tensor(self._tensor, file, self._name)
        file.write(self._tail)


@contextmanager
def _named(tensor: ir.TensorProtocol, name: str | None) -> Iterator[onnx.TensorProto]:
    """Gives the protobuf of ``tensor`` under ``name``, if that is given. A tensor that values of several
    names share keeps its own."""
    if not isinstance(tensor, ir.TensorProtoTensor):
        proto = ir.to_proto(tensor)
        if name is not None:
            proto.name = name
        yield proto
        return
    if name is None:
        yield tensor.raw
        return
    own = tensor.raw.name
    tensor.raw.name = name
    try:
        yield tensor.raw
    finally:
        tensor.raw.name = own


def _shell(tensor: ir.TensorProtocol, name: str | None) -> onnx.TensorProto:
    """Everything of a raw tensor but its bytes."""
    proto = onnx.TensorProto(data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if name:
        proto.name = name
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key, value in sorted(tensor.metadata_props.items()):
        proto.metadata_props.add(key=key, value=value)
    return proto


def _around_raw_data(shell: onnx.TensorProto) -> tuple[bytes, bytes]:
    """What is encoded in front of the bytes of a tensor, and behind them."""
    head, tail = onnx.TensorProto(), onnx.TensorProto()
    for field, value in shell.ListFields():
        part = head if field.number < _RAW_DATA_FIELD else tail
        if is_repeated(value):
            getattr(part, field.name).MergeFrom(value)
        else:
            setattr(part, field.name, value)
    return head.SerializeToString(deterministic=True), tail.SerializeToString(deterministic=True)
