"""``normfold calibrate``, on the LeNet that was trained on digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

Run = Callable[..., Any]

TRAINED = Path(__file__).parents[2] / "models" / "trained"
DATA = TRAINED / "digits_heldout.npz"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Running variances a thousand times too large."""
    model = onnx.load(TRAINED / "lenet_digits_bn.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("running_var"):
            scaled = (numpy_helper.to_array(tensor) * 1000).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    return tmp_path / "damaged.onnx"


def accuracy(path: Path) -> float:
    with np.load(DATA) as stored:
        (logits,) = ReferenceEvaluator(onnx.load(path)).run(None, {"images": stored["images"]})
        return float((np.asarray(logits).argmax(1) == stored["labels"]).mean())


def test_restores_what_the_statistics_spoiled(run: Run, damaged: Path, tmp_path: Path) -> None:
    healthy = accuracy(TRAINED / "lenet_digits_bn.onnx")
    assert accuracy(damaged) < healthy - 0.3
    outcome = run("calibrate", damaged, "--data", DATA, "-o", tmp_path / "out.onnx", "--format", "json")
    assert outcome.code == 0
    assert accuracy(tmp_path / "out.onnx") >= healthy - 0.02
    report = outcome.report
    assert report["outputs"][0]["path"] == str(tmp_path / "out.onnx")
    assert report["consistency"]["images"] == 450
    assert [layer["images"] for layer in report["consistency"]["layers"]] == [450] * 4
    assert run("consistency", tmp_path / "out.onnx", "--data", DATA).code == 0
    assert run("fold", tmp_path / "out.onnx", "-o", tmp_path / "folded.onnx").code == 0


def test_never_over_the_input(run: Run, damaged: Path) -> None:
    before = damaged.read_bytes()
    outcome = run("calibrate", damaged, "--data", DATA, "-o", damaged)
    assert outcome.code == 2
    assert "NF900" in outcome.error
    assert damaged.read_bytes() == before


def test_needs_data(run: Run, damaged: Path, tmp_path: Path) -> None:
    outcome = run("calibrate", damaged, "-o", tmp_path / "out.onnx")
    assert outcome.code == 2
    assert "--data" in outcome.error


def test_nothing_to_calibrate(run: Run, tmp_path: Path) -> None:
    outcome = run("calibrate", TRAINED / "lenet_digits.onnx", "--data", DATA, "-o", tmp_path / "out.onnx")
    assert outcome.code == 2
    assert "no BatchNormalization" in outcome.error
    assert not (tmp_path / "out.onnx").exists()
