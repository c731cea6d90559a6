"""A few bytes that ask for gigabytes: such nodes are kept, and nothing large is ever allocated."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import normfold
from normfold.folding import fold_model
from normfold.preparation.bounds import elements
from normfold.preparation.workspace import Workspace

F, INT = np.float32, np.int64
MEBIBYTE = 1 << 20
Arrays = Mapping[str, np.ndarray]


def model_of(nodes: Sequence[onnx.NodeProto], arrays: Arrays, opset: int = 20) -> onnx.ModelProto:
    """``y = x · (first element of the last constant)``, so that the expression is read."""
    last = nodes[-1].output[0]
    reader = [
        oh.make_node("ReduceMax", [last], ["largest"], keepdims=0),
        oh.make_node("Cast", ["largest"], ["factor"], to=onnx.TensorProto.FLOAT),
        oh.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    value = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = oh.make_graph([*nodes, *reader], "hostile", value[:1], value[1:], tensors)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=9)


def one(op_type: str, *arrays: np.ndarray, **attributes: object) -> onnx.ModelProto:
    named = {f"c{index}": array for index, array in enumerate(arrays)}
    return model_of([oh.make_node(op_type, list(named), ["big"], **attributes)], named)


def doubling(levels: int) -> onnx.ModelProto:
    nodes = [oh.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(levels)]
    return model_of(nodes, {"v0": np.ones((1, 64), F)})


def growing_sums(levels: int) -> onnx.ModelProto:
    """Each level is 2 MiB in float64, and read again by a later one."""
    nodes = [oh.make_node("Expand", ["c", "shape"], ["v0"])]
    nodes += [oh.make_node("Add", [f"v{i}", "v0"], [f"v{i + 1}"]) for i in range(levels)]
    return model_of(nodes, {"c": np.ones((1, 1), F), "shape": np.array([512, 512])})


HOSTILE = {
    "Add": lambda: one("Add", np.ones((100_000, 1), F), np.ones((1, 100_000), F)),
    "Where": lambda: one("Where", np.ones((9000, 1), bool), np.ones((1, 9000), F), np.zeros(1, F)),
    "MatMul": lambda: one("MatMul", np.ones((50_000, 1), F), np.ones((1, 50_000), F)),
    "Gemm": lambda: one("Gemm", np.ones((50_000, 1), F), np.ones((1, 50_000), F)),
    "OneHot": lambda: one("OneHot", np.ones(10_000, INT), np.array(10_000_000), np.array([0, 1], F)),
    "Range": lambda: one("Range", np.array(0), np.array(10**12), np.array(1)),
    "Resize": lambda: one("Resize", np.ones((1, 1, 4, 4), F), np.zeros(0, F), np.array([1, 1, 1e5, 1e5], F)),
    "Pad": lambda: one("Pad", np.ones((1, 4), F), np.array([0, 0, 10**5, 10**5])),
    "Expand": lambda: one("Expand", np.ones((1, 1), F), np.array([10**6, 10**6])),
    "Tile": lambda: one("Tile", np.ones((1, 4), F), np.array([10**6, 10**6])),
    "ConstantOfShape": lambda: one("ConstantOfShape", np.array([10**6, 10**6])),
    "Gather": lambda: one("Gather", np.ones((2, 10_000), F), np.zeros((100, 1000), INT)),
    "Einsum": lambda: one("Einsum", np.ones(50_000, F), np.ones(50_000, F), equation="i,j->ij"),
    "Conv": lambda: one("Conv", np.ones((1, 1, 200, 200), F), np.ones((9000, 1, 3, 3), F)),
    "HannWindow": lambda: one("HannWindow", np.array(10**10)),
    "CenterCropPad": lambda: one("CenterCropPad", np.ones((1, 4), F), np.array([10**6, 10**6])),
    "Concat": lambda: doubling(40),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_large_result_of_little_is_kept_and_never_computed(name: str) -> None:
    model = HOSTILE[name]()
    tracemalloc.start()
    try:
        folded = fold_model(ir.from_proto(model))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert name in {node.op_type for node in folded.model.graph}
    assert peak < 160 * MEBIBYTE


def test_the_command_says_nothing_about_it(tmp_path) -> None:
    onnx.save(HOSTILE["Add"](), tmp_path / "hostile.onnx")
    result = normfold.fold(tmp_path / "hostile.onnx", tmp_path / "out.onnx", verify=False)
    assert result.report.exit == 0
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "hostile.onnx").read_bytes()


def test_intermediate_results_go_when_their_last_reader_has_run() -> None:
    tracemalloc.start()
    try:
        workspace = Workspace(ir.from_proto(growing_sums(200)))
        value = next(node for node in workspace.model.graph if node.op_type == "ReduceMax").inputs[0]
        array = workspace.constants.array(value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert array is not None
    np.testing.assert_array_equal(array, np.full((512, 512), 201.0))
    assert peak < 32 * MEBIBYTE


def test_a_long_expression_is_evaluated_in_linear_time() -> None:
    nodes = [oh.make_node("Add", [f"v{i}", "v0"], [f"v{i + 1}"]) for i in range(3000)]
    workspace = Workspace(ir.from_proto(model_of(nodes, {"v0": np.ones((2, 2), F)})))
    values = [node.outputs[0] for node in workspace.model.graph if node.op_type == "Add"]
    arrays = [workspace.constants.array(value) for value in values]
    assert [array[0, 0] for array in arrays if array is not None] == [float(i) for i in range(2, 3002)]
    tasks = workspace.constants._tasks(values[-1], False)
    assert len(tasks) == 1


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes", "expected"),
    [
        ("Add", [np.ones((3, 1)), np.ones((1, 5))], {}, 15),
        ("Neg", [np.ones((3, 4))], {}, 12),
        ("MatMul", [np.ones((3, 2)), np.ones((2, 7))], {}, 21),
        ("Resize", [np.ones((1, 1, 2, 2)), None, np.array([1, 1, 2, 3], F)], {}, 24),
        ("Split", [np.ones((4, 4))], {"num_outputs": 2}, 16),
        ("Pad", [np.ones(4), np.array([1, 2])], {}, 7),
    ],
)
def test_the_bound_is_the_size_of_the_result(op_type, arrays, attributes, expected) -> None:
    names = ["" if array is None else f"c{index}" for index, array in enumerate(arrays)]
    outputs = ["a", "b"] if op_type == "Split" else ["y"]
    node = ir.serde.deserialize_node(oh.make_node(op_type, names, outputs, **attributes))
    assert elements(node, arrays, {"": 20}) == expected


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes", "windows", "window"),
    [
        ("Conv", [np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))], {}, 3 * 3 * 3, 2 * 3 * 3),
        ("MaxPool", [np.ones((1, 2, 4, 4))], {"kernel_shape": [2, 2]}, 2 * 3 * 3, 2 * 2),
    ],
)
def test_the_bound_of_windows_that_are_laid_out(op_type, arrays, attributes, windows, window) -> None:
    names = [f"c{index}" for index in range(len(arrays))]
    node = ir.serde.deserialize_node(oh.make_node(op_type, names, ["y"], **attributes))
    assert elements(node, arrays, {"": 20}) == windows * window


@pytest.mark.parametrize("op_type", ["NonZero", "Unique"])
def test_the_bound_of_what_depends_on_values(op_type) -> None:
    """NonZero of rank 8 has eight indices for each element, Unique four results."""
    array = np.ones((1, 1, 2, 1, 1, 2, 1, 3)) if op_type == "NonZero" else np.arange(12.0)
    names = ["y"] if op_type == "NonZero" else ["y", "first", "inverse", "counts"]
    proto = oh.make_node(op_type, ["x"], names)
    results = ReferenceEvaluator(proto).run(None, {"x": array})
    node = ir.serde.deserialize_node(proto)
    assert elements(node, [array], {"": 20}) == sum(result.size for result in results)


def test_what_no_inference_knows_has_no_bound() -> None:
    node = ir.serde.deserialize_node(oh.make_node("SequenceAt", ["s", "i"], ["y"]))
    assert elements(node, [np.ones(3), np.array(0)], {"": 20}) is None
