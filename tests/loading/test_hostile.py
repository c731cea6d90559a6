"""Damaged files end in one line, whatever the libraries below raise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from normfold.errors import InputError
from normfold.loading import load


def try_to_load(path: Path) -> None:
    try:
        load(path)
    except InputError as error:
        assert error.code is not None
        assert "\n" not in str(error)


def test_truncated_anywhere(model: onnx.ModelProto, tmp_path: Path) -> None:
    content = model.SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try_to_load(path)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits(model: onnx.ModelProto, tmp_path: Path, seed: int) -> None:
    content = np.frombuffer(model.SerializeToString(), np.uint8)
    generator = np.random.default_rng(seed)
    path = tmp_path / "model.onnx"
    for _ in range(400):
        damaged = content.copy()
        for position in generator.integers(0, len(content), generator.integers(1, 4)):
            damaged[position] ^= 1 << generator.integers(0, 8)
        path.write_bytes(damaged.tobytes())
        try_to_load(path)


def test_line_breaks_in_names(model: onnx.ModelProto, tmp_path: Path) -> None:
    model.graph.node[0].input[1] = "a\nb\x1b[31m"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).isprintable()
