"""Folds are exercised on the device for certain, and judged with float32 products."""

from __future__ import annotations

from normfold.benchmarking import BenchOptions
from normfold.commands.bench import bench
from normfold.reporting.report import Verification
from normfold.runtime.execution_providers import CUDA
from normfold.verification import VerifyOptions, verify_models
from tests.verification.conftest import ConvBatchNorm


def verify(error: float = 0.0) -> Verification:
    case = ConvBatchNorm(64, inputs=32, sizes="1, {inputs}, 32, 32")
    weight, bias = case.folded_constants()
    return verify_models(
        case.original(), case.folded(weight, bias + error), VerifyOptions(providers=("cpu", "cuda"))
    )


def test_honest_fold_passes_with_its_nodes_on_the_device() -> None:
    found = verify()
    assert found.verdict == "pass" and found.messages == []
    runs = [row for row in found.providers if row["provider"] == "cuda"]
    assert [row["status"] for row in runs] == ["ok"] * 6
    assert all(row["assigned"].get(CUDA) for row in runs)
    assert all(row["fallbacks"] == [] for row in runs)


def test_tf32_is_off_where_it_counts() -> None:
    """TF32 has 10 bits: its error stands out from that of the strict run by far."""
    found = verify()
    strict = max(row["e1"] for row in found.rounding if row["provider"] == "cuda")
    relaxed = [max(row["tf32"].values()) for row in found.providers if "tf32" in row]
    assert len(relaxed) == 2 and min(relaxed) > 20 * strict


def test_error_of_the_size_of_tf32_fails() -> None:
    assert verify(error=1e-3).verdict == "fail"


def test_timing_binds_inputs_and_outputs() -> None:
    case = ConvBatchNorm(64, inputs=32, sizes="1, {inputs}, 32, 32")
    models = case.original(), case.folded(*case.folded_constants())
    (row,) = bench(*models, BenchOptions(providers=("cuda",), rounds=5)).measurements
    assert row.io_binding and row.provider == "cuda"
