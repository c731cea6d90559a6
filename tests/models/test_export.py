"""Exported files mean what the torch network means, under both exporters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from torch.nn.modules.batchnorm import _BatchNorm  # noqa: E402

from models.export import Exporter, Unexportable, export, variants  # noqa: E402
from models.zoo import ZOO  # noqa: E402

pytestmark = pytest.mark.torch

CASES = [
    pytest.param(name, *variant, id="-".join([name, *map(str, variant)]))
    for name in sorted(ZOO)
    for variant in variants(name)
    # The default exporter is slow: what it keeps is tested below, on a few.
    if variant[0] == "torchscript" or not variant[2]
]


def session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batch_norms(path: Path) -> int:
    return sum(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(("name", "exporter", "dynamic", "keep_bn"), CASES)
def test_onnxruntime_agrees_with_torch(name: str, exporter: Exporter, dynamic: bool, keep_bn: bool) -> None:
    entry = ZOO[name]
    path = export(name, exporter, dynamic, keep_bn)
    onnx.checker.check_model(path, full_check=True)
    running = session(path)
    assert [value.name for value in running.get_inputs()] == list(entry.inputs)
    assert [value.name for value in running.get_outputs()] == list(entry.outputs)
    network = entry.build()
    # A dynamic file was exported with a batch of 2.
    for batch in (1, 3) if dynamic else (1,):
        inputs = entry.example(batch=batch, seed=batch)
        with torch.no_grad():
            result = network(*inputs)
        expected = [result] if torch.is_tensor(result) else result
        actual = running.run(None, dict(zip(entry.inputs, (value.numpy() for value in inputs), strict=True)))
        for want, got in zip(expected, actual, strict=True):
            # Measured: at most 1e-6 of the largest value.
            np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=5e-6 * want.abs().max().item())


@pytest.mark.parametrize("name", [name for name in sorted(ZOO) if ZOO[name].dynamic])
def test_other_open_axes_are_open(name: str) -> None:
    entry = ZOO[name]
    ((input_name, axes),) = entry.dynamic.items()
    shape = list(entry.inputs[input_name])
    for axis in axes:
        shape[axis] += 5
    value = torch.randn(shape)
    with torch.no_grad():
        want = entry.build()(value)
    (got,) = session(export(name, dynamic=True)).run(None, {input_name: value.numpy()})
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=5e-6 * want.abs().max().item())


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["resnet", "repvgg", "levit", "unet"])
def test_keep_bn_keeps_every_one(name: str, exporter: Exporter) -> None:
    modules = sum(isinstance(layer, _BatchNorm) for layer in ZOO[name].build().modules())
    assert batch_norms(export(name, exporter, keep_bn=True)) == modules
    assert batch_norms(export(name, exporter)) < modules


def test_torchscript_export_leaves_the_statistics_alone() -> None:
    """A trap of ``training=PRESERVE``: on a network in training mode it would update them."""
    graph = onnx.load(export("resnet", "torchscript", keep_bn=True)).graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    bn = next(node for node in graph.node if node.op_type == "BatchNormalization")
    expected = next(layer for layer in ZOO["resnet"].build().modules() if isinstance(layer, _BatchNorm))
    np.testing.assert_array_equal(values[bn.input[3]], expected.running_mean.numpy())
    np.testing.assert_array_equal(values[bn.input[4]], expected.running_var.numpy())


def test_merged_export_has_no_branches_left() -> None:
    ops = [node.op_type for node in onnx.load(export("repvgg", merged=True)).graph.node]
    assert ops.count("Conv") == 5
    assert "Add" not in ops
    assert "BatchNormalization" not in ops


@pytest.mark.parametrize("opset", [18, 21])
def test_opset_is_chosen(opset: int) -> None:
    assert onnx.load(export("diffusion", opset=opset)).opset_import[0].version == opset


def test_a_file_is_made_once_and_where_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMFOLD_CACHE", str(tmp_path / "cache"))
    first = export("tabular", "torchscript")
    written = first.stat().st_mtime_ns
    assert export("tabular", "torchscript") == first
    assert first.stat().st_mtime_ns == written
    elsewhere = tmp_path / "folder" / "mine.onnx"
    assert export("tabular", "torchscript", path=elsewhere) == elsewhere
    assert elsewhere.read_bytes() == first.read_bytes()
    assert [file.name for file in first.parent.iterdir()] == [first.name]


def test_exports_of_old_sources_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMFOLD_CACHE", str(tmp_path))
    old, recent = tmp_path / "zoo" / "old", tmp_path / "zoo" / "recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    current = export("tabular", "torchscript").parent
    assert set((tmp_path / "zoo").iterdir()) == {recent, current}


def test_what_torch_cannot_export_says_so() -> None:
    with pytest.raises(Unexportable, match=r"tracked_style by the torchscript exporter: .* batch size"):
        export("tracked_style", "torchscript", dynamic=True)
    with pytest.raises(ValueError, match="no exporter 'onnx'"):
        export("resnet", "onnx")  # type: ignore[arg-type]
