"""Opens sessions of onnxruntime, with the libraries that a provider needs."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normfold.runtime.execution_providers import CPU, CUDA, TENSORRT

_ON_CUDA = frozenset({CUDA, TENSORRT})


def open_session(model: str | Path, settings: Any, provider: str, options: Mapping[str, str]) -> Any:
    """A session on a provider, with the CPU provider behind it for what the provider does not take.

    The libraries of CUDA that Python packages bring are found only by a process that has loaded them:
    onnxruntime can load those of the packages beside itself, and torch loads its own.

    Args:
        model: the model file.
        settings: an ``onnxruntime.SessionOptions``.
        provider: full name of the provider.
        options: of the provider.

    Returns:
        An ``onnxruntime.InferenceSession``. ``get_providers`` says whether the provider is there.
    """
    import onnxruntime as ort

    wanted: list[Any] = [(provider, dict(options))]
    if provider != CPU:
        wanted.append(CPU)
    preload = getattr(ort, "preload_dlls", None)
    if provider in _ON_CUDA and preload is not None:
        preload()
    session = ort.InferenceSession(str(model), settings, providers=wanted)
    if provider in _ON_CUDA and provider not in session.get_providers() and _loaded_by_torch():
        session = ort.InferenceSession(str(model), settings, providers=wanted)
    return session


def _loaded_by_torch() -> bool:
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("torch")
        return True
    return False
