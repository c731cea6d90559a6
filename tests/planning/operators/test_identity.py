"""Identity, Dropout, Cast and CastLike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

BN = "BatchNormalization"


def test_identity_passes_both_ways(harness: Any) -> None:
    node = harness.one("g (double[N, 3, 4] x) => (double[N, 3, 4] y) { y = Identity (x) }")
    node.backward(harness.affine(0, (2, 3, 4), (1, 2)))
    node.forward(harness.affine(0, (2, 3, 4), (1,)))


@pytest.mark.parametrize(
    ("opset", "call", "constants"),
    [
        (20, "Dropout (x)", {}),
        (20, "Dropout (x, ratio)", {"ratio": np.array(0.5)}),
        (20, "Dropout (x, ratio, mode)", {"ratio": np.array(0.5), "mode": np.array(False)}),
        (10, "Dropout <ratio = 0.5> (x)", {}),
        (6, "Dropout <ratio = 0.5, is_test = 1> (x)", {}),
    ],
)
def test_dropout_in_evaluation_passes_both_ways(
    harness: Any, opset: int, call: str, constants: dict[str, np.ndarray]
) -> None:
    like = harness.model("g (double[N, 3] x) => (double[N, 3] y) { y = Identity (x) }")
    node = harness.one(
        f"g (double[N, 3] x) => (double[N, 3] y) {{ y = {call} }}", constants, opset=opset, like=like
    )
    node.backward(harness.affine(0, (2, 3), (1,)))
    node.forward(harness.affine(0, (2, 3), (1,)))


@pytest.mark.parametrize(
    ("opset", "header", "call", "constants"),
    [
        (20, "double[N, 3] x", "Dropout (x, , mode)", {"mode": np.array(True)}),
        (20, "double[N, 3] x, bool[] mode", "Dropout (x, , mode)", {}),
        (6, "double[N, 3] x", "Dropout (x)", {}),
    ],
    ids=["training", "told by the caller", "opset 6 trains by default"],
)
def test_dropout_that_may_train_is_refused(
    harness: Any, opset: int, header: str, call: str, constants: dict[str, np.ndarray]
) -> None:
    node = harness.one(f"g ({header}) => (double[N, 3] y) {{ y = {call} }}", constants, opset=opset)
    with harness.refused("NF107"):
        node.backward(harness.affine(0, (2, 3), (1,)))
    with harness.refused("NF107"):
        node.forward(harness.affine(0, (2, 3), (1,)))


def test_dropout_whose_mask_is_an_output(harness: Any) -> None:
    text = f"""g (double[N, 4] x) => (double[N, 5] y, bool[N, 5] mask) {{
        z = Gemm (x, w) d, mask = Dropout (z) y = {BN} (d, scale, bias, mean, var) }}"""
    harness.fold(text, {**harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 5)}).gone()


@pytest.mark.parametrize(("narrow", "wide"), [("float16", "float"), ("float", "double")])
def test_cast_between_floats_is_crossed(harness: Any, narrow: str, wide: str) -> None:
    types = {"float16": np.float16, "float": np.float32, "double": np.float64}
    to = {"float": 1, "double": 11}[wide]
    text = f"""g ({narrow}[N, 4] x) => ({wide}[N, 5] y) {{
        z = Gemm (x, w) c = Cast <to = {to}> (z) y = {BN} (c, scale, bias, mean, var) }}"""
    constants = {
        **harness.weights(0, dtype=types[narrow], w=(4, 5)),
        **harness.batchnorm(1, 5, dtype=types[wide]),
    }
    outcome = harness.fold(text, constants)
    outcome.gone()
    assert outcome.operators == ["Gemm", "Cast"]


def test_cast_forward_into_a_linear_layer(harness: Any) -> None:
    text = f"""g (float[N, 4] x) => (double[N, 5] y) {{
        n = {BN} (x, scale, bias, mean, var) c = Cast <to = 11> (n) y = Gemm (c, w) }}"""
    constants = {**harness.weights(0, w=(4, 5)), **harness.batchnorm(1, 4, dtype=np.float32)}
    harness.fold(text, constants).gone()


def test_castlike_is_crossed_and_its_type_giver_is_not_read(harness: Any) -> None:
    node = harness.one("g (double[N, 3] x, double[K] t) => (double[N, 3] y) { y = CastLike (x, t) }")
    node.backward(harness.affine(0, (2, 3), (1,)))
    node.forward(harness.affine(0, (2, 3), (1,)))
    node.forward({1: harness.affine(0, (7,), ())})


def test_cast_to_integers_is_refused(harness: Any) -> None:
    node = harness.one("g (double[N, 3] x) => (int64[N, 3] y) { y = Cast <to = 7> (x) }")
    with harness.refused("NF114"):
        node.forward(harness.affine(0, (2, 3), (1,)))


def test_cast_from_integers_is_refused(harness: Any) -> None:
    node = harness.one("g (int64[N, 3] x) => (double[N, 3] y) { y = Cast <to = 11> (x) }")
    with harness.refused("NF114"):
        node.backward(harness.affine(0, (2, 3), (1,)))
