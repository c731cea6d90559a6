"""The table of folds on a device: what it says of a run, and of a machine without one."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from benchmarks import cuda
from normfold.verification.runtime import CPU
from tests.verification.conftest import ConvBatchNorm

onnxruntime = pytest.importorskip("onnxruntime")


def test_table_of_one_model_on_the_provider_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ir.save(ConvBatchNorm(tail="Relu").original(), tmp_path / "net.onnx")
    table = tmp_path / "table.md"
    assert cuda.main([str(tmp_path / "net.onnx"), "--ep", "cpu", "--device", "a test", "-o", str(table)]) == 0
    text = table.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out and f"on a test, onnxruntime {onnxruntime.__version__}" in text
    *_, rule, row = text.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == rule.count("|") - 1
    assert cells[:4] == ["net", "pass", "3 + 0", "2 + 0"]
    assert float(cells[5]) <= float(cells[6])
    assert cells[7:9] == ["–", "–"]


def test_unchanged_model_says_so(tmp_path: Path) -> None:
    case = ConvBatchNorm()
    ir.save(case.folded(*case.folded_constants()), tmp_path / "net.onnx")
    (tmp_path / "folded").mkdir()
    row = str(cuda.seen("net", tmp_path / "net.onnx", tmp_path / "folded", CPU))
    assert row.startswith("| net | nothing to fold |")


def test_without_a_device_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is one")
    assert cuda.main([]) == 3
    assert capsys.readouterr().out.startswith("nothing was measured: CUDAExecutionProvider is not registered")
