"""onnx's own node cases: a fold leaves every one valid, equal in float64, and settled."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from normfold.evaluation import Evaluator, NotCovered
from normfold.folding import Folded, fold_model

PARTS = 8


def cases() -> list[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


@pytest.fixture(scope="module")
def all_cases() -> list[Any]:
    found = cases()
    assert len(found) > 1500
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_node_cases_stay_right(all_cases: list[Any], part: int) -> None:
    changed = 0
    for case in all_cases[part::PARTS]:
        folded = fold_model(ir.from_proto(case.model))
        if not folded.changed:
            continue
        changed += 1
        if is_valid(case.model):
            onnx.checker.check_model(ir.to_proto(folded.model))
        assert not fold_model(folded.model).changed, case.name
        with contextlib.suppress(NotCovered):
            equal(case.name, folded, case.data_sets[0][0])
    assert changed


def is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def equal(name: str, folded: Folded, arrays: list[Any]) -> None:
    names = [value.name for value in folded.original.graph.inputs]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return
    feeds = {
        n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in zip(names, arrays, strict=False)
    }
    with np.errstate(all="ignore"):
        before = Evaluator(folded.original).run(feeds)
        after = Evaluator(folded.model, constants=folded.exact).run(feeds)
    for output, expected in before.items():
        if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
            largest = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
            np.testing.assert_allclose(
                after[output], expected, rtol=0, atol=1e-12 * largest, err_msg=f"{name}: {output}"
            )
