"""The table of folds on a device: what it says of a run, and of a machine without one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from benchmarks import cuda
from normfold.runtime.execution_providers import CPU, CUDA
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
    row = str(cuda.seen(cuda.Case("net", tmp_path / "net.onnx"), tmp_path / "folded", CPU))
    assert row.startswith("| net | nothing to fold |")


def test_forms_of_a_half_precision_unet(tmp_path: Path) -> None:
    unet = cuda.write_unet(tmp_path / "unet.onnx", width=16, size=8, groups=8)
    row = cuda.seen(cuda.Case("unet", unet, "layernorm"), tmp_path, CPU)
    assert row.report.verification.verdict == "pass" and row.speed != "–"
    operators = Counter(node.op_type for node in ir.load(tmp_path / "folded.onnx").graph)
    assert operators["LayerNormalization"] == 10 and "InstanceNormalization" not in operators


def test_each_form_with_and_without_channels_last() -> None:
    cases = cuda.norms(Path("unet.onnx"), CUDA)
    assert [case.form for case in cases] == [None, *cuda.FORMS] * 2
    assert [dict(case.options) for case in cases] == [{}] * 5 + [{"prefer_nhwc": "1"}] * 5


def test_without_a_device_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    missing = cuda.obstacle(CUDA)
    if missing is None:
        pytest.skip("there is one")
    assert CUDA in missing
    assert cuda.main([]) == 3
    assert capsys.readouterr().out == f"nothing was measured: {missing}\n"
