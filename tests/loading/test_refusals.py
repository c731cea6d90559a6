"""Each test breaks exactly one thing of a valid model; the message is one line with its code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from normfold.errors import InputError
from normfold.loading import load

Write = Callable[..., Path]


def refused(path: Path | str, code: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message
    assert message.startswith(str(path))
    for word in words:
        assert word in message


def test_the_unbroken_model_loads(model: onnx.ModelProto, write: Write) -> None:
    loaded = load(write(model))
    assert [node.op_type for node in loaded.model.graph] == ["Mul", "Add"]
    assert not loaded.external


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "NF901", "no such file")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "NF901", "folder")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    refused(path, "NF901", "empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(model: onnx.ModelProto, write: Write) -> None:
    path = write(model)
    path.chmod(0)
    refused(path, "NF901", "Permission denied")


def test_name_with_a_null_byte() -> None:
    with pytest.raises(InputError) as caught:
        load("a\0b.onnx")
    assert caught.value.code == "NF901"


@pytest.mark.parametrize("content", [b"just text\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(64), b"{}"])
def test_other_formats(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "NF902")


def test_text_protobuf_is_not_guessed_from_the_suffix(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.textproto"
    onnx.save(model, path, format="textproto")
    refused(path, "NF902")


def test_truncated(model: onnx.ModelProto, write: Write) -> None:
    path = write(model)
    path.write_bytes(path.read_bytes()[:-3])
    refused(path, "NF902")


def test_name_that_is_not_utf8(model: onnx.ModelProto, write: Write) -> None:
    path = write(model)
    path.write_bytes(path.read_bytes().replace(b"scaled", b"\xff\xfealed"))
    refused(path, "NF902", "UTF-8")


def test_no_graph(model: onnx.ModelProto, write: Write) -> None:
    model.ClearField("graph")
    refused(write(model), "NF902", "no graph")


def test_sparse_initializer(model: onnx.ModelProto, write: Write) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    refused(write(model), "NF904", "'sparse'")


def test_sparse_initializer_in_a_subgraph(write: Write) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]> branch (bool c, float[4] x) => (float[4] y) {
            y = If (c) <
                then_branch = then () => (float[4] t) { t = Relu(x) },
                else_branch = other () => (float[4] e) { e = Neg(x) }
            >
        }""")
    load(write(model))
    values = helper.make_tensor("inner", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    sparse = helper.make_sparse_tensor(values, indices, [4])
    model.graph.node[0].attribute[1].g.sparse_initializer.append(sparse)
    refused(write(model), "NF904", "'inner'")


def test_sparse_attribute(model: onnx.ModelProto, write: Write) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    node = helper.make_node(
        "Constant", [], ["extra"], sparse_value=helper.make_sparse_tensor(values, indices, [4])
    )
    model.graph.node.insert(0, node)
    refused(write(model), "NF904", "'extra'")


def test_training_info(model: onnx.ModelProto, write: Write) -> None:
    model.training_info.add().algorithm.name = "step"
    refused(write(model), "NF905")


def test_cycle(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].input[1] = "y"
    refused(write(model), "NF906", "cycle through")


def test_cycle_through_a_subgraph(write: Write) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]> branch (bool c, float[4] x) => (float[4] z) {
            y = If (c) <
                then_branch = then () => (float[4] t) { t = Relu(x) },
                else_branch = other () => (float[4] e) { e = Neg(x) }
            >
            z = Neg(y)
        }""")
    load(write(model))
    model.graph.node[0].attribute[0].g.node[0].input[0] = "z"
    refused(write(model), "NF906")


def test_unsorted_is_not_called_a_cycle(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node.reverse()
    refused(write(model), "NF903", "topological order", "'scaled'")


def test_recursive_function(write: Write) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 17, "local" : 1]> f (a) => (b) { b = Neg(a) }
        """)
    load(write(model))
    call = model.functions[0].node[0]
    call.op_type, call.domain = "f", "local"
    refused(write(model), "NF906", "'f'")


def test_dangling_input(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].input[1] = "missing"
    refused(write(model), "NF907", "'missing'", "'scaled'")


def test_dangling_graph_output(model: onnx.ModelProto, write: Write) -> None:
    model.graph.output[0].name = "missing"
    refused(write(model), "NF907", "'missing'")


