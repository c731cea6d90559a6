"""PyTorch modules: is what is exported what was trained? Needs the extra ``torch``.

>>> import normfold.torch
>>> normfold.torch.check(module, images).agree
True
>>> normfold.torch.export(module, (images[:1],), "model.onnx").report.verification.verdict
'pass'
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from normfold.commands.fold import FoldResult, fold
from normfold.torch_modules.comparison import BufferComparison, ModuleReport, OutputComparison, check
from normfold.torch_modules.exporter import to_onnx
from normfold.torch_modules.factory import load_module
from normfold.torch_modules.running import untouched

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BufferComparison",
    "ModuleReport",
    "OutputComparison",
    "check",
    "export",
    "load_module",
    "to_onnx",
]


def export(
    module: nn.Module, args: tuple[Any, ...], path: str | os.PathLike[str], **options: Any
) -> FoldResult:
    """Exports, folds and verifies a module in evaluation mode, and writes the folded model.

    Args:
        module: the live module; its mode and buffers are as before afterwards.
        args: positional arguments of ``forward``.
        path: of the result; written atomically, and only after the proof.
        **options: further arguments of ``torch.onnx.export``, such as ``dynamic_shapes`` and ``input_names``.

    Raises:
        InputError: the module cannot be exported.
        VerificationFailed: the fold is wrong; nothing was written.
        Inconclusive: the fold could not be proven; nothing was written.
        OutputError: the result cannot be written.
    """
    with untouched(module):
        module.eval()
        model = to_onnx(module, args, **options)
    return fold(model, path)
