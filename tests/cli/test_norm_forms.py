"""The options that choose the form of a GroupNorm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from models.single_norms import groupnorm

Run = Any
SHAPE = (2, 12, 16, 16)


@pytest.fixture
def norm(tmp_path: Path) -> Path:
    path = tmp_path / "norm.onnx"
    onnx.save(groupnorm("handwritten", SHAPE, 3), path)
    return path


def cores(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node if "Norm" in node.op_type}


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"])
def test_the_first_line_names_the_target(run: Run, norm: Path, target: str) -> None:
    result = run("fold", norm, "--dry-run", "--no-verify", "--target", target)
    assert result.code == 0
    assert f"for {target}" in result.out.splitlines()[0]


def test_the_target_is_the_first_provider_or_the_cpu(run: Run, norm: Path) -> None:
    for options, target in (((), "ort-cpu"), (("--ep", "cuda", "--ep", "cpu"), "ort-cuda")):
        result = run("fold", norm, "--dry-run", "--no-verify", *options)
        assert f"for {target}" in result.out.splitlines()[0]


def test_an_unstable_form_gives_way_unless_it_is_allowed(run: Run, norm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert run("fold", norm, "-o", out, "--target", "tensorrt", "--format", "json").code == 0
    assert cores(out) == {"InstanceNormalization"}
    result = run("fold", norm, "-o", out, "--target", "tensorrt", "--allow-unstable", "--format", "json")
    assert cores(out) == {"GroupNormalization"}
    (site,) = json.loads(result.out)["sites"]
    assert (site["rule"], site["code"]) == ("native", None)


def test_a_form_by_name(run: Run, norm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert run("fold", norm, "-o", out, "--groupnorm", "ms-groupnorm", "--allow-unstable").code == 0
    assert cores(out) == {"GroupNorm"}
    assert run("fold", norm, "-o", out, "--groupnorm", "keep").code == 0
    assert cores(out) == {"BatchNormalization"}, "scale and shift of the hand-written one"


def test_a_provider_that_is_not_here_is_inconclusive(run: Run, norm: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    out = tmp_path / "out.onnx"
    assert run("fold", norm, "-o", out, "--groupnorm", "ms-groupnorm", "--ep", "cuda").code == 3
    assert not out.exists()


def test_tune(run: Run, norm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = run("fold", norm, "-o", out, "--tune", "--format", "json")
    assert result.code == 0
    assert out.exists()
    forms = {entry["form"]: entry["speedup"] for entry in json.loads(result.out)["summary"]["tuning"]}
    assert forms["keep"] == 1.0
    assert forms["instancenorm-bn"] > 1.0


def test_tune_chooses_the_form_itself(run: Run, norm: Path) -> None:
    result = run("fold", norm, "--dry-run", "--tune", "--groupnorm", "native")
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
