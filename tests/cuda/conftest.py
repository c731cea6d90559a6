"""Tests of this folder need a device; without one they are skipped, with the reason."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def on_a_device() -> None:
    pytest.importorskip("onnxruntime")
    from benchmarks.cuda import obstacle
    from normfold.runtime.execution_providers import CUDA

    missing = obstacle(CUDA)
    if missing is not None:
        pytest.skip(missing)
