"""Which axes a Reduce operator reduces, by the rule of its opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from normfold.preparation.node_view import NodeView
from normfold.preparation.reductions import reduced_axes
from normfold.preparation.workspace import Workspace
from tests.checker import Checker

SHAPE = (2, 3, 4)


@pytest.mark.parametrize(
    ("operator", "opset", "as_operand"),
    [
        ("ReduceSum", 11, False),
        ("ReduceSum", 13, True),
        ("ReduceMean", 13, False),
        ("ReduceMean", 17, False),
        ("ReduceMean", 18, True),
    ],
)
@pytest.mark.parametrize("axes", [[1], [-1], [2, 0], None])
def test_which_axes(
    check: Checker, operator: str, opset: int, as_operand: bool, axes: list[int] | None
) -> None:
    attribute = f"<axes={axes}>" if axes and not as_operand else ""
    operands = "x, axes" if axes and as_operand else "x"
    model = check.model(
        f"g (float[2, 3, 4] x) => (float[A, B, C] y) {{ y = {operator} {attribute} ({operands}) }}",
        {"axes": np.array(axes)} if axes and as_operand else {},
        opset=opset,
    )
    onnx.checker.check_model(model)
    workspace = Workspace(ir.from_proto(model))
    found = reduced_axes(NodeView(workspace.model.graph.node(0), workspace))
    (y,) = ReferenceEvaluator(model).run(None, {"x": np.zeros(SHAPE, np.float32)})
    assert found == tuple(axis for axis, size in enumerate(np.asarray(y).shape) if size == 1)
