"""What a process of the command line does before it imports anything heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

_DEFERRED = "sympy"


class _Deferred(ModuleType):
    """Stands in for a module until an attribute is really used.

    While ``importing``, an attribute is a function that calls the real one: ``onnx_ir`` keeps a table of
    them.
    """

    importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.importing:
            return _later(name)
        found = getattr(import_module(_DEFERRED), name)
        setattr(self, name, found)
        return found


def _later(name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return getattr(import_module(_DEFERRED), name)(*arguments)

    return call


def import_onnx_ir() -> None:
    """Imports ``onnx_ir`` without sympy, which it needs for arithmetic on symbolic dimensions only.

    Sympy takes as long to import as everything else together (docs/benchmarks.md), and folding does no such
    arithmetic; if something does, sympy is imported then. Where the stand-in does not do, and where sympy or
    ``onnx_ir`` is there already, the import is the usual one.
    """
    if _DEFERRED in sys.modules or "onnx_ir" in sys.modules:
        return
    before = set(sys.modules)
    stand_in = sys.modules[_DEFERRED] = _Deferred(_DEFERRED)
    try:
        import_module("onnx_ir")
    except Exception:
        for name in [name for name in sys.modules if name.startswith("onnx_ir") and name not in before]:
            del sys.modules[name]
    finally:
        stand_in.importing = False
        del sys.modules[_DEFERRED]
