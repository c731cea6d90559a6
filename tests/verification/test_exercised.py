"""Constants that differ and that no input reaches: an output that agrees says nothing of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from normfold.reporting.report import Verification
from normfold.verification import verify_models
from tests.verification.conftest import model_of

pytest.importorskip("onnxruntime")

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": RNG.standard_normal((8, 8)).astype(np.float32),
    "v": RNG.standard_normal((8, 4)).astype(np.float32),
    "b": np.array([0.1, 0.2, -900, 0, 0, 0.3, 0, 0], np.float32),
    "high": np.float32(5000),
    "level": np.float32(1e9),
    "table": RNG.standard_normal((512, 8)).astype(np.float32),
}
BODIES = {
    "a dead channel": "m = MatMul(x, w) a = Add(m, b) r = Relu(a) y = MatMul(r, v)",
    "a bound": "m = MatMul(x, w) zero = Sub(high, high) r = Clip(m, zero, high) y = MatMul(r, v)",
    "a threshold": "m = MatMul(x, w) c = Greater(m, level) n = Neg(m) r = Where(c, n, m) y = MatMul(r, v)",
    "a position": "s = Shape<start = 0, end = 1>(x) o = Sub(s, s) t = Slice(table, o, s) p = Add(x, t)"
    " y = MatMul(p, v)",
}


def model(body: str, replaced: Mapping[str, np.ndarray]) -> ir.Model:
    constants = {name: array for name, array in CONSTANTS.items() if f"{name})" in body or f"{name}," in body}
    return model_of(f"{HEADER} g (float[N, 8] x) => (float[N, 4] y) {{ {body} }}", {**constants, **replaced})


def compared(name: str, **replaced: np.ndarray) -> Verification:
    return verify_models(model(BODIES[name], {}), model(BODIES[name], replaced))


def with_one(name: str, place: tuple[int, ...], factor: float) -> np.ndarray:
    array = CONSTANTS[name].copy()
    array[place] *= np.float32(factor)
    return array


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("a dead channel", {"w": with_one("w", (1, 2), -1)}),
        ("a dead channel", {"v": with_one("v", (2, 1), 1.01)}),
        ("a bound", {"high": np.float32(6000)}),
        ("a threshold", {"level": np.float32(1e8)}),
        ("a position", {"table": with_one("table", (400, 3), 2)}),
    ],
)
def test_what_no_input_reaches_is_no_pass(name: str, replaced: dict[str, np.ndarray]) -> None:
    found = compared(name, **replaced)
    assert (found.verdict, [m[:5] for m in found.messages]) == ("inconclusive", ["NF221"])


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("a dead channel", {"w": with_one("w", (1, 3), -1)}),
        ("a dead channel", {"v": with_one("v", (3, 1), 1.01)}),
        ("a bound", {"high": np.float32(0.5)}),
        ("a threshold", {"level": np.float32(0.5)}),
        ("a position", {"table": with_one("table", (0, 3), 2)}),
    ],
)
def test_what_inputs_reach_is_a_difference(name: str, replaced: dict[str, np.ndarray]) -> None:
    assert compared(name, **replaced).verdict == "fail"


@pytest.mark.parametrize("name", sorted(BODIES))
def test_the_same_constants_pass(name: str) -> None:
    assert compared(name).verdict == "pass"


def test_rounding_of_a_constant_that_nothing_reaches_passes() -> None:
    assert compared("a dead channel", v=with_one("v", (2, 1), 1 + 2e-7)).verdict == "pass"


def test_a_constant_that_reaches_no_output_passes() -> None:
    body = BODIES["a dead channel"] + " d = MatMul(x, table)"
    table = CONSTANTS["table"][:8]
    first, second = (model(body, {"table": array}) for array in (table, -table))
    assert verify_models(first, second).verdict == "pass"


def test_hidden_channels_in_another_order_pass() -> None:
    """Three constants differ everywhere; each of them is exercised."""
    order = [1, 0, 2, 3, 4, 5, 7, 6]
    replaced = {"w": CONSTANTS["w"][:, order], "b": CONSTANTS["b"][order], "v": CONSTANTS["v"][order]}
    assert compared("a dead channel", **replaced).verdict == "pass"
