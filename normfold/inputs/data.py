"""Real inputs from files: ``.npz``, ``.npy``, folders of them, ONNX test data sets, images, or arrays in
memory."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import onnx

from normfold.errors import InputError
from normfold.inputs.drawing import Arrays, InputSpec
from normfold.inputs.image_options import ImageOptions
from normfold.inputs.images import image_files, load_images
from normfold.inputs.options import DataSource

MAX_BATCH = 8
"""Samples per run where the model leaves the batch open."""


def load_data(
    source: DataSource, specs: Sequence[InputSpec], images: ImageOptions | None = None
) -> Iterator[Arrays]:
    """Yields one set of inputs per run of the model.

    Samples along axis 0 are cut into the model's batch; samples that do not fill a fixed batch are left out.

    Args:
        source: file, folder or arrays by input name.
        specs: the model's inputs.
        images: how images become inputs.

    Raises:
        InputError: the data cannot be read or does not fit the inputs.
        MissingDependency: images need Pillow.
    """
    if isinstance(source, Mapping):
        yield from _cut(dict(source), specs, "data")
        return
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = False
    for arrays, label, whole in _read(path, specs):
        found = True
        yield from [_fitted(arrays, specs, label)] if whole else _cut(arrays, specs, label)
    if found:
        return
    files = image_files(path)
    if not files:
        raise InputError(f"{path}: holds no .npz, .npy, image or test_data_set_* with input_*.pb")
    yield from load_images(files, specs, images or ImageOptions(), MAX_BATCH)


def _read(path: Path, specs: Sequence[InputSpec]) -> Iterator[tuple[Arrays, str, bool]]:
    if path.is_file():
        if not image_files(path):
            yield _read_file(path, specs), path.name, False
        return
    sets = sorted(path.glob("test_data_set_*")) or ([path] if (path / "input_0.pb").exists() else [])
    if sets:
        for folder in sets:
            yield _read_test_set(folder, specs), folder.name, True
        return
    files = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy"))
    if files and len(specs) > 1 and {p.stem for p in files} >= {spec.name for spec in specs}:
        yield {spec.name: _load(path / f"{spec.name}.npy") for spec in specs}, path.name, False
        return
    for file in files:
        yield _read_file(file, specs), file.name, False


def _read_file(path: Path, specs: Sequence[InputSpec]) -> Arrays:
    if path.suffix == ".npy":
        if len(specs) != 1:
            raise InputError(f"{path.name}: one array, but the model has {len(specs)} inputs; use .npz")
        return {specs[0].name: _load(path)}
    if path.suffix != ".npz":
        raise InputError(f"{path.name}: neither .npz nor .npy nor an image")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path.name}: cannot be read: {error}") from error


def _load(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path.name}: cannot be read: {error}") from error


def _read_test_set(folder: Path, specs: Sequence[InputSpec]) -> Arrays:
    arrays: Arrays = {}
    for file in folder.glob("input_*.pb"):
        number = re.fullmatch(r"input_(\d+)", file.stem)
        if number is None or int(number[1]) >= len(specs):
            raise InputError(f"{folder.name}/{file.name}: the model has {len(specs)} inputs")
        try:
            tensor = onnx.load_tensor(str(file))
            arrays[specs[int(number[1])].name] = onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # protobuf's DecodeError is no common base's subclass
            raise InputError(f"{folder.name}/{file.name}: not a tensor") from error
    return arrays


def _cut(arrays: Mapping[str, np.ndarray], specs: Sequence[InputSpec], label: str) -> list[Arrays]:
    """Cuts samples into batches of the size that the model wants."""
    known = {spec.name: spec for spec in specs}
    given = {name: np.asarray(array) for name, array in arrays.items()}
    batched = {
        name: known[name].shape[0]
        for name, array in given.items()
        if name in known and known[name].shape and array.ndim
    }
    fixed = {size for size in batched.values() if isinstance(size, int)}
    counts = {given[name].shape[0] for name in batched}
    if not batched or len(fixed) > 1 or len(counts) > 1:
        return [_fitted(given, specs, label)]
    count, step = counts.pop(), fixed.pop() if fixed else MAX_BATCH
    if fixed and count < step:
        raise InputError(f"{label}: {count} samples do not fill the model's batch of {step}")
    last = count - count % step if isinstance(known[next(iter(batched))].shape[0], int) else count
    return [
        _fitted(
            {
                name: array[start : start + step] if name in batched else array
                for name, array in given.items()
            },
            specs,
            label,
        )
        for start in range(0, last, step)
    ]


def _fitted(arrays: Mapping[str, np.ndarray], specs: Sequence[InputSpec], label: str) -> Arrays:
    result: Arrays = {}
    for spec in specs:
        if spec.name not in arrays:
            there = ", ".join(f"'{name}'" for name in sorted(arrays)[:8])
            raise InputError(f"{label}: no array named '{spec.name}'; there is {there or 'none'}")
        array = np.asarray(arrays[spec.name])
        shape = list(array.shape)
        if len(shape) != len(spec.shape) or any(
            isinstance(want, int) and want != size for want, size in zip(spec.shape, shape, strict=True)
        ):
            raise InputError(f"{label}: '{spec.name}' has shape {shape}, the model wants {list(spec.shape)}")
        result[spec.name] = _converted(array, spec, label)
    return result


def _converted(array: np.ndarray, spec: InputSpec, label: str) -> np.ndarray:
    if array.dtype == spec.dtype:
        return array
    text = array.dtype.kind in "UST"
    if text != (spec.dtype.kind in "OUST") or (array.dtype.kind == "f" and not spec.floating):
        raise InputError(f"{label}: '{spec.name}' has type {array.dtype}, the model wants {spec.dtype}")
    if text:
        return array.astype(object)
    with np.errstate(over="ignore"):
        converted = array.astype(spec.dtype)
    if not spec.floating and not np.array_equal(converted, array):
        raise InputError(f"{label}: '{spec.name}' holds numbers that do not fit {spec.dtype}")
    return converted
