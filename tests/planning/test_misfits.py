"""Models that onnx's checker lets pass and no runtime takes: operands that do not fit each other.

They are refused with a code, and nothing of them is folded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.folding import fold_model

WEIGHTS = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return WEIGHTS.uniform(0.5, 1.5, shape).astype(np.float32)


def i(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


Misfit = tuple[str, list[np.ndarray], dict[str, Any]]

IN_FRONT: list[Misfit] = [
    ("Conv", [f(4, 5, 1, 1)], {}),
    ("Conv", [f(4, 6, 1, 1), f(5)], {}),
    ("Conv", [f(5, 3, 1, 1)], {"group": 2}),
    ("Conv", [f(4, 6, 1, 1)], {"group": 0}),
    ("ConvTranspose", [f(5, 4, 1, 1)], {}),
    ("ConvTranspose", [f(6, 4, 1, 1), f(7)], {}),
    ("Gather", [i(9)], {"axis": 1}),
    ("Gather", [i(0)], {"axis": 9}),
    ("Slice", [i(0), i(9), i(7)], {}),
    ("Slice", [i(0), i(9), i(1), i(0)], {}),
    ("Slice", [i(0), i(9), i(0, 1)], {}),
    ("Split", [i(2, 3)], {"axis": 1}),
    ("Tile", [i(1, -1, 1, 1)], {}),
    ("Squeeze", [i(9)], {}),
    ("Unsqueeze", [i(1, 1)], {}),
    ("DepthToSpace", [], {"blocksize": 4}),
    ("GroupNormalization", [f(6), f(6)], {"num_groups": 4}),
    ("PRelu", [f(5, 1, 1)], {}),
]
BEHIND: list[Misfit] = [
    ("InstanceNormalization", [f(5), f(5)], {}),
    ("GroupNormalization", [f(5), f(5)], {"num_groups": 2}),
    ("BatchNormalization", [f(6), f(5), f(6), f(6)], {}),
    ("PRelu", [f(5, 1, 1)], {}),
    ("Squeeze", [i(9)], {}),
    ("Split", [i(2, 3)], {"axis": 1}),
]


def model(misfit: Misfit, where: str) -> onnx.ModelProto:
    """The misfit between a BatchNormalization and a Conv, or the other way round."""
    op_type, operands, attributes = misfit
    names = [f"k{number}" for number in range(len(operands))]
    statistics = {"s": -f(6), "b": f(6), "m": f(6), "v": f(6)}
    constants = {
        "w": f(6, 6, 1, 1),
        "u": f(3, 6, 1, 1),
        **statistics,
        **dict(zip(names, operands, strict=True)),
    }
    outputs = ["q", "rest"] if op_type == "Split" else ["q"]

    def norm(x: str, y: str) -> onnx.NodeProto:
        return onnx.helper.make_node("BatchNormalization", [x, *statistics], [y])

    if where == "front":
        nodes = [norm("c", "n"), onnx.helper.make_node(op_type, ["n", *names], outputs, **attributes)]
    else:
        nodes = [onnx.helper.make_node(op_type, ["c", *names], outputs, **attributes), norm("q", "n")]
    last = onnx.helper.make_node("Conv", ["q", "u"], ["y"])
    if where == "behind":
        last = onnx.helper.make_node("Sigmoid", ["n"], ["y"])
    first = onnx.helper.make_node("Conv", ["x", "w"], ["c"])
    if where == "front":
        first = onnx.helper.make_node("Relu", ["x"], ["c"])
    graph = onnx.helper.make_graph(
        [first, *nodes, last],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["A", "B", "C", "D"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = 17 if op_type != "GroupNormalization" else 21
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("misfit", "where"),
    [(misfit, "front") for misfit in IN_FRONT] + [(misfit, "behind") for misfit in BEHIND],
    ids=lambda value: (
        value if isinstance(value, str) else f"{value[0]}-{[a.shape for a in value[1]]}-{value[2]}"
    ),
)
def test_misfits_are_refused(misfit: Misfit, where: str) -> None:
    proto = model(misfit, where)
    onnx.checker.check_model(proto)
    folded = fold_model(ir.from_proto(proto))
    norms = [site for site in folded.sites if site.kind == "batchnorm"]
    assert {site.action for site in norms} == {"kept"}
    assert norms[0].code in ("NF112", "NF113")
