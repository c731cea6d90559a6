"""Reads a model file, refuses what cannot be carried through, and maps its weights into memory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from normfold.errors import InputError
from normfold.loading import walk
from normfold.loading.external import check_external, extent_of, refuse_location
from normfold.loading.layout import PROTOBUF_LIMIT
from normfold.loading.mapped import Outline, decode
from normfold.loading.messages import one_line, root_cause
from normfold.loading.refusals import refuse
from normfold.loading.remote import remote_file
from normfold.progress import meter
from normfold.scratch import ScratchFolder
from normfold.urls import is_url, plain_path

STREAM = "-"
_TOO_LARGE = "the file is above the 2 GB limit of protobuf; such a model needs external data"
_CHUNK = 1 << 20


@dataclass
class Loaded:
    """A model and where it came from.

    Attributes:
        model: the model; external tensors are memory-mapped on first use.
        path: the model file; for streams and URLs a temporary copy that lives as long as this object.
        name: how the user named it (``-`` for standard input).
        data_files: external data files in use, in order of first use.
        size: bytes of the model file and its data files together.
    """

    model: ir.Model
    path: Path
    name: str
    data_files: tuple[Path, ...]
    size: int
    _spool: ScratchFolder | None = field(default=None, repr=False)

    @property
    def external(self) -> bool:
        """Whether weights lie outside the model file."""
        return bool(self.data_files)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the model file, hexadecimal; read in chunks on first use."""
        return file_sha256(self.path)

    @functools.cached_property
    def data_sha256(self) -> dict[str, str]:
        """SHA-256 of each data file by its path relative to the model's folder."""
        return {
            str(path.relative_to(self.path.parent.absolute())): file_sha256(path) for path in self.data_files
        }

    def describe(self) -> dict[str, Any]:
        """Returns the entry of the report's ``inputs``: name, size in bytes, checksums."""
        entry: dict[str, Any] = {"path": self.name, "bytes": self.size, "sha256": self.sha256}
        if self.data_files:
            entry["data"] = [{"path": name, "sha256": digest} for name, digest in self.data_sha256.items()]
        return entry


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    advance = meter(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
    return digest.hexdigest()


def load(source: str | os.PathLike[str]) -> Loaded:
    """Loads a binary ONNX model.

    Args:
        source: path or URL of the model, or ``-`` for standard input.

    Returns:
        The model with its external data mapped, not read.

    Raises:
        InputError: NF901 to NF913, in one line that names the file.
        MissingDependency: a URL needs a package.
    """
    name = os.fspath(source)
    try:
        if name == STREAM:
            return _load_stream(sys.stdin.buffer, name)
        if is_url(name):
            return _load_url(name)
        path = Path(plain_path(name))
        if _is_stream(path):
            with _as_input_error(), path.open("rb") as stream:
                return _load_stream(stream, name)
        return _from_file(path, name, _outline(path), path.parent.absolute(), None)
    except InputError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise InputError(f"{name}: {error}", code=error.code) from error


def _is_stream(path: Path) -> bool:
    """Whether what lies there can be read once only, such as a pipe."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _load_stream(stream: BinaryIO, name: str) -> Loaded:
    spool = ScratchFolder()
    path = spool.path / "stream.onnx"
    with path.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
            if file.tell() > PROTOBUF_LIMIT:
                raise InputError(_TOO_LARGE, code="NF902")
    return _from_file(path, name, _outline(path), None, spool)


def _load_url(url: str) -> Loaded:
    """Copies a model and its external data to this machine."""
    spool = ScratchFolder()
    model = remote_file(url)
    path = spool.path / model.name
    model.fetch(path)
    outline = _outline(path)
    locations = {
        extent_of(tensor).location: tensor.name
        for tensor in walk.tensors(outline.proto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    for location, tensor in locations.items():
        refuse_location(location, tensor)
        try:
            model.beside(location).fetch(spool.path / location)
        except InputError as error:
            raise InputError(
                f"external data {location!r} of tensor {tensor!r} cannot be fetched: {error}", code="NF909"
            ) from error
    return _from_file(path, url, outline, spool.path, spool)


def _from_file(
    path: Path, name: str, outline: Outline, folder: Path | None, spool: ScratchFolder | None
) -> Loaded:
    model, data_files = from_proto(outline.proto, folder)
    outline.put_back(model)
    size = path.stat().st_size + sum(file.stat().st_size for file in data_files)
    return Loaded(model, path, name, data_files, size, spool)


def parse(path: Path) -> onnx.ModelProto:
    """Decodes a model file without its external data.

    Raises:
        InputError: NF901 if it cannot be read, NF902 if it is not a binary ONNX protobuf.
    """
    with (
        _opened(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        model = onnx.ModelProto()
        model.ParseFromString(content)
        return model


def _outline(path: Path) -> Outline:
    """As ``parse``; large weights stay in the file."""
    with _opened(path) as file:
        return decode(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to be decoded in the block, which says in one line why it cannot be."""
    with _as_input_error(), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        if status.st_size == 0:
            raise InputError("the file is empty", code="NF901")
        if status.st_size > PROTOBUF_LIMIT:
            raise InputError(_TOO_LARGE, code="NF902")
        try:
            yield file
        except DecodeError as error:
            raise InputError(
                "not an ONNX model, or truncated: the protobuf does not decode", code="NF902"
            ) from error


@contextlib.contextmanager
def _as_input_error() -> Iterator[None]:
    """Turns what the operating system says into one line."""
    try:
        yield
    except FileNotFoundError:
        raise InputError("no such file", code="NF901") from None
    except IsADirectoryError:
        raise InputError("is a folder, not a model file", code="NF901") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise InputError(f"cannot be read: {reason}", code="NF901") from error


def from_proto(proto: onnx.ModelProto, folder: Path | None) -> tuple[ir.Model, tuple[Path, ...]]:
    """Refuses or converts a decoded model. The result shares the memory of ``proto``'s tensors.

    Args:
        proto: the model.
        folder: where its external data lies; ``None`` if it cannot have any.

    Returns:
        The in-memory model and its data files.

    Raises:
        InputError: NF902 to NF913.
    """
    try:
        refuse(proto)
        external = [
            tensor for tensor in walk.tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
        data_files = check_external(external, folder)
    except InputError:
        raise
    except Exception as error:
        # Hostile files make onnx raise almost anything; all of it means that the model is not valid.
        raise InputError(f"not a valid ONNX model: {one_line(error)}", code="NF903") from error
    try:
        model = ir.from_proto(proto)
        _restore_inputs(proto, model)
        ir.external_data.set_base_dir(model.graph, folder or "")
        for function in model.functions.values():
            ir.external_data.set_base_dir(function.graph, folder or "")
    except Exception as error:
        raise InputError(
            f"uses a part of ONNX that cannot be carried through: {one_line(root_cause(error))}",
            code="NF913",
        ) from error
    return model, data_files


def _restore_inputs(proto: onnx.ModelProto, model: ir.Model) -> None:
    """An input that is an output too is one value, with one shape: what either declaration says of it."""
    declared = {info.name: info.type.tensor_type.shape.dim for info in proto.graph.input}
    for value in model.graph.outputs:
        dims = declared.get(value.name or "")
        if not dims or value.shape is None or len(dims) != len(value.shape):
            continue
        told = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
        value.shape = ir.Shape(
            [a if b is None or isinstance(a, int) else b for a, b in zip(value.shape, told, strict=True)]
        )
