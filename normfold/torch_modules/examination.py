"""A module made, exported in evaluation mode, and compared with its graph and with data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch

from normfold.consistency.drift import DataReport, data_findings
from normfold.inputs import ImageOptions
from normfold.torch_modules.comparison import ModuleReport, check
from normfold.torch_modules.data import forward_arrays
from normfold.torch_modules.exporter import to_onnx
from normfold.torch_modules.factory import load_module

_COMPARED = 64
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class ModuleExamined:
    """What was found on a module.

    Attributes:
        model: the exported graph, its normalisations kept.
        module: module and graph side by side.
        statistics: running statistics against the data.
    """

    model: ir.Model
    module: ModuleReport
    statistics: DataReport


def examine_module(
    factory: str,
    weights: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | Mapping[str, Any],
    image: ImageOptions | None = None,
) -> ModuleExamined:
    """Makes a module, exports it in evaluation mode, and compares both with each other and with data.

    Args:
        factory: ``package.module:factory``.
        weights: state dictionary for it.
        data: ``.npz`` keyed by the parameters of ``forward``, ``.npy``, a folder of either or of images, or
            arrays; axis 0 counts images.
        image: how images become inputs; their size has to be given.

    Raises:
        InputError: NF900, or the module cannot be made, exported or run on the data.
    """
    module = load_module(factory, weights).eval()
    arrays = forward_arrays(module, data, image)
    some = tuple(torch.from_numpy(array[:_COMPARED]) for array in arrays.values())
    batch = tuple({0: torch.export.Dim.AUTO} for _ in some)
    model = to_onnx(module, some, optimize=False, input_names=list(arrays), dynamic_shapes=batch)
    count = min(len(array) for array in arrays.values())
    names = [str(value.name) for value in model.graph.inputs]
    batches = [
        {name: array[i : i + _BATCH] for name, array in zip(names, arrays.values(), strict=True)}
        for i in range(0, count, _BATCH)
    ]
    return ModuleExamined(model, check(module, some, model), data_findings(model, batches))
