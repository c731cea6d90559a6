"""A kill leaves the old model or the new one; the next run removes the rest, and nothing else."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from normfold.loading import load, save, stage

SAVE_FOREVER = """
import sys
import numpy as np, onnx_ir as ir
from normfold.loading import load, save
source, out, external = sys.argv[1], sys.argv[2], sys.argv[3] == "external"
loaded = load(source)
print("ready", flush=True)
factor = 0
while True:
    factor += 1
    model = loaded.model.clone()
    value = model.graph.initializers["w"]
    old = value.const_value
    value.const_value = ir.tensor(np.full((300, 300), factor, np.float32))
    save(model, out, external=external)
"""

HOLD_STAGED = """
import sys
from normfold.loading import load, stage
staged = stage(load(sys.argv[1]).model, sys.argv[2], external=True)
print("ready", flush=True)
sys.stdin.read()
staged.publish()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[N, 300] x) => (float[N, 300] y) { y = MatMul(x, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((300, 300), np.float32), "w"))
    path = tmp_path / "in.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weight(path: Path) -> np.ndarray:
    tensor = load(path).model.graph.initializers["w"].const_value
    assert tensor is not None
    return np.array(tensor.numpy())


def beside(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()} - {"in.onnx", out.name}


@pytest.mark.parametrize("storage", ["single", "external"])
def test_kill(source: Path, tmp_path: Path, storage: str) -> None:
    out = tmp_path / "out.onnx"
    chance = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(source), str(out), storage],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if out.exists():
            values = weight(out)
            assert (values == values.flat[0]).all()
    save(load(source).model, out, external=storage == "external")
    left = beside(out)
    assert len(left) == (storage == "external"), left
    assert (weight(out) == 0).all()


def test_interrupt_removes_what_was_staged(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stage(load(source).model, tmp_path / "out.onnx", external=True):
        raise KeyboardInterrupt
    assert beside(tmp_path / "out.onnx") == set()


def test_work_in_progress_of_another_process_is_left_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_STAGED, str(source), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    held = beside(out)
    assert len(held) == 2
    save(load(source).model, out, external=False)
    assert beside(out) == held
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()
    assert (weight(out) == 0).all()


class TestUnreferencedData:
    def saved(self, source: Path, out: Path) -> str:
        (name,) = save(load(source).model, out, external=True).data
        return name

    def test_is_removed(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        name = self.saved(source, out)
        out.unlink()
        save(load(source).model, out, external=False)
        assert name not in beside(out)

    def test_stays_while_another_model_of_the_folder_uses_it(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        name = self.saved(source, out)
        out.rename(tmp_path / "renamed.onnx")
        save(load(source).model, out, external=False)
        assert name in beside(out)
        assert (weight(tmp_path / "renamed.onnx") == 0).all()

    def test_stays_if_its_content_is_not_what_its_name_says(self, source: Path, tmp_path: Path) -> None:
        foreign = tmp_path / "out.onnx.01234567.data"
        foreign.write_bytes(b"precious")
        save(load(source).model, tmp_path / "out.onnx")
        assert foreign.read_bytes() == b"precious"

    @pytest.mark.parametrize("name", ["other.onnx.{}.data", "out.onnx.{}.data.bak", "xout.onnx.{}.data"])
    def test_other_names_stay(self, source: Path, tmp_path: Path, name: str) -> None:
        out = tmp_path / "out.onnx"
        digest = self.saved(source, out).split(".")[-2]
        (tmp_path / name.format(digest)).write_bytes((tmp_path / f"out.onnx.{digest}.data").read_bytes())
        save(load(source).model, out, external=False)
        assert beside(out) == {name.format(digest)}


def test_hidden_files_of_others_stay(source: Path, tmp_path: Path) -> None:
    for name in (".out.onnx.normfold-tmp", ".other.onnx.0123456789ab.normfold-tmp", ".out.onnx.swp"):
        (tmp_path / name).touch()
    before = beside(tmp_path / "out.onnx")
    save(load(source).model, tmp_path / "out.onnx")
    assert beside(tmp_path / "out.onnx") == before


def test_the_result_is_a_valid_model(source: Path, tmp_path: Path) -> None:
    save(load(source).model, tmp_path / "out.onnx", external=True)
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
