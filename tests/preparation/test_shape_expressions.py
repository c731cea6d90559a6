"""What computed shapes say, against the same expression run by ``onnx.reference``."""

from __future__ import annotations

import math
import re

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, is_read
from normfold.preparation.workspace import Workspace
from tests.checker import Checker

CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "four": np.array([4]),
    "turned": np.array([3, 1]),
    "last": np.array([-1]),
}
SIZES = {"N": 7, "H": 4}
EXPRESSIONS = {
    "the middle": "t = Slice (s, one, three)",
    "every second": "t = Slice (s, zero, four, zero, two)",
    "from the start of Shape": "t = Shape <start=1> (x)",
    "to the end of Shape": "t = Shape <start=0, end=-1> (x)",
    "in another order": "t = Gather (s, turned)",
    "joined": "a = Slice (s, zero, one) t = Concat <axis=0> (a, three)",
    "joined the other way round": "a = Slice (s, zero, one) t = Concat <axis=0> (three, a)",
    "a third": "c = Gather (s, one) t = Div (c, three)",
    "half of the batch's triple": "n = Gather (s, zero) a = Mul (n, four) t = Div (a, two)",
    "all elements": "n = ReduceProd <keepdims=1> (s) t = Div (n, four)",
    "the product of two": "n = Gather (s, turned) i = Gather (s, zero) t = Mul (n, i)",
    "as another integer": "i = Cast <to=6> (s) t = Cast <to=7> (i)",
}


def target(check: Checker, expression: str) -> tuple[list[int | None], np.ndarray]:
    """The elements of ``t`` that are known, with SIZES for what is open, and what they are."""
    words = set(re.findall(r"\w+", expression))
    constants = {name: array for name, array in CONSTANTS.items() if name in words}
    body = f"s = Shape (x) {expression} y = ConstantOfShape (t)"
    model = check.model(f"g (float[N, 12, H, 5] x) => (float[A, B] y, int64[C] t) {{ {body} }}", constants)
    workspace = Workspace(ir.from_proto(model))
    view = next(NodeView(n, workspace) for n in workspace.model.graph if n.op_type == "ConstantOfShape")
    found = elements(view, 0)
    assert found is not None
    said = [
        size.factor * math.prod(SIZES[str(name)] ** power for name, power in size.symbols)
        if is_read(size)
        else None
        for size in found
    ]
    (expected,) = ReferenceEvaluator(model).run(["t"], {"x": np.zeros((7, 12, 4, 5), np.float32)})
    return said, np.asarray(expected)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_it_is_read_as_it_is_computed(check: Checker, expression: str) -> None:
    said, expected = target(check, expression)
    np.testing.assert_array_equal(said, expected)


@pytest.mark.parametrize("operator", ["Add", "Sub"])
def test_sums_are_read_where_both_are_numbers(check: Checker, operator: str) -> None:
    said, expected = target(check, f"c = Slice (s, one, three) t = {operator} (c, two)")
    assert (said[0], said[1]) == (expected[0], None)


@pytest.mark.parametrize(
    "expression",
    [
        "f = Cast <to=1> (s) r = Sqrt (f) t = Cast <to=7> (r)",
        "f = Cast <to=1> (s) t = Cast <to=7> (f)",
        "n = Gather (s, zero) t = Div (n, two)",
        "n = Gather (s, zero) t = Sub (n, one)",
    ],
    ids=["a root", "rounded to a float", "half of what may be odd", "one less than what is open"],
)
def test_nothing_is_known_of_it(check: Checker, expression: str) -> None:
    said, _ = target(check, expression)
    assert said[0] is None
