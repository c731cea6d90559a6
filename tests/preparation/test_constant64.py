"""Constants that are read in blocks of rows are what numpy makes of the whole."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from normfold.preparation import constant64
from normfold.preparation.constant64 import Constant64, round_once

VALUES = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def two_rows_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant64, "_BLOCK", 6)
    monkeypatch.setattr(constant64, "KEPT_IN_FLOAT64", 0)


def stored() -> Constant64:
    constant = Constant64.stored(ir.tensor(VALUES))
    assert len(list(constant.blocks())) == 3
    return constant


@pytest.mark.parametrize("shape", [(6, 1), (1, 3), (3,), (6, 3)])
def test_scaled(shape: tuple[int, ...]) -> None:
    factor = np.random.default_rng(1).standard_normal(shape)
    scaled = stored().scaled(factor)
    expected = VALUES.astype(np.float64) * factor
    np.testing.assert_array_equal(scaled.compute(), expected)
    np.testing.assert_array_equal(np.concatenate(list(scaled.blocks())), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_contracted(axis: int) -> None:
    factor = np.random.default_rng(2).standard_normal(VALUES.shape[axis])
    expected = np.tensordot(VALUES.astype(np.float64), factor, axes=([axis], [0]))
    np.testing.assert_allclose(stored().contracted(factor, axis), expected, rtol=0, atol=1e-14)


def test_bfloat16_is_rounded_once() -> None:
    """Just above the middle of two numbers; a float32 is exactly the middle, which goes to the even one."""
    rounded = round_once(np.array([1 + 2.0**-8 + 2.0**-40]), ir.DataType.BFLOAT16)
    assert rounded.astype(np.float64)[0] == 1 + 2.0**-7
