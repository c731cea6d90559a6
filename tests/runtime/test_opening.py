"""Sessions on providers whose libraries have to be loaded first, on a stand-in for onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from normfold.runtime.execution_providers import CPU, CUDA
from normfold.runtime.opening import open_session


class StandIn(ModuleType):
    """Takes CUDA once ``loaded`` says so; ``done`` holds what was asked of it."""

    def __init__(self, *, loaded: bool, preloads: bool = True) -> None:
        super().__init__("onnxruntime")
        self.loaded, self.done = loaded, list[Any]()
        self.InferenceSession = self._session
        if preloads:
            self.preload_dlls = lambda: self.done.append("preload")

    def _session(self, model: str, settings: Any, providers: list[Any]) -> Any:
        self.done.append((model, providers))
        taken = [CUDA, CPU] if self.loaded and providers[0][0] == CUDA else [CPU]
        session = ModuleType("session")
        session.get_providers = lambda: taken  # type: ignore[attr-defined]
        return session


def opened(monkeypatch: pytest.MonkeyPatch, runtime: StandIn, provider: str) -> list[str]:
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return list(open_session("m.onnx", None, provider, {"a": "1"}).get_providers())


def test_libraries_are_loaded_before_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = StandIn(loaded=True)
    assert opened(monkeypatch, runtime, CUDA) == [CUDA, CPU]
    assert runtime.done == ["preload", ("m.onnx", [(CUDA, {"a": "1"}), CPU])]


def test_old_onnxruntime_cannot_load_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, StandIn(loaded=True, preloads=False), CUDA) == [CUDA, CPU]


def test_the_cpu_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = StandIn(loaded=False)
    assert opened(monkeypatch, runtime, CPU) == [CPU]
    assert runtime.done == [("m.onnx", [(CPU, {"a": "1"})])]


def test_torch_brings_them_where_the_packages_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import onnxruntime\nonnxruntime.loaded = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    # What is set first is put back in the end.
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    runtime = StandIn(loaded=False)
    assert opened(monkeypatch, runtime, CUDA) == [CUDA, CPU]
    assert len(runtime.done) == 3


def test_without_torch_it_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    runtime = StandIn(loaded=False)
    assert opened(monkeypatch, runtime, CUDA) == [CPU]
    assert len(runtime.done) == 2
