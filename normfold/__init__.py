"""Fold BatchNorm and affines out of trained ONNX models, and prove that nothing changed.

>>> import normfold
>>> result = normfold.fold("model.onnx", "folded.onnx")
>>> result.report.verification.verdict
'pass'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normfold.batch.many import fold_many
    from normfold.commands.calibrate import calibrate
    from normfold.commands.consistency import check_consistency
    from normfold.commands.fold import FoldResult, fold
    from normfold.commands.fold_pass import FoldPass
    from normfold.commands.inspect import inspect
    from normfold.commands.verify import verify
    from normfold.errors import (
        ConsistencyFailed,
        Inconclusive,
        InputError,
        MissingDependency,
        NormfoldError,
        OutputError,
        VerificationFailed,
    )
    from normfold.options import FoldOptions
    from normfold.reporting.report import Report, Site, Verification

__version__ = "0.1.0"

__all__ = [
    "ConsistencyFailed",
    "FoldOptions",
    "FoldPass",
    "FoldResult",
    "Inconclusive",
    "InputError",
    "MissingDependency",
    "NormfoldError",
    "OutputError",
    "Report",
    "Site",
    "Verification",
    "VerificationFailed",
    "__version__",
    "calibrate",
    "check_consistency",
    "fold",
    "fold_many",
    "inspect",
    "verify",
]

_HOMES = {
    "normfold.batch.many": ("fold_many",),
    "normfold.commands.calibrate": ("calibrate",),
    "normfold.commands.consistency": ("check_consistency",),
    "normfold.commands.fold": ("FoldResult", "fold"),
    "normfold.commands.fold_pass": ("FoldPass",),
    "normfold.commands.inspect": ("inspect",),
    "normfold.commands.verify": ("verify",),
    "normfold.errors": (
        "ConsistencyFailed",
        "Inconclusive",
        "InputError",
        "MissingDependency",
        "NormfoldError",
        "OutputError",
        "VerificationFailed",
    ),
    "normfold.options": ("FoldOptions",),
    "normfold.reporting.report": ("Report", "Site", "Verification"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
