"""What does nothing goes, once something has been folded, unless it was asked to stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.options import FoldOptions


def net(check: Any, body: str, **shapes: list[int]) -> onnx.ModelProto:
    """A Conv, then ``body`` from c to t."""
    targets = {name: np.array(shape, np.int64) for name, shape in shapes.items()}
    constants = check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4) | targets
    return check.model(
        f"g (float[1, 4, 6, 6] x) => (float[1, 4, H, W] y) {{ c = Conv (x, w) {body} }}", constants
    )


def test_a_reshape_to_the_shape_that_is_there(check: Any) -> None:
    model = net(
        check, "r = Reshape (c, to) n = BatchNormalization (r, s, b, m, v) y = Sigmoid (n)", to=[1, 4, 6, 6]
    )
    check(model).gone("Conv", "Sigmoid")


TRIP = """r = Reshape (c, to) n = BatchNormalization (r, s, b, m, v) q = Reshape (n, back) y = Sigmoid (q)"""


def test_a_reshape_that_undoes_another(check: Any) -> None:
    check(net(check, TRIP, to=[1, 4, 36], back=[1, 4, 6, 6])).gone("Conv", "Sigmoid")


def test_a_reshape_to_another_shape_stays(check: Any) -> None:
    assert check(net(check, TRIP, to=[1, 4, 36], back=[1, 4, 4, 9])).counts["Reshape"] >= 1


@pytest.mark.parametrize("name", ["q", "i"])
def test_what_was_asked_to_stay(check: Any, name: str) -> None:
    body = TRIP.replace("y = Sigmoid (q)", "i = Identity (q) y = Sigmoid (i)")
    model = net(check, body, to=[1, 4, 36], back=[1, 4, 6, 6])
    outcome = check(model, FoldOptions(keep=frozenset({name})), settled=False)
    assert name in {output for node in outcome.proto.graph.node for output in node.output}


def ops_behind(check: Any, call: str, outputs: str, **constants: np.ndarray) -> list[str]:
    """What a fold leaves of a Conv, the Dropout that ``call`` is, and a BatchNormalization."""
    model = check.model(
        f"g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y{outputs}) {{"
        f" c = Conv (x, w) {call} n = BatchNormalization (d, s, b, m, v) y = Sigmoid (n) }}",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4) | constants,
    )
    proto = ir.to_proto(check.fold_only(model).model)
    onnx.checker.check_model(proto, full_check=True)
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("training", [True, False])
def test_a_dropout_in_training_is_no_identity(check: Any, training: bool) -> None:
    constants = {"ratio": np.array(0.5, np.float32), "training": np.array(training)}
    ops = ops_behind(check, "d = Dropout (c, ratio, training)", "", **constants)
    assert ops == (["Conv", "Dropout", "BatchNormalization", "Sigmoid"] if training else ["Conv", "Sigmoid"])


def test_a_dropout_whose_mask_is_read_stays(check: Any) -> None:
    ops = ops_behind(check, "d, mask = Dropout (c)", ", bool[1, 4, 6, 6] mask")
    assert ops == ["Conv", "Dropout", "Sigmoid"]


def test_sizes_that_are_not_known_are_not_equal(check: Any) -> None:
    model = check.model(
        """g (float[1, 4, 6, 6] x, int64[4] to, int64[4] back) => (float[A, B, C, D] y) {
            c = Conv (x, w) n = BatchNormalization (c, s, b, m, v)
            r = Reshape (n, to) h = Sigmoid (r) q = Reshape (h, back) y = Tanh (q)
        }""",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    feeds = {"to": np.array([1, 4, 36, 1]), "back": np.array([1, 4, 6, 6])}
    assert check(model, feeds=feeds).counts["Reshape"] == 2


def test_a_reshape_that_does_nothing_bars_no_way(check: Any) -> None:
    body = "r = Reshape (c, to) n = BatchNormalization (r, s, b, m, v) y = Sigmoid (n)"
    model = net(check, body, to=[1, 4, 6, 6])
    check(model, FoldOptions(skip=frozenset({"reshape"}))).gone("Conv", "Sigmoid")


def test_a_reshape_of_a_constant_that_an_affine_reads(check: Any) -> None:
    """The scale of a BatchNormalization that stays: while affines are planned, no use tells of it."""
    body = """p = Mul (x, s) o = Reshape (k, four) c = Conv (p, w, o)
        a = Abs (c) n = BatchNormalization (a, o, b, m, v) y = Sigmoid (n)"""
    constants = check.weights(w=(4, 4, 1, 1), k=(4,)) | check.batchnorm(4) | {"four": np.array([4])}
    constants["s"] = np.array(2.0, np.float32)
    model = check.model(f"g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {{ {body} }}", constants)
    outcome = check(model)
    assert outcome.counts["BatchNormalization"] == 1 and outcome.counts["Mul"] == 0
