"""What is saved is complete, stored like the input, reproducible; it replaces nothing until published."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.errors import OutputError
from normfold.loading import Loaded, load, save, stage, stage_copy
from tests.limits import largest_file

Write = Callable[..., Path]
X = np.random.default_rng(1).normal(size=(2, 100)).astype(np.float32)


def run(path: Path) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def doubled(loaded: Loaded) -> ir.Model:
    """The model with a new lazy weight, as a fold leaves it."""
    model = loaded.model.clone()
    value = model.graph.initializers["w"]
    old = value.const_value
    assert old is not None
    value.const_value = ir.LazyTensor(
        lambda: ir.tensor(old.numpy() * 2), old.dtype, ir.Shape(old.shape.numpy()), name="w"
    )
    return model


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def single(dense: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "single.onnx"
    path.write_bytes(dense.SerializeToString())
    return path


class TestStorage:
    def test_single_file_stays_single(self, single: Path, tmp_path: Path) -> None:
        loaded = load(single)
        saved = save(doubled(loaded), tmp_path / "out.onnx", like=loaded)
        assert saved.data == {}
        np.testing.assert_allclose(run(tmp_path / "out.onnx"), 2 * run(single), rtol=1e-6)

    def test_external_stays_external(self, external: Path, tmp_path: Path) -> None:
        loaded = load(external)
        saved = save(doubled(loaded), tmp_path / "out.onnx", like=loaded)
        (name,) = saved.data
        assert name == f"out.onnx.{saved.data[name][:8]}.data"
        assert (tmp_path / name).stat().st_size == 40_000
        assert load(tmp_path / "out.onnx").data_files == (tmp_path / name,)
        np.testing.assert_allclose(run(tmp_path / "out.onnx"), 2 * run(external), rtol=1e-6)

    def test_single_file_from_external(self, external: Path, tmp_path: Path) -> None:
        saved = save(load(external).model, tmp_path / "out.onnx", external=False)
        assert saved.data == {}
        np.testing.assert_array_equal(run(tmp_path / "out.onnx"), run(external))

    def test_external_above_the_threshold(
        self, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["normfold.loading.save"], "EXTERNAL_ABOVE_BYTES", 1000)
        loaded = load(single)
        assert save(loaded.model, tmp_path / "out.onnx", like=loaded).data

    def test_small_tensors_stay_inside(self, model: onnx.ModelProto, write: Write, tmp_path: Path) -> None:
        assert save(load(write(model)).model, tmp_path / "out.onnx", external=True).data == {}

    def test_shared_tensor_is_stored_once(self, dense: onnx.ModelProto, write: Write, tmp_path: Path) -> None:
        loaded = load(write(dense))
        first = loaded.model.graph.initializers["w"]
        second = ir.Value(name="v", shape=first.shape, type=first.type, const_value=first.const_value)
        loaded.model.graph.register_initializer(second)
        save(loaded.model, tmp_path / "out.onnx", external=True)
        again = load(tmp_path / "out.onnx")
        assert again.data_files[0].stat().st_size == 40_000
        assert set(again.model.graph.initializers) == {"w", "v"}

    def test_external_tensor_in_an_attribute(self, dense: onnx.ModelProto, tmp_path: Path) -> None:
        weight = dense.graph.initializer.pop()
        dense.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
        folder = tmp_path / "in"
        folder.mkdir()
        onnx.save(
            dense,
            folder / "in.onnx",
            save_as_external_data=True,
            location="w.bin",
            size_threshold=0,
            convert_attribute=True,
        )
        loaded = load(folder / "in.onnx")
        assert loaded.external
        save(loaded.model, tmp_path / "out.onnx", like=loaded)
        (folder / "w.bin").unlink()
        again = load(tmp_path / "out.onnx")
        assert again.model.graph.node(0).attributes["value"].as_tensor().numpy().shape == (100, 100)


class TestPhases:
    @pytest.mark.parametrize("kind", ["single", "external"])
    def test_staged_model_runs_and_the_old_one_stays(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        source: Path = request.getfixturevalue(kind)
        out = tmp_path / "out.onnx"
        out.write_bytes(b"old")
        before = listing(tmp_path)
        loaded = load(source)
        with stage(doubled(loaded), out, like=loaded) as staged:
            np.testing.assert_allclose(run(staged.path), 2 * run(source), rtol=1e-6)
            assert staged.path.name.startswith(".out.onnx.")
            assert out.read_bytes() == b"old"
        assert out.read_bytes() == b"old"
        assert listing(tmp_path) == before

    def test_published_equals_staged(self, single: Path, tmp_path: Path) -> None:
        loaded = load(single)
        with stage(doubled(loaded), tmp_path / "out.onnx", like=loaded) as staged:
            content = staged.path.read_bytes()
            saved = staged.publish()
        assert (tmp_path / "out.onnx").read_bytes() == content
        assert saved.sha256 == load(tmp_path / "out.onnx").sha256
        assert listing(tmp_path) == ["out.onnx", "single.onnx"]

    def test_discard_keeps_data_that_the_old_model_needs(self, external: Path, tmp_path: Path) -> None:
        loaded, out = load(external), tmp_path / "out.onnx"
        save(loaded.model, out, like=loaded)
        before = listing(tmp_path)
        stage(loaded.model, out, like=loaded).discard()
        assert listing(tmp_path) == before
        load(out)

    def test_mode_of_the_old_file_is_kept(self, single: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        out.touch(mode=0o640)
        save(load(single).model, out)
        assert stat.S_IMODE(out.stat().st_mode) == 0o640


class TestInPlace:
    def test_external_weights_that_are_mapped(self, external: Path) -> None:
        expected = 2 * run(external)
        loaded = load(external)
        save(doubled(loaded), external, like=loaded)
        np.testing.assert_allclose(run(external), expected, rtol=1e-6)
        # Not named by us, so not ours to remove.
        assert (external.parent / "weights.bin").exists()

    def test_own_data_file_is_replaced_while_mapped(self, external: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        first = load(external)
        save(first.model, out, like=first)
        second = load(out)
        assert second.model.graph.initializers["w"].const_value is not None
        expected = 2 * run(out)
        save(doubled(second), out, like=second)
        np.testing.assert_allclose(run(out), expected, rtol=1e-6)
        assert len([name for name in listing(tmp_path) if name.endswith(".data")]) == 1

    def test_single(self, single: Path) -> None:
        expected = 2 * run(single)
        loaded = load(single)
        save(doubled(loaded), single, like=loaded)
        np.testing.assert_allclose(run(single), expected, rtol=1e-6)


class TestCopy:
    def test_bytes(self, single: Path, tmp_path: Path) -> None:
        stage_copy(load(single), tmp_path / "out.onnx").publish()
        assert (tmp_path / "out.onnx").read_bytes() == single.read_bytes()

    def test_external_copy_stands_alone(self, external: Path, tmp_path: Path) -> None:
        expected = run(external)
        stage_copy(load(external), tmp_path / "out.onnx").publish()
        (external.parent / "weights.bin").unlink()
        np.testing.assert_array_equal(run(tmp_path / "out.onnx"), expected)

    def test_copy_of_a_copy_has_the_same_bytes(self, external: Path, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        stage_copy(load(external), tmp_path / "a" / "m.onnx").publish()
        stage_copy(load(tmp_path / "a" / "m.onnx"), tmp_path / "b" / "m.onnx").publish()
        assert (tmp_path / "a" / "m.onnx").read_bytes() == (tmp_path / "b" / "m.onnx").read_bytes()
        assert listing(tmp_path / "a") == listing(tmp_path / "b")


@pytest.mark.parametrize("kind", ["single", "external"])
def test_same_bytes_every_time(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(kind)
    contents = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        loaded = load(source)
        save(doubled(loaded), folder / "out.onnx", like=loaded)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]


class TestCannotWrite:
    def refused(self, source: Path, out: str | Path, *words: str, external: bool | None = None) -> None:
        before = listing(source.parent)
        with pytest.raises(OutputError) as caught:
            save(load(source).model, out, external=external)
        message = str(caught.value)
        assert caught.value.code in ("NF920", "NF921")
        assert message.startswith(f"{out}: ")
        assert "\n" not in message
        for word in words:
            assert word in message
        assert listing(source.parent) == before

    def test_missing_folder(self, single: Path) -> None:
        self.refused(single, single.parent / "none" / "out.onnx", "does not exist")

    def test_folder(self, single: Path) -> None:
        self.refused(single, single.parent, "folder")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_read_only_folder(self, single: Path, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        self.refused(single, closed / "out.onnx", "Permission denied")
        assert listing(closed) == []

    def test_full_device(self, single: Path) -> None:
        self.refused(single, "/dev/full", "No space left")

    @pytest.mark.parametrize("external", [False, True])
    def test_full_disk(self, single: Path, external: bool) -> None:
        with largest_file(20_000):
            self.refused(single, single.parent / "out.onnx", "too large", external=external)

    def test_foreign_file_under_the_name_of_the_data(self, external: Path, tmp_path: Path) -> None:
        loaded = load(external)
        (name,) = save(loaded.model, tmp_path / "out.onnx", like=loaded).data
        (tmp_path / "out.onnx").unlink()
        (tmp_path / name).write_bytes(b"not ours")
        self.refused(external, tmp_path / "out.onnx", name, external=True)
        assert (tmp_path / name).read_bytes() == b"not ours"


def test_device_is_written_to_not_replaced(single: Path) -> None:
    save(load(single).model, "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_standard_output(single: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    loaded = load(single)
    with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(1), "w") as stdout:
        patch.setattr(sys, "stdout", stdout)
        save(loaded.model, "-", like=loaded)
    save(loaded.model, single)
    assert capfdbinary.readouterr().out == single.read_bytes()


def test_invalid_result_is_an_internal_error(single: Path, tmp_path: Path) -> None:
    model = load(single).model
    model.graph.node(0).op_type = "Unheard"
    with pytest.raises(RuntimeError, match="Unheard"):
        save(model, tmp_path / "out.onnx")
    assert listing(tmp_path) == ["single.onnx"]
