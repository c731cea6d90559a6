"""What would leave the range of its type is not folded, and what fits is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from normfold.affine import Affine
from normfold.planning.ranges import check_affine, fits, is_representable, safe_shift
from normfold.refusal import Refused


def model(check: Any, dtype: Any, *, scale: float = 1.0, bias: float = 0.0, weight: float = 1.0) -> Any:
    """Conv, then a scale and shift per channel, all of channel 1 of size ``scale``, ``bias``, ``weight``."""
    kind = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    w, k, t = np.ones((3, 2, 1, 1)), np.ones((3, 1, 1)), np.full((3, 1, 1), 0.5)
    w[1], k[1], t[1] = weight, scale, bias
    k[2] = 2.0
    return check.model(
        f"""g ({kind}[N, 2, H, W] x) => ({kind}[N, 3, H, W] y) {{
            c = Conv (x, w) n = Mul (c, k) y = Add (n, t)
        }}""",
        {"w": w.astype(dtype), "k": k.astype(dtype), "t": t.astype(dtype)},
    )


@pytest.mark.parametrize(
    ("dtype", "scale", "weight"),
    [(np.float16, 1e3, 1e3), (np.float32, 1e25, 1e25), (np.float64, 1e200, 1e200)],
)
def test_an_overflow_is_refused(check: Any, dtype: Any, scale: float, weight: float) -> None:
    folded = check.fold_only(model(check, dtype, scale=scale, weight=weight))
    code = "NF108" if dtype is np.float64 else "NF111"
    assert [s.code for s in folded.sites] == [code]


@pytest.mark.parametrize(("dtype", "scale", "weight"), [(np.float16, 200, 200), (np.float32, 1e18, 1e18)])
def test_what_just_fits_is_folded(check: Any, dtype: Any, scale: float, weight: float) -> None:
    check(model(check, dtype, scale=scale, weight=weight)).gone("Conv")


@pytest.mark.parametrize(("dtype", "scale", "weight"), [(np.float16, 1e-3, 1e-3), (np.float32, 1e-21, 1e-21)])
def test_a_channel_that_would_become_subnormal_is_refused(
    check: Any, dtype: Any, scale: float, weight: float
) -> None:
    """In front of it the scale had all its digits; in the weight it would have none."""
    folded = check.fold_only(model(check, dtype, scale=scale, weight=weight))
    assert [s.code for s in folded.sites] == ["NF111"]


def test_a_dead_channel_is_no_loss(check: Any) -> None:
    """A scale of zero, or one that is itself below the normal range, had no digits to lose."""
    check(model(check, np.float32, scale=0.0)).gone("Conv")
    check(model(check, np.float32, scale=1e-42)).gone("Conv")


def test_single_small_weights_are_no_loss(check: Any) -> None:
    """One tap near zero among others of its channel is what rounding is for."""
    proto = model(check, np.float16, scale=1e-3)
    array = np.ones((3, 2, 1, 1), np.float16)
    array[1, 0] = 1e-3
    proto.graph.initializer[0].raw_data = array.tobytes()
    check(proto).gone("Conv")


def test_a_bias_that_overflows_is_refused(check: Any) -> None:
    proto = check.model(
        """g (float16[N, 2, H, W] x) => (float16[N, 3, H, W] y) {
            c = Conv (x, w, b) y = Mul (c, k)
        }""",
        {
            "w": np.full((3, 2, 1, 1), 1e-2, np.float16),
            "b": np.full(3, 1e3, np.float16),
            "k": np.full((3, 1, 1), 1e3, np.float16),
        },
    )
    assert [s.code for s in check.fold_only(proto).sites] == ["NF111"]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (ir.DataType.FLOAT16, 65504.0, True),
        (ir.DataType.FLOAT16, 65520.0, False),
        (ir.DataType.BFLOAT16, 3e38, True),
        (ir.DataType.FLOAT, 3.4028234e38, True),
        (ir.DataType.FLOAT, 3.5e38, False),
        (ir.DataType.DOUBLE, 1e308, True),
        (ir.DataType.FLOAT, np.nan, False),
    ],
)
def test_fits(dtype: ir.DataType, value: float, expected: bool) -> None:
    assert fits(np.array([0.0, -value]), dtype) is expected


def test_representable_looks_at_digits_in_float16() -> None:
    small = Affine.of(1e-6, rank=1)
    assert not is_representable(small, ir.DataType.FLOAT16)
    assert is_representable(small, ir.DataType.FLOAT)
    assert is_representable(Affine.of(0.0, 1e-6, rank=1), ir.DataType.FLOAT16)


@pytest.mark.parametrize(
    ("scale", "shift", "dtype", "expected"),
    [
        (1 + 2.0**-25, 0.0, ir.DataType.FLOAT, False),
        (1 + 2.0**-25, 0.0, ir.DataType.DOUBLE, True),
        (1 + 2.0**-23, 0.0, ir.DataType.FLOAT, True),
        (1 - 2.0**-13, 0.0, ir.DataType.FLOAT16, False),
        (1 - 2.0**-10, 5.0, ir.DataType.BFLOAT16, False),
        ([1 + 2.0**-25, 1.0], 0.0, ir.DataType.FLOAT, False),
        ([1 + 2.0**-25, 2.0], 0.0, ir.DataType.FLOAT, True),
        (2.0, 1e-60, ir.DataType.FLOAT, False),
        (2.0, 1e-60, ir.DataType.DOUBLE, True),
        (1.0, 0.0, ir.DataType.FLOAT, True),
    ],
)
def test_what_rounds_to_nothing_cannot_be_written(
    scale: float | list[float], shift: float, dtype: ir.DataType, expected: bool
) -> None:
    assert is_representable(Affine.of(np.array(scale), shift, rank=1), dtype) is expected


@pytest.mark.parametrize("between", ["", "r = Relu (a) "], ids=["in a row", "a Relu between"])
def test_a_factor_and_its_rounded_inverse_stay(check: Any, between: str) -> None:
    """Their product is not 1, but would be written as 1: the next fold would take that for nothing."""
    text = """g (float[2, 4, 5, 5] x) => (float[2, 4, 5, 5] y) {{
        s = Sigmoid (x) a = Mul (s, c) {between} b = Mul ({last}, d) y = Sigmoid (b) }}"""
    model = text.format(between=between, last="r" if between else "a")
    three = np.array(3.0, np.float32)
    outcome = check(check.model(model, {"c": three, "d": 1 / three}))
    assert outcome.counts["Mul"] == 2
    # The inverse of a power of two is one.
    assert "Mul" not in check(check.model(model, {"c": np.float32(4.0), "d": np.float32(0.25)})).counts


def test_a_shift_in_front_stays_well_inside_the_range() -> None:
    assert safe_shift(np.array([100.0]), ir.DataType.FLOAT16)
    assert not safe_shift(np.array([1e3]), ir.DataType.FLOAT16)
    assert not safe_shift(np.array([np.inf]), ir.DataType.DOUBLE)


@pytest.mark.parametrize("kind", ["float16", "float"])
def test_a_sum_in_float16_keeps_the_scale_in_front_of_it(check: Any, kind: str) -> None:
    """Attention divides in front of its product: 64 terms that are eight times as large may overflow."""
    proto = check.model(
        f"""g ({kind}[2, 4, 64] x, {kind}[2, 64, 4] p) => ({kind}[2, 4, 4] y) {{
            q = Sigmoid (x) t = Sigmoid (p) s = Mul (q, k) a = MatMul (s, t) y = Sigmoid (a)
        }}""",
        {"k": np.array(0.125, {"float16": np.float16, "float": np.float32}[kind])},
    )
    outcome = check(proto)
    if kind == "float16":
        assert outcome.kept("NF111").site == "s"
    else:
        assert outcome.ops == ["Sigmoid", "Sigmoid", "MatMul", "Mul", "Sigmoid"]


@pytest.mark.parametrize(("shift", "fits"), [(1000.0, True), (2000.0, False)])
def test_what_is_left_behind_a_sum_must_fit(check: Any, shift: float, fits: bool) -> None:
    """Behind a sum over 64 positions it touches less, and is 64 times as large."""
    proto = check.model(
        """g (float16[N, 3, 8, 8] x) => (float16[N, 3, 1, 1] y) {
            t = Add (x, k) s = ReduceSum (t, axes) y = Sigmoid (s)
        }""",
        {"k": np.full((3, 1, 1), shift, np.float16), "axes": np.array([2, 3])},
    )
    outcome = check(proto)
    if fits:
        assert outcome.ops == ["ReduceSum", "Add", "Sigmoid"]
    else:
        assert outcome.kept("NF111").site == "t"


@pytest.mark.parametrize(
    ("affine", "dtype", "code"),
    [
        (Affine.of(np.inf, rank=1), ir.DataType.FLOAT, "NF108"),
        (Affine.of(1.0, 1e5, rank=1), ir.DataType.FLOAT16, "NF111"),
        (Affine.of(1e-6, rank=1), ir.DataType.FLOAT16, "NF111"),
    ],
)
def test_what_stays_is_written_in_the_type_of_its_value(
    affine: Affine, dtype: ir.DataType, code: str
) -> None:
    check_affine(Affine.of(0.5, 2.0, rank=1), dtype, "y")
    with pytest.raises(Refused) as refusal:
        check_affine(affine, dtype, "y")
    assert refusal.value.code == code
