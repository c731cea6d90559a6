"""onnxruntime without optimisations, in a process of its own: on some models it crashes."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Mapping
from types import TracebackType

import numpy as np
import onnx

from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused, Session
from normfold.runtime.execution_providers import CPU

__all__ = ["InRuntime", "RuntimeCrashed", "RuntimeRefused"]

_SECONDS = 60.0


class InRuntime:
    """A model in onnxruntime, loaded when it is first run and again after a crash; a context manager.

    Attributes:
        crashes: runs that the process died of, or that did not end.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._session: Session | None = None
        self.crashes = 0

    def __enter__(self) -> InRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            _runtime(os.getpid()).release(self._session)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Its outputs.

        Raises:
            RuntimeRefused: onnxruntime does not take the model or the inputs.
            RuntimeCrashed: the process died.
        """
        runtime = _runtime(os.getpid())
        try:
            if self._session is None:
                path = runtime.folder / "model.onnx"
                path.write_bytes(self._model.SerializeToString())
                self._session = runtime.open(path, CPU, optimize=False)
            return list(runtime.run(self._session, feeds).values())
        except RuntimeCrashed:
            self._session = None
            self.crashes += 1
            raise
        except RuntimeRefused:
            raise
        except BaseException:
            # Whatever it was that interrupted it, the answer may still be on its way.
            self._session = None
            runtime.close()
            _runtime.cache_clear()
            raise


@functools.cache
def _runtime(_process: int) -> Runtime:
    """One for each process: what is forked later shares no pipe with it."""
    runtime = Runtime(timeout_seconds=_SECONDS)
    atexit.register(runtime.close)
    return runtime
