"""Large weights stay in the model file, and are what protobuf would have decoded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from normfold.errors import InputError
from normfold.loading import load, model_sha256
from normfold.loading.mapped import MappedTensor

SIDE = 100
RNG = np.random.default_rng(0)
# An odd length in front: nothing in the file is aligned.
DOC = "x" * 13


def proto_of(weight: onnx.TensorProto, *more: onnx.NodeProto) -> onnx.ModelProto:
    graph = oh.make_graph(
        [oh.make_node("MatMul", ["x", "w"], ["y"]), *more],
        "g",
        [oh.make_tensor_value_info("x", weight.data_type, ["N", SIDE])],
        [oh.make_tensor_value_info("y", weight.data_type, ["N", SIDE])],
        [weight],
        doc_string=DOC,
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)


def float_weight() -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal((SIDE, SIDE)).astype(np.float32), "w")


def saved(content: bytes, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def weight_of(model: ir.Model) -> ir.TensorProtocol:
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    return tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_weight_stays_in_the_file(dtype: type, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(RNG.standard_normal((SIDE, SIDE)).astype(dtype), "w")
    weight.doc_string = "a weight"
    weight.metadata_props.add(key="k", value="v")
    weight.data_location = TensorProto.DEFAULT
    proto = proto_of(weight)
    model = load(saved(proto.SerializeToString(), tmp_path)).model
    tensor = weight_of(model)
    assert isinstance(tensor, MappedTensor)
    assert (tensor.doc_string, tensor.metadata_props) == ("a weight", {"k": "v"})
    expected = numpy_helper.to_array(weight)
    assert tensor.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert tensor.tobytes() == weight.raw_data
    value = model.graph.initializers["w"]
    assert value.shape == ir.Shape([SIDE, SIDE])
    assert value.dtype == ir.DataType(weight.data_type)


def test_what_is_written_is_what_protobuf_writes(tmp_path: Path) -> None:
    constant = oh.make_node("Constant", [], ["k"], value=float_weight())
    proto = proto_of(float_weight(), constant, oh.make_node("Neg", ["k"], ["z"]))
    model = load(saved(proto.SerializeToString(), tmp_path)).model
    whole = ir.from_proto(proto)
    assert isinstance(weight_of(model), MappedTensor)
    assert model_sha256(model) == model_sha256(whole)


def test_value_of_a_constant_node(tmp_path: Path) -> None:
    constant = oh.make_node("Constant", [], ["k"], value=float_weight())
    proto = proto_of(float_weight(), oh.make_node("Neg", ["x"], ["n"]), constant)
    model = load(saved(proto.SerializeToString(), tmp_path)).model
    tensor = model.graph.node(2).attributes["value"].as_tensor()
    assert isinstance(tensor, MappedTensor)
    np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(constant.attribute[0].t))


def branches(weight: onnx.TensorProto) -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """A Constant node of the weight in a branch, and an initializer in a branch inside another."""
    info = [oh.make_tensor_value_info("b", weight.data_type, None)]
    constant = oh.make_graph([oh.make_node("Constant", [], ["b"], value=weight)], "then", [], info)
    inner = oh.make_graph([oh.make_node("Neg", ["w2"], ["b"])], "inner", [], info)
    inner.initializer.add().CopyFrom(weight)
    inner.initializer[0].name = "w2"
    deep = oh.make_node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    return constant, oh.make_graph([deep], "else", [], info)


def test_weights_in_subgraphs(tmp_path: Path) -> None:
    weight = float_weight()
    then, other = branches(weight)
    condition = oh.make_node("Constant", [], ["c"], value=oh.make_tensor("", TensorProto.BOOL, [], [True]))
    branch = oh.make_node("If", ["c"], ["i"], then_branch=then, else_branch=other)
    proto = proto_of(weight, condition, branch)
    model = load(saved(proto.SerializeToString(), tmp_path)).model
    attributes = model.graph.node(2).attributes
    constant = attributes["then_branch"].as_graph().node(0).attributes["value"].as_tensor()
    inner = attributes["else_branch"].as_graph().node(0).attributes
    held = [inner[name].as_graph().initializers["w2"].const_value for name in ("then_branch", "else_branch")]
    for tensor in (constant, *held):
        assert isinstance(tensor, MappedTensor)
        np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(weight))
    assert model_sha256(model) == model_sha256(ir.from_proto(proto))


def test_list_of_tensors(tmp_path: Path) -> None:
    small, large = oh.make_tensor("s", TensorProto.FLOAT, [1], [3.0]), float_weight()
    node = oh.make_node("Custom", ["x"], ["z"], domain="own", tables=[small, large, small, large])
    proto = proto_of(large, node)
    proto.opset_import.add(domain="own", version=1)
    model = load(saved(proto.SerializeToString(), tmp_path)).model
    tensors = model.graph.node(1).attributes["tables"].as_tensors()
    assert [isinstance(tensor, MappedTensor) for tensor in tensors] == [False, True, False, True]
    for tensor, expected in zip(tensors, (small, large, small, large), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(expected))
    assert model_sha256(model) == model_sha256(ir.from_proto(proto))


@pytest.mark.parametrize("kind", ["other type", "two of one name"])
def test_attribute_that_is_not_what_it_says(kind: str, tmp_path: Path) -> None:
    """It is read as protobuf reads it, or refused: never with a tensor that is not its own."""
    constant = oh.make_node("Constant", [], ["k"], value=float_weight())
    if kind == "other type":
        constant.attribute[0].type = onnx.AttributeProto.FLOAT
    else:
        constant.attribute.add().CopyFrom(constant.attribute[0])
    proto = proto_of(float_weight(), constant, oh.make_node("Neg", ["k"], ["z"]))
    path = saved(proto.SerializeToString(), tmp_path)
    try:
        model = load(path).model
    except InputError as error:
        assert error.code == "NF903"
    else:
        assert model_sha256(model) == model_sha256(ir.from_proto(proto))


def test_messages_inside_each_other_without_end(tmp_path: Path) -> None:
    """More than the decoder of protobuf takes, and than Python has stack frames for."""
    content = float_weight().SerializeToString()
    content = b"\x2a" + _length(content) + content
    for _ in range(1000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            content = tag + _length(content) + content
    path = saved(b"\x08\x0a\x3a" + _length(content) + content, tmp_path)
    with pytest.raises(InputError, match="does not decode"):
        load(path)


def typed() -> onnx.TensorProto:
    return oh.make_tensor("w", TensorProto.FLOAT, [SIDE, SIDE], RNG.standard_normal(SIDE * SIDE))


def packed() -> onnx.TensorProto:
    nibbles = RNG.integers(0, 256, 200 * 200 // 2, dtype=np.uint8)
    return TensorProto(name="w", data_type=TensorProto.UINT4, dims=[200, 200], raw_data=nibbles.tobytes())


@pytest.mark.parametrize("make", [typed, packed])
def test_data_that_numpy_does_not_read_as_they_are(make, tmp_path: Path) -> None:
    weight = make()
    graph = oh.make_graph(
        [oh.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [oh.make_tensor_value_info("y", weight.data_type, list(weight.dims))],
        [weight],
    )
    proto = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)
    tensor = weight_of(load(saved(proto.SerializeToString(), tmp_path)).model)
    assert not isinstance(tensor, MappedTensor)
    np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(weight))


def test_graph_in_two_parts_is_merged(tmp_path: Path) -> None:
    proto = proto_of(float_weight())
    rest = onnx.ModelProto()
    rest.graph.node.append(oh.make_node("Neg", ["x"], ["n"]))
    content = proto.SerializeToString() + rest.SerializeToString()
    merged = onnx.ModelProto.FromString(content)
    model = load(saved(content, tmp_path)).model
    assert [node.op_type for node in model.graph] == [node.op_type for node in merged.graph.node]
    np.testing.assert_array_equal(
        weight_of(model).numpy(), numpy_helper.to_array(merged.graph.initializer[0])
    )


def test_raw_data_that_comes_twice(tmp_path: Path) -> None:
    """The decoder takes the last."""
    weight, other = float_weight(), float_weight()
    proto = proto_of(weight)
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.initializer[:]
    twice = weight.SerializeToString() + TensorProto(raw_data=other.raw_data).SerializeToString()
    content = graph.SerializeToString() + b"\x2a" + _length(twice) + twice
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    path = saved(rest.SerializeToString() + b"\x3a" + _length(content) + content, tmp_path)
    assert not isinstance(weight_of(load(path).model), MappedTensor)
    np.testing.assert_array_equal(weight_of(load(path).model).numpy(), numpy_helper.to_array(other))


def _length(content: bytes) -> bytes:
    number, encoded = len(content), bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def test_raw_data_of_another_size(tmp_path: Path) -> None:
    weight = float_weight()
    weight.raw_data = weight.raw_data[:-4]
    with pytest.raises(InputError, match=r"'w' of shape .* needs 40000 bytes, it has 39996"):
        load(saved(proto_of(weight).SerializeToString(), tmp_path))


def test_raw_data_of_an_external_tensor(tmp_path: Path) -> None:
    weight = float_weight()
    weight.data_location = TensorProto.EXTERNAL
    with pytest.raises(InputError, match="names no location"):
        load(saved(proto_of(weight).SerializeToString(), tmp_path))


@pytest.mark.parametrize("size", [0, 20_000, 10**6])
def test_file_that_is_changed_in_place(size: int, tmp_path: Path) -> None:
    """What lies behind a map may be gone: reading on would end the process."""
    path = saved(proto_of(float_weight()).SerializeToString(), tmp_path)
    tensor = weight_of(load(path).model)
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(InputError, match="was changed while"):
        tensor.numpy()
    with pytest.raises(InputError, match="was changed while"):
        tensor.tobytes()


def test_file_that_is_written_over(tmp_path: Path) -> None:
    path = saved(proto_of(float_weight()).SerializeToString(), tmp_path)
    tensor = weight_of(load(path).model)
    status = path.stat()
    path.write_bytes(proto_of(float_weight()).SerializeToString())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(InputError, match="was changed while"):
        tensor.numpy()


def test_file_that_is_replaced_or_removed(tmp_path: Path) -> None:
    weight = float_weight()
    path = saved(proto_of(weight).SerializeToString(), tmp_path)
    tensor = weight_of(load(path).model)
    other = tmp_path / "other.onnx"
    other.write_bytes(proto_of(float_weight()).SerializeToString())
    other.replace(path)
    path.unlink()
    np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(weight))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory(tmp_path: Path) -> None:
    weight = oh.make_tensor("w", TensorProto.FLOAT, [SIDE, 10**5], bytes(4 * SIDE * 10**5), raw=True)
    path = saved(proto_of(weight).SerializeToString(), tmp_path)
    size = path.stat().st_size
    del weight
    before = _anonymous()
    loaded = load(path)
    assert _anonymous() - before < size / 4
    del loaded


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_of_constant_nodes(tmp_path: Path) -> None:
    """They are read and written without passing through memory."""
    weight = oh.make_tensor("w", TensorProto.FLOAT, [SIDE, 10**5], bytes(4 * SIDE * 10**5), raw=True)
    constant = oh.make_node("Constant", [], ["k"], value=weight)
    proto = proto_of(float_weight(), constant, oh.make_node("Neg", ["k"], ["z"]))
    path = saved(proto.SerializeToString(), tmp_path)
    size = path.stat().st_size
    del weight, constant, proto
    peak = _peak_of(
        "from normfold.loading import load, save; "
        f"m = load({str(path)!r}).model; save(m, {str(tmp_path / 'out.onnx')!r})"
    )
    assert peak < size / 4
    assert (tmp_path / "out.onnx").stat().st_size >= size


def _peak_of(statements: str) -> int:
    """By how much anonymous memory had grown at most in a process of its own, looked at between writes."""
    watch = (
        "import hashlib, sys\n"
        "def anonymous():\n"
        "    return int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0]) * 1024\n"
        "import normfold.loading.transfer as transfer\n"
        "peak, write = [0], transfer.DigestingSink.write\n"
        "def watched(self, content):\n"
        "    peak[0] = max(peak[0], anonymous())\n"
        "    return write(self, content)\n"
        "transfer.DigestingSink.write = watched\n"
        "import normfold.loading\n"
        "begun = anonymous()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{watch}{statements}\nprint(peak[0] - begun)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024
