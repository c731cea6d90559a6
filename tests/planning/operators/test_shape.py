"""Shape and Size read no element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(("op", "result"), [("Shape", "int64[2]"), ("Size", "int64[]")])
def test_an_affine_in_front_is_dead(harness: Any, op: str, result: str) -> None:
    node = harness.one(f"g (double[N, 3] x) => ({result} y) {{ y = {op} (x) }}")
    assert not node.forward(harness.affine(0, (2, 3), (1,))).affines


def test_batchnorm_goes_forward_past_a_reader_of_its_shape(harness: Any) -> None:
    text = """g (double[N, 3, 2] x) => (double[N, 4] y) {
        r = Relu (x) n = BatchNormalization (r, scale, bias, mean, var)
        s = Shape (n) batch = Slice (s, start, end) target = Concat <axis = 0> (batch, rest)
        f = Reshape (n, target) y = Gemm (f, w) }"""
    constants = {**harness.weights(0, w=(6, 4)), **harness.batchnorm(1, 3)}
    constants |= {"start": np.array([0]), "end": np.array([1]), "rest": np.array([-1])}
    harness.fold(text, constants).gone()
