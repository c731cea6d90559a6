"""A live torch module beside the graph that is exported from it. The only module here that imports torch."""

from __future__ import annotations

import dataclasses
import inspect
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from normfold.consistency.drift import DataReport, data_findings
from normfold.errors import InputError
from normfold.torch import ModuleReport, check, load_module, to_onnx
from normfold.verification.image_options import ImageOptions
from normfold.verification.images import image_files, load_images
from normfold.verification.inputs import InputSpec

_ARRAYS = (".npz", ".npy")
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
    arrays = _arrays(module, data, image)
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


def _arrays(
    module: nn.Module, data: str | os.PathLike[str] | Mapping[str, Any], image: ImageOptions | None
) -> dict[str, Any]:
    """The inputs of ``forward``, in its order."""
    given = dict(data) if isinstance(data, Mapping) else _read(Path(data), module, image)
    parameters = inspect.signature(module.forward).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(wanted) == 1 and len(given) == 1:
        given = {wanted[0]: next(iter(given.values()))}
    missing = [name for name in wanted if name not in given]
    if missing or not wanted:
        lacking = missing[0] if missing else "?"
        there = ", ".join(repr(name) for name in sorted(given)) or "none"
        raise InputError(
            f"the data hold no array named {lacking!r}, which forward takes; there is {there}",
            code="NF900",
        )
    arrays = {name: np.ascontiguousarray(given[name]) for name in wanted}
    if any(array.ndim == 0 or not len(array) for array in arrays.values()):
        raise InputError("the data hold no image", code="NF900")
    return {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in arrays.items()}


def _read(path: Path, module: nn.Module, image: ImageOptions | None) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays by name, under no name where there is one alone."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", code="NF900")
    files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.suffix in _ARRAYS)
    if pictures := [] if files and files != [path] else image_files(path):
        spec = InputSpec("image", np.dtype(np.float32), ("N", _channels(module), "H", "W"))
        loaded = load_images(pictures, [spec], image or ImageOptions(), _BATCH)
        return {"": np.concatenate([batch["image"] for batch in loaded])}
    if not files or any(file.suffix not in _ARRAYS for file in files):
        raise InputError(f"{path}: --torch takes .npz, .npy, images, or a folder of them", code="NF900")
    parts = [_read_arrays(file) for file in files]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise InputError(f"{path}: its files hold arrays of different names", code="NF900")
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise InputError(f"{path}: its files do not fit together: {error}", code="NF900") from error


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        stored = np.load(path, allow_pickle=False)
        return {name: stored[name] for name in stored.files} if path.suffix == ".npz" else {"": stored}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}", code="NF900") from error


def _channels(module: nn.Module) -> int:
    """Channels of the images that the first convolution takes; colour where there is none."""
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    return next((part.in_channels for part in convolutions), 3)
