"""How a process that holds onnxruntime is started."""

from __future__ import annotations

import sys
from pathlib import Path

_START = "import sys; sys.path.append(sys.argv[1]); from normfold.runtime.{module} import main; main()"


def command(module: str) -> list[str]:
    """The command line that runs ``main`` of a module of this package with this interpreter.

    The new process finds this very normfold, installed or not, after all else that it can import.
    """
    return [sys.executable, "-P", "-c", _START.format(module=module), str(Path(__file__).parents[2])]
