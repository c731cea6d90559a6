"""Whole networks with GroupNorm: what onnxruntime computes by default from the folded file is right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from models.export import export  # noqa: E402
from models.zoo import ZOO  # noqa: E402
from normfold import fold  # noqa: E402

pytestmark = pytest.mark.torch

GROUPNORMS = {"standardised": 10, "diffusion": 10}
# float32 against float64 over a dozen layers; a wrong epsilon in one GroupNorm shows at 1e-5.
AGREEMENT = 3e-6


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def default_session(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Kernels that update their constants in place are wrong from the second run on.
    session.run(None, feeds)
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(
    ("name", "exporter", "dynamic"),
    [
        ("standardised", "dynamo", False),
        ("standardised", "torchscript", False),
        ("diffusion", "dynamo", True),
        ("diffusion", "torchscript", False),
    ],
)
def test_the_default_session_is_right(name: str, exporter: Any, dynamic: bool, tmp_path: Path) -> None:
    entry, path = ZOO[name], tmp_path / "folded.onnx"
    report = fold(export(name, exporter, dynamic), path).report
    assert report.verification.verdict == "pass", report.verification.messages
    example = entry.example(batch=2 if dynamic else 1, seed=3)
    feeds = {n: v.numpy() for n, v in zip(entry.inputs, example, strict=True)}
    with torch.no_grad():
        expected = entry.build().double()(*(v.double() for v in example)).numpy()
    np.testing.assert_allclose(
        default_session(path, feeds), expected, rtol=0, atol=AGREEMENT * np.abs(expected).max()
    )
    assert operators(path)["InstanceNormalization"] == GROUPNORMS[name]


def test_a_weight_is_standardised_once_and_for_all(tmp_path: Path) -> None:
    """TorchScript leaves it as training-mode BatchNormalization of constants, once for each Conv."""
    source, path = export("standardised", "torchscript"), tmp_path / "folded.onnx"
    training = [
        node
        for node in onnx.load(source).graph.node
        if node.op_type == "BatchNormalization"
        and any(a.name == "training_mode" and a.i for a in node.attribute)
    ]
    assert len(training) == operators(source)["Conv"]
    fold(source, path, groupnorm="keep")
    after = onnx.load(path).graph
    weights = {value.name for value in after.initializer}
    for node in after.node:
        assert node.op_type != "Conv" or node.input[1] in weights
        assert not any(a.name == "training_mode" and a.i for a in node.attribute)


@pytest.mark.parametrize("target", ["ort-cuda", "tensorrt", "openvino", "portable"])
def test_every_target_passes_its_proof(target: str) -> None:
    report = fold(export("diffusion"), target=target).report
    assert report.verification.verdict == "pass", report.verification.messages
    assert report.summary["target"] == target
    assert not any(site.rule == "native" for site in report.sites), "it loses its digits at large means"


def half_unet(folder: Path) -> Path:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path = folder / "half.onnx"
    half = ir.from_proto(convert_float_to_float16(onnx.load(export("diffusion"))))
    half.graph.sort()
    ir.save(half, path)
    return path


def test_a_unet_in_float16_for_cuda(tmp_path: Path) -> None:
    """Every GroupNorm becomes the operator that CUDA has a kernel of, with the SiLU behind it inside."""
    path, out = half_unet(tmp_path), tmp_path / "folded.onnx"
    report = fold(path, out, target="ort-cuda").report
    assert report.verification.verdict == "pass", report.verification.messages
    nodes = [node for node in onnx.load(out).graph.node if node.domain == "com.microsoft"]
    assert [node.op_type for node in nodes] == ["GroupNorm"] * GROUPNORMS["diffusion"]
    inside = sum(a.i for node in nodes for a in node.attribute if a.name == "activation")
    assert inside == operators(path)["Sigmoid"] - operators(out)["Sigmoid"] > 0
    onnx.checker.check_model(str(out))


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="onnxruntime has no CUDA here"
)
def test_a_unet_in_float16_on_cuda(tmp_path: Path) -> None:
    report = fold(half_unet(tmp_path), tmp_path / "folded.onnx", providers=["cuda"]).report
    assert report.summary["target"] == "ort-cuda"
    assert report.verification.verdict == "pass", report.verification.messages
    folded = [entry for entry in report.verification.providers if entry["model"] == "folded"]
    assert folded
    assert not any("Norm" in node for entry in folded for node in entry["fallbacks"])
