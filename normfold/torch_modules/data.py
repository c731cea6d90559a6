"""Data files as the arguments of a module's ``forward``."""

from __future__ import annotations

import inspect
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import nn

from normfold.errors import InputError
from normfold.inputs import ImageOptions
from normfold.inputs.drawing import InputSpec
from normfold.inputs.images import image_files, load_images

_ARRAYS = (".npz", ".npy")
_READ_AT_ONCE = 8


def forward_arrays(
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
        loaded = load_images(pictures, [spec], image or ImageOptions(), _READ_AT_ONCE)
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
