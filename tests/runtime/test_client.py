"""onnxruntime in its child process: results, refusals, crashes and time limits."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused
from normfold.runtime.execution_providers import CPU

pytest.importorskip("onnxruntime")


def saved(path: Path, body: str, inputs: str = "float[2, 3] x", output: str = "float[2, 3] y") -> Path:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({output}) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def runtime():  # type: ignore[no-untyped-def]
    with Runtime(timeout_seconds=60) as found:
        yield found


def test_runs_a_model(runtime: Runtime, tmp_path: Path) -> None:
    session = runtime.open(saved(tmp_path / "m.onnx", "y = Neg(x)"), CPU, optimize=False)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(runtime.run(session, {"x": x})["y"], -x)
    assert sum(map(len, session.assigned.values())) == 1


def test_strings_travel(runtime: Runtime, tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", "y = Identity(x)", "string[2] x", "string[2] y")
    session = runtime.open(model, CPU, optimize=False)
    result = runtime.run(session, {"x": np.array(["a", "ßπ"], dtype=object)})["y"]
    assert result.tolist() == ["a", "ßπ"]


def test_refusal_carries_the_reason_and_leaves_the_process_alive(runtime: Runtime, tmp_path: Path) -> None:
    session = runtime.open(saved(tmp_path / "m.onnx", "y = Neg(x)"), CPU, optimize=True)
    with pytest.raises(RuntimeRefused, match="x"):
        runtime.run(session, {"x": np.zeros((5, 5), np.float32)})
    with pytest.raises(RuntimeRefused):
        runtime.open(tmp_path / "missing.onnx", CPU, optimize=False)
    assert runtime.run(session, {"x": np.zeros((2, 3), np.float32)})["y"].shape == (2, 3)


def test_unregistered_provider_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(RuntimeRefused, match="not registered"):
        runtime.open(saved(tmp_path / "m.onnx", "y = Neg(x)"), "NoSuchExecutionProvider", optimize=False)


def test_crash_is_an_error_and_the_next_session_lives(runtime: Runtime, tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", "y = Neg(x)")
    session = runtime.open(model, CPU, optimize=False)
    assert runtime._process is not None
    runtime._process.kill()
    with pytest.raises(RuntimeCrashed, match="signal 9"):
        runtime.run(session, {"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(RuntimeCrashed, match="gone"):
        runtime.run(session, {"x": np.zeros((2, 3), np.float32)})
    again = runtime.open(model, CPU, optimize=False)
    assert runtime.run(again, {"x": np.zeros((2, 3), np.float32)})["y"].shape == (2, 3)


ENDLESS = (
    "l = Constant<value_int = 1000000000>() "
    "y = Loop(l, , x) <body = b (int64 i, bool k, float[2, 3] v) => (bool o, float[2, 3] w)"
    " { o = Identity(k) w = Cos(v) }>"
)


def test_work_of_another_thread_is_done_in_its_order(runtime: Runtime, tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", "y = Neg(x)")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    opened = runtime.submit(lambda: runtime.open(model, CPU, optimize=False))
    result = runtime.submit(lambda: runtime.run(opened.result(), {"x": x}))
    np.testing.assert_array_equal(result.result()["y"], -x)


def test_closing_ends_the_work_of_another_thread(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", ENDLESS)
    started = threading.Event()
    with Runtime(timeout_seconds=600) as runtime:
        session = runtime.open(model, CPU, optimize=False)

        def work() -> None:
            started.set()
            runtime.run(session, {"x": np.zeros((2, 3), np.float32)})

        endless = runtime.submit(work)
        behind = runtime.submit(lambda: runtime.open(model, CPU, optimize=False))
        started.wait()
        time.sleep(0.2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert isinstance(endless.exception(), RuntimeCrashed)
    assert behind.cancelled() or isinstance(behind.exception(), RuntimeCrashed)


def test_time_limit(tmp_path: Path) -> None:
    with Runtime(timeout_seconds=2) as runtime:
        session = runtime.open(saved(tmp_path / "m.onnx", ENDLESS), CPU, optimize=False)
        with pytest.raises(RuntimeCrashed, match="no answer within 2 s"):
            runtime.run(session, {"x": np.zeros((2, 3), np.float32)})


def test_files_vanish_with_the_runtime(tmp_path: Path) -> None:
    with Runtime() as runtime:
        folder = runtime.folder
        runtime.open(saved(tmp_path / "m.onnx", "y = Neg(x)"), CPU, optimize=False)
        assert folder.is_dir()
    assert not folder.exists()
