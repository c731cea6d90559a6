"""Which tensors of a model go into its external data file, and where."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from normfold.loading.transfer import Sink, write_tensor
from normfold.progress import meter

PROTOBUF_LIMIT = 2**31 - 1
"""Largest protobuf message, in bytes."""

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""Weights above this size go into external data whatever the input did, well below the limit of protobuf."""

_EXTERNAL_TENSOR_BYTES = 1024
_SMALL_ALIGNMENT, _LARGE_ALIGNMENT, _LARGE_TENSOR_BYTES = 64, 4096, 1 << 20


def weights_nbytes(model: ir.Model) -> int:
    """Bytes of all initializers, as if each were stored once."""
    return sum(tensor.nbytes for tensor in _initializers(model) if tensor.dtype != ir.DataType.STRING)


def inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Gives a tensor that is serialised with its bytes; they are read when they are written."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return _Inlined(
        lambda: tensor,
        tensor.dtype,
        ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


class _Inlined(ir.LazyTensor):
    """A tensor that lies in another file, and is to be written as if it did not."""

    def tofile(self, file: Sink) -> None:
        write_tensor(self.raw(), file)


def _initializers(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for top in (model.graph, *(function.graph for function in model.functions.values())):
        for graph in (top, *top.subgraphs()):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    yield value.const_value


def _external_attributes(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Tensor attributes that lie outside the model file now; the others stay where they are."""
    for top in (model.graph, *(function.graph for function in model.functions.values())):
        for node in top.all_nodes():
            for attribute in node.attributes.values():
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    candidates = [attribute.as_tensor()]
                elif attribute.type == ir.AttributeType.TENSORS:
                    candidates = list(attribute.as_tensors())
                else:
                    continue
                yield from (tensor for tensor in candidates if isinstance(tensor, ir.ExternalTensor))


class DataLayout:
    """Offsets of the tensors in one data file: dense but for alignment, in the order of the model."""

    def __init__(self, model: ir.Model) -> None:
        self.tensors: list[tuple[ir.TensorProtocol, int]] = []
        offset = 0
        for tensor in {
            id(tensor): tensor for tensor in (*_initializers(model), *_external_attributes(model))
        }.values():
            if tensor.dtype == ir.DataType.STRING or tensor.nbytes < _EXTERNAL_TENSOR_BYTES:
                continue
            alignment = _LARGE_ALIGNMENT if tensor.nbytes >= _LARGE_TENSOR_BYTES else _SMALL_ALIGNMENT
            offset = -(-offset // alignment) * alignment
            self.tensors.append((tensor, offset))
            offset += tensor.nbytes

    def write(self, file: Sink) -> None:
        position = 0
        advance = meter(sum(tensor.nbytes for tensor, _ in self.tensors))
        for tensor, offset in self.tensors:
            file.write(bytes(offset - position))
            write_tensor(tensor, file)
            advance(tensor.nbytes)
            position = offset + tensor.nbytes

    def references(self, location: str) -> dict[int, ir.ExternalTensor]:
        """Gives the external tensor for each tensor's identity."""
        return {
            id(tensor): ir.ExternalTensor(
                location,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name or "",
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
            for tensor, offset in self.tensors
        }
