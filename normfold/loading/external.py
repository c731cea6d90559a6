"""External data: where a tensor's bytes lie, and whether they may and can be read.

ONNX specification, "External Tensor Data": ``location`` is a POSIX path relative to the model's folder,
``offset`` and ``length`` count bytes.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from normfold.errors import InputError
from normfold.loading.messages import one_line

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


@dataclass(frozen=True)
class Extent:
    """The bytes of one external tensor.

    Attributes:
        location: path relative to the model's folder, as the model spells it.
        offset: first byte.
        length: number of bytes.
    """

    location: str
    offset: int
    length: int


def tensor_nbytes(tensor: onnx.TensorProto) -> int:
    """Returns the bytes that raw data of this type and shape takes; sub-byte types are packed, strings have
    none.

    Raises:
        ValueError: if the data type is unknown or a dimension is negative.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ValueError("negative dimension")
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    bits: int = ir.DataType(tensor.data_type).bitwidth
    return (math.prod(map(int, tensor.dims)) * bits + 7) // 8


def extent_of(tensor: onnx.TensorProto) -> Extent:
    """Reads a tensor's ``external_data`` entries.

    Raises:
        InputError: NF903 if they are incomplete, or contradict the tensor's shape.
    """
    name = tensor.name or "<unnamed>"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    for key in entries:
        if key not in _KEYS:
            # A damaged offset would otherwise mean the first bytes of the file.
            raise InputError(
                f"the external data of tensor {name!r} has an unknown entry {one_line(key)!r}", code="NF903"
            )
    location = entries.get("location", "")
    if not location:
        raise InputError(f"tensor {name!r} is stored externally but names no location", code="NF903")
    try:
        needed = tensor_nbytes(tensor)
        offset = int(entries.get("offset", "0") or "0")
        length = int(entries["length"]) if entries.get("length") else needed
    except ValueError as error:
        raise InputError(f"tensor {name!r} has malformed external data: {error}", code="NF903") from error
    if tensor.data_type == onnx.TensorProto.STRING:
        raise InputError(f"string tensor {name!r} is stored externally", code="NF903")
    if offset < 0:
        raise InputError(f"tensor {name!r} has a negative external data offset", code="NF903")
    if length != needed:
        raise InputError(
            f"tensor {name!r} of shape {list(tensor.dims)} needs {needed} bytes, "
            f"its external data says {length}",
            code="NF903",
        )
    return Extent(location, offset, length)


def refuse_location(location: str, tensor_name: str) -> None:
    """Refuses a path that is not below the model's folder, whatever lies there.

    Raises:
        InputError: NF910.
    """
    where = f"external data {location!r} of tensor {tensor_name!r}"
    relative = Path(location)
    if relative.is_absolute() or (len(location) > 1 and location[1] == ":"):
        raise InputError(f"{where} has an absolute path", code="NF910")
    if ".." in relative.parts or "\0" in location:
        raise InputError(f"{where} leaves the model's folder", code="NF910")


def resolve(location: str, folder: Path, tensor_name: str) -> Path:
    """Returns the data file's path after proving that it is a plain file inside ``folder``.

    Raises:
        InputError: NF910 if it lies elsewhere or is reached through a link, NF909 if it does not exist.
    """
    refuse_location(location, tensor_name)
    where = f"external data {location!r} of tensor {tensor_name!r}"
    path = folder
    try:
        for part in Path(location).parts:
            path = path / part
            if path.is_symlink():
                raise InputError(f"{where} is reached through a symbolic link", code="NF910")
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{where} does not exist", code="NF909") from None
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}", code="NF909") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where} is not a regular file", code="NF909")
    if status.st_nlink > 1:
        raise InputError(f"{where} has several hard links; copy the file", code="NF910")
    return path


def check_external(tensors: list[onnx.TensorProto], folder: Path | None) -> tuple[Path, ...]:
    """Proves that every external tensor can be read.

    Args:
        tensors: all tensors of the model that have ``data_location`` EXTERNAL.
        folder: the model's folder; ``None`` for a model that came through a stream.

    Returns:
        The data files in use, in order of first use.

    Raises:
        InputError: NF903, NF909 or NF910, naming the tensor.
    """
    files: dict[str, tuple[Path, int]] = {}
    for tensor in tensors:
        extent = extent_of(tensor)
        name = tensor.name or "<unnamed>"
        if folder is None:
            raise InputError(
                f"tensor {name!r} has external data, and a model that comes through a stream has no folder",
                code="NF909",
            )
        if extent.location not in files:
            path = resolve(extent.location, folder, name)
            _check_readable(path, name)
            files[extent.location] = (path, path.stat().st_size)
        path, size = files[extent.location]
        if extent.offset + extent.length > size:
            raise InputError(
                f"external data {extent.location!r} is too short: tensor {name!r} ends at byte "
                f"{extent.offset + extent.length}, the file has {size}",
                code="NF909",
            )
    return tuple(dict.fromkeys(path for path, _ in files.values()))


def _check_readable(path: Path, tensor_name: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(
            f"external data {path.name!r} of tensor {tensor_name!r} cannot be read: {error.strerror}",
            code="NF909",
        ) from error