def test_dangling_input_of_a_function(write: Write) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[4] x) => (float[4] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 17]> f (a) => (b) { b = Neg(a) }
        """)
    model.functions[0].node[0].input[0] = "missing"
    refused(write(model), "NF907", "'missing'", "function 'f'")


def test_two_nodes_produce_one_name(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].output[0] = "y"
    model.graph.node[1].input[0] = "y"
    refused(write(model), "NF908", "'y'")


def test_two_initializers_of_one_name(model: onnx.ModelProto, write: Write) -> None:
    model.graph.initializer.append(model.graph.initializer[0])
    refused(write(model), "NF908", "initializers", "'w'")


def test_two_inputs_of_one_name(model: onnx.ModelProto, write: Write) -> None:
    model.graph.input.append(model.graph.input[0])
    refused(write(model), "NF908", "'x'")


def test_future_ir_version(model: onnx.ModelProto, write: Write) -> None:
    model.ir_version = onnx.IR_VERSION + 1
    refused(write(model), "NF911", "IR version")


def test_future_opset(model: onnx.ModelProto, write: Write) -> None:
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    refused(write(model), "NF911", "opset")


def test_any_version_of_a_custom_domain(model: onnx.ModelProto, write: Write) -> None:
    model.opset_import[1].version = 999
    model.graph.node[0].domain, model.graph.node[0].op_type = "custom.domain", "Unheard"
    assert [node.op_type for node in load(write(model)).model.graph] == ["Unheard", "Add"]


def test_undeclared_domain(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].domain = "other.domain"
    refused(write(model), "NF912", "'other.domain'")


def test_no_opset_at_all(model: onnx.ModelProto, write: Write) -> None:
    model.ClearField("opset_import")
    refused(write(model), "NF912")


def test_unknown_operator_of_the_standard_domain(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].op_type = "Unheard"
    refused(write(model), "NF903", "Unheard")


def test_unknown_attribute(model: onnx.ModelProto, write: Write) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("unheard", 1))
    refused(write(model), "NF903", "unheard")


@pytest.mark.parametrize("version", [18, 20])
def test_deprecated_group_normalization_is_a_valid_model(version: int, write: Write) -> None:
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {version}]> g (float[N, 4, 3] x) => (float[N, 4, 3] y)
        <float[2] w = {{1, 2}}> {{ y = GroupNormalization <num_groups = 2> (x, w, w) }}""")
    assert load(write(model)).model.graph.node(0).op_type == "GroupNormalization"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
class TestTensors:
    """Data that does not fit the shape is found in every tensor: the ONNX checker sees only small ones."""

    def tensor(self, model: onnx.ModelProto, large: bool) -> onnx.TensorProto:
        tensor = model.graph.initializer[0]
        if large:
            tensor.dims[0] = 4096
            tensor.float_data.extend([1.0] * 4092)
        return tensor

    def test_fits(self, model: onnx.ModelProto, write: Write, large: bool) -> None:
        self.tensor(model, large)
        load(write(model))

    def test_too_few_values(self, model: onnx.ModelProto, write: Write, large: bool) -> None:
        self.tensor(model, large).float_data.pop()
        refused(write(model), "NF903", "'w'", "values")

    def test_too_many_values(self, model: onnx.ModelProto, write: Write, large: bool) -> None:
        self.tensor(model, large).float_data.append(1.0)
        refused(write(model), "NF903", "'w'")

    def test_too_few_bytes(self, model: onnx.ModelProto, write: Write, large: bool) -> None:
        tensor = self.tensor(model, large)
        tensor.raw_data = bytes(4 * tensor.dims[0] - 1)
        tensor.ClearField("float_data")
        refused(write(model), "NF903", "'w'", "bytes")

    def test_negative_dimension(self, model: onnx.ModelProto, write: Write, large: bool) -> None:
        self.tensor(model, large).dims[0] = -4
        refused(write(model), "NF903", "'w'", "negative")

    @pytest.mark.parametrize("data_type", [TensorProto.UNDEFINED, 99])
    def test_data_type(self, model: onnx.ModelProto, write: Write, large: bool, data_type: int) -> None:
        self.tensor(model, large).data_type = data_type
        refused(write(model), "NF903", "'w'", str(data_type))


def test_segmented_tensor(model: onnx.ModelProto, write: Write) -> None:
    model.graph.initializer[0].segment.begin = 0
    refused(write(model), "NF913", "'w'")


@pytest.mark.parametrize("declared", [["N", 4], ["N", None], [None, 4], [None, None]])
def test_an_input_that_is_an_output_keeps_its_shape(write: Write, declared: list[int | str | None]) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    passed = helper.make_tensor_value_info("x", TensorProto.FLOAT, declared)
    doubled = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [given], [doubled, passed])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (value,) = load(write(model)).model.graph.inputs
    assert value.shape is not None
    assert [dim if isinstance(dim, int) else dim.value for dim in value.shape] == ["N", 4]
