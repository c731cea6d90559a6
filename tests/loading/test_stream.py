"""Streamed bytes are what protobuf itself would write, whatever a tensor is stored as."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from normfold.loading import from_proto, model_sha256, to_proto
from normfold.loading.layout import inline
from normfold.loading.stream import write_model


def streamed(model: ir.Model, replace: Callable[[ir.TensorProtocol], ir.TensorProtocol] = inline) -> bytes:
    sink = io.BytesIO()
    write_model(model, sink, replace)
    return sink.getvalue()


def canonical(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def in_memory(proto: onnx.ModelProto) -> ir.Model:
    own = onnx.ModelProto()
    own.CopyFrom(proto)
    return from_proto(own, None)[0]


RICH = """
<ir_version: 10, producer_name: "maker", producer_version: "1", domain: "d", model_version: 7,
 doc_string: "doc", opset_import: ["" : 20, "local" : 1], metadata_props: ["k" : "v", "a" : "b"]>
rich (bool c, float[N, 4] x) => (float[N, 4] y)
<float[4] w = {1, 2, 3, 4}, int64[2] shape = {-1, 4}, float[0] none = {}>
{
    scaled = Mul(x, w)
    called = local.f(scaled)
    k = Constant <value = float[4] {1, 1, 1, 1}> ()
    inner = Add(called, k)
    y = If (c) <
        then_branch = then () => (float[N, 4] t) <float[4] v = {5, 6, 7, 8}> { t = Mul(inner, v) },
        else_branch = other () => (float[N, 4] e) { e = Reshape(inner, shape) }
    >
}
<domain: "local", opset_import: ["" : 20]> f (a) => (b) { b = Neg(a) }
"""


def test_equals_protobuf() -> None:
    proto = parser.parse_model(RICH)
    proto.graph.doc_string = "graph doc"
    proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"bc"]))
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(3000, dtype=np.float64).reshape(30, 100), "large")
    )
    model = in_memory(proto)
    assert streamed(model) == canonical(model)
    assert to_proto(model).SerializeToString(deterministic=True) == canonical(model)


@pytest.mark.parametrize(
    "dtype",
    ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "BOOL", "COMPLEX64", "INT4", "UINT2", "FLOAT8E4M3FN"],
)
@pytest.mark.parametrize("size", [0, 1, 7, 5000])
@pytest.mark.parametrize("lazy", [False, True])
def test_equals_protobuf_for_each_type(dtype: str, size: int, lazy: bool) -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y) { y = Neg(x) }'
    )
    model = in_memory(proto)
    data_type = ir.DataType[dtype]
    values = np.random.default_rng(0).integers(0, 2, size)
    tensor = ir.Tensor(values.astype(data_type.numpy()), dtype=data_type, name="w", doc_string="d")
    tensor.metadata_props["key"] = "value"
    held: ir.TensorProtocol = tensor
    if lazy:
        held = ir.LazyTensor(lambda: tensor, data_type, ir.Shape([size]), name="w", doc_string="d")
    value = ir.Value(name="w", shape=ir.Shape([size]), type=ir.TensorType(data_type), const_value=held)
    model.graph.register_initializer(value)
    assert streamed(model) == canonical(model)


LARGE = np.random.default_rng(0).standard_normal((30, 100)).astype(np.float32)


def nested(make: Callable[[str], onnx.TensorProto]) -> onnx.ModelProto:
    """Large tensors as values of Constant nodes and as initializers, in the graph, in branches and in bodies
    inside these."""
    inner = helper.make_graph(
        [
            helper.make_node("Constant", [], ["deep"], value=make("deep_value")),
            helper.make_node("Add", ["deep", "own"], ["b"]),
        ],
        "inner",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [30, 100])],
        [make("own")],
    )
    outer = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["t"], then_branch=inner, else_branch=inner),
            helper.make_node("Add", ["t", "held"], ["u"]),
        ],
        "outer",
        [],
        [helper.make_tensor_value_info("u", TensorProto.FLOAT, [30, 100])],
        [make("held")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=make("")),
            helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=inner),
            helper.make_node("Add", ["y", "k"], ["w"]),
            helper.make_node("Custom", ["w"], ["z"], domain="own", tables=[make("one"), make("two")]),
            helper.make_node("Mul", ["z", "last"], ["v"]),
        ],
        "main",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [30, 100])],
        [make("last")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def raw(name: str) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(LARGE, name)
    if not name:
        tensor.ClearField("name")
    return tensor


def typed(name: str) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, LARGE.shape, LARGE.flatten())


@pytest.mark.parametrize("make", [raw, typed])
def test_equals_protobuf_for_tensors_inside_nodes(make: Callable[[str], onnx.TensorProto]) -> None:
    model = in_memory(nested(make))
    assert streamed(model) == canonical(model)
    assert to_proto(model).SerializeToString(deterministic=True) == canonical(model)


def test_tensors_are_written_one_by_one() -> None:
    model = in_memory(nested(raw))
    written: list[str | None] = []

    class Counting(ir.LazyTensor):
        def tobytes(self) -> bytes:
            raise AssertionError("as a whole")

        def tofile(self, file: io.BytesIO) -> None:
            file.write(LARGE.tobytes())
            written.append(self.name)

    def counted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        return Counting(lambda: tensor, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)

    assert streamed(model, counted) == canonical(model)
    assert len(written) == 11


def test_values_that_share_a_tensor_keep_their_names() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] z) '
        "<float[4] w = {1, 2, 3, 4}> { y = Mul(x, w) z = Mul(y, w) }"
    )
    model = in_memory(proto)
    first = model.graph.initializers["w"]
    second = ir.Value(name="second", shape=first.shape, type=first.type, const_value=first.const_value)
    model.graph.register_initializer(second)
    model.graph.node(1).replace_input_with(1, second)
    written = onnx.ModelProto.FromString(streamed(model))
    assert [tensor.name for tensor in written.graph.initializer] == ["w", "second"]
    onnx.checker.check_model(written)


def test_leaves_the_model_as_it_was(dense: onnx.ModelProto) -> None:
    model = in_memory(dense)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    tensor.name = "own name"
    model_sha256(model)
    assert model.graph.initializers["w"].const_value is tensor
    assert tensor.name == "own name"


def test_tensor_of_another_size_than_it_says(dense: onnx.ModelProto) -> None:
    model = in_memory(dense)
    wrong = ir.LazyTensor(lambda: ir.tensor(np.zeros(3, np.float32)), ir.DataType.FLOAT, ir.Shape([100, 100]))
    model.graph.initializers["w"].const_value = wrong
    with pytest.raises(RuntimeError, match="'w' has 12 bytes"):
        streamed(model)
