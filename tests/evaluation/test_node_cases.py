"""ONNX's own node tests: native results equal theirs, and float64 evaluation never falls back to float32."""

from __future__ import annotations

import collections
import functools
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.evaluation import Evaluator, NotCovered
from normfold.evaluation.dtypes import is_floating
from normfold.evaluation.kernels import KERNELS
from normfold.evaluation.reference import COVERED

# Cases, not operators, that are refused, with the phrase that says why.
REFUSED = {
    "test_training_dropout": "draws random numbers",
    "test_bernoulli": "draws random numbers",
    "test_resize_downsample_scales_linear_align_corners": "fractional output size",
    "test_resize_downsample_scales_cubic_align_corners": "fractional output size",
    "test_scan_sum": "batch axis",
}
# The reference rounds to bfloat16 between steps, we once.
LOOSE = ("bf16", "bfloat16", "BFLOAT16")
# Results that do not depend smoothly on their operands, or not on all of them.
DISCONTINUOUS = {
    *(
        "Ceil",
        "Floor",
        "Round",
        "Sign",
        "Hardmax",
        "ArgMax",
        "Cast",
        "CastLike",
        "QuantizeLinear",
        "GridSample",
    ),
    *("DequantizeLinear", "DynamicQuantizeLinear", "MelWeightMatrix", "Range", "Loop", "Unique", "OneHot"),
}

# Operands at a kink or a pole.
NEAR_A_STEP = {
    *("test_acosh_example", "test_thresholdedrelu_example"),
    *("test_softmax_large_number", "test_logsoftmax_large_number"),
}


@functools.cache
def cases() -> dict[str, list[Any]]:
    """Single-node cases by operator; those of operators that we do not claim are left out."""
    from onnx.backend.test.case.node import collect_testcases

    found = collections.defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    for case in collected:
        nodes, opsets = case.model.graph.node, {o.domain: o.version for o in case.model.opset_import}
        if len(nodes) != 1 or case.name.endswith("_expanded"):
            continue
        key = (nodes[0].domain, nodes[0].op_type)
        special = key[1] in ("If", "Loop", "Scan", "SequenceMap")
        covered = not key[0] and COVERED.get(key[1], 10**9) <= opsets.get("", 0)
        if key in KERNELS or covered or special:
            found[nodes[0].op_type].append(case)
    return dict(found)


def _plain(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _assert_equal(result: Any, expected: Any, rtol: float, atol: float) -> None:
    if expected is None or isinstance(expected, list):
        assert (result is None) == (expected is None)
        for mine, wanted in zip(result or [], expected or [], strict=True):
            _assert_equal(mine, wanted, rtol, atol)
        return
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    if expected.dtype.kind in "OUS":
        assert [str(v) for v in result.reshape(-1)] == [str(v) for v in expected.reshape(-1)]
        return
    assert result.dtype == expected.dtype
    if expected.dtype.isbuiltin != 1:
        result, expected = result.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)


OPERATORS = sorted(
    {op for domain, op in KERNELS if not domain} | set(COVERED) | {"If", "Loop", "Scan", "SequenceMap"}
)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_native_results_equal_the_node_cases(op_type):
    for case in cases().get(op_type, []):
        refusal = next((why for name, why in REFUSED.items() if case.name.startswith(name)), None)
        if case.name == "test_if_opt":
            continue  # its data set holds an optional, which the loader cannot convert
        model = ir.from_proto(case.model)
        loose = any(mark in case.name for mark in LOOSE)
        for inputs, outputs in case.data_sets:
            feeds = {v.name: _plain(i) for v, i in zip(model.graph.inputs, inputs, strict=False)}
            if refusal and not (case.name.startswith("test_training_dropout") and "zero_ratio" in case.name):
                with pytest.raises(NotCovered, match=refusal):
                    Evaluator(model, precision="native").run(feeds)
                continue
            results = Evaluator(model, precision="native").run(feeds)
            for result, expected in zip(results.values(), outputs, strict=True):
                rtol, atol = (2e-2, 2e-2) if loose else (case.rtol, case.atol)
                _assert_equal(result, _plain(expected), rtol, atol)


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, list):
        return [array for item in value for array in _arrays(item)]
    return [value] if isinstance(value, np.ndarray) else []


@pytest.mark.parametrize("op_type", sorted(set(OPERATORS) - DISCONTINUOUS))
def test_float64_results_carry_double_accuracy(op_type):
    """A relative change of 1e-12 goes through smoothly; a float32 step would swallow it or jump by 1e-7."""
    rng = np.random.default_rng(0)
    changes = []
    for case in cases().get(op_type, []):
        model, (inputs, _) = ir.from_proto(case.model), case.data_sets[0]
        feeds = {v.name: _plain(i) for v, i in zip(model.graph.inputs, inputs, strict=False)}
        if any(isinstance(v, list) or v is None for v in feeds.values()) or case.name in NEAR_A_STEP:
            continue
        feeds = {name: np.asarray(v) for name, v in feeds.items()}
        doubles = {name: v.astype(np.float64) for name, v in feeds.items() if is_floating(v.dtype)}
        nudged = {name: v * (1 + 1e-12 * rng.standard_normal(v.shape)) for name, v in doubles.items()}
        try:
            before, after = (Evaluator(model).run({**feeds, **d}) for d in (doubles, nudged))
        except NotCovered:
            continue
        for a, b in zip(_arrays(list(before.values())), _arrays(list(after.values())), strict=True):
            if doubles and is_floating(a.dtype) and (finite := np.isfinite(a) & (a != 0)).any():
                assert a.dtype == np.float64, case.name
                changes.append(np.abs(a[finite] - b[finite]).max() / np.abs(a[finite]).max())
                assert changes[-1] < 1e-10, case.name
    assert not changes or max(changes) > 0
