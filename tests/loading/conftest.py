"""Small models, written as text, and what every test of loading does with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

TEXT = """
<ir_version: 8, opset_import: ["" : 17, "custom.domain" : 1]>
scale (float[N, 4] x) => (float[N, 4] y)
<float[4] w = {1, 2, 3, 4}, float[4] b = {0.5, 0.5, 0.5, 0.5}>
{
    scaled = Mul(x, w)
    y = Add(scaled, b)
}
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    """A valid model: y = x·w + b."""
    return parser.parse_model(TEXT)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model, and returns its path."""

    def write_model(model: onnx.ModelProto, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write_model


@pytest.fixture
def dense() -> onnx.ModelProto:
    """A MatMul whose 40 kB weight is large enough to be stored outside."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "dense (float[N, 100] x) => (float[N, 100] y) { y = MatMul(x, w) }"
    )
    weight = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


@pytest.fixture
def external(dense: onnx.ModelProto, tmp_path: Path) -> Path:
    """The same with its weight in ``weights.bin``."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "dense.onnx"
    own = onnx.ModelProto()
    own.CopyFrom(dense)
    onnx.save(own, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
