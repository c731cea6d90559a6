"""Writes a model in two phases: staged beside its destination, then published by one atomic rename.

Verification runs between the phases, on the very bytes that will be published. A kill at any moment leaves
the old model or the new one, and at most hidden temporaries and an unreferenced data file, which the next run
removes.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import onnx
import onnx_ir as ir

from normfold.errors import InputError, OutputError
from normfold.loading import walk
from normfold.loading.destination import (
    Destination,
    RemoteDestination,
    StreamDestination,
    as_output_error,
)
from normfold.loading.layout import EXTERNAL_ABOVE_BYTES, PROTOBUF_LIMIT, DataLayout, inline, weights_nbytes
from normfold.loading.leftovers import remove_leftovers
from normfold.loading.load import STREAM, Loaded, parse
from normfold.loading.messages import one_line, root_cause
from normfold.loading.places import message_at
from normfold.loading.refusals import refuse
from normfold.loading.stream import outline, write_model
from normfold.loading.transfer import Sink
from normfold.progress import meter
from normfold.urls import is_url, plain_path

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SavedFiles:
    """What was published.

    Attributes:
        path: the model file, as the user named it (``-`` for standard output).
        sha256: of the model file.
        data: name and SHA-256 of each external data file, which lie beside the model.
        size: bytes of all of them.
    """

    path: str
    sha256: str
    data: dict[str, str]
    size: int

    def describe(self) -> dict[str, Any]:
        """Returns the entry of the report's ``outputs``."""
        entry: dict[str, Any] = {"path": self.path, "bytes": self.size, "sha256": self.sha256}
        if self.data:
            entry["data"] = [{"path": name, "sha256": digest} for name, digest in self.data.items()]
        return entry


class Staged:
    """A complete, valid model under a temporary name. As a context manager it discards what was not
    published.

    Attributes:
        path: the temporary model file; onnxruntime can open it, its external data is in place.
    """

    def __init__(self, out: str, destination: Destination) -> None:
        self._out = out
        self._destination = destination
        self.path = destination.model
        self._files = SavedFiles(
            out,
            destination.model_sha256,
            destination.data,
            destination.model.stat().st_size
            + sum((destination.model.parent / name).stat().st_size for name in destination.data),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def publish(self) -> SavedFiles:
        """Replaces the destination by the staged model, atomically where it is a file.

        Raises:
            OutputError: NF920, with the old file untouched.
        """
        with as_output_error(self._out):
            self._destination.publish()
        return self._files

    def discard(self) -> None:
        """Removes everything that was staged and not published. May be called more than once."""
        self._destination.discard()


def stage(
    model: ir.Model,
    out: str | os.PathLike[str],
    *,
    like: Loaded | None = None,
    external: bool | None = None,
) -> Staged:
    """Writes ``model`` beside ``out`` under temporary names.

    Args:
        model: not changed; weights are evaluated one at a time.
        out: path of the result, or ``-`` for standard output.
        like: the input; the result's storage (one file or external data) follows it.
        external: overrides ``like``. Above 1.5 GB of weights data is external in any case.

    Returns:
        The staged model, to be published or discarded.

    Raises:
        OutputError: NF920 or NF921, in one line; nothing is left behind.
    """
    name, destination = _destination(out)
    streamed = isinstance(destination, StreamDestination)
    if external is None:
        external = like is not None and like.external
    external = not streamed and (external or weights_nbytes(model) > EXTERNAL_ABOVE_BYTES)

    def write() -> None:
        layout = DataLayout(model) if external else None
        if layout is None or not layout.tensors:
            destination.write_model(lambda file: write_model(model, file, inline, _check_own))
            return
        data, temporary = destination.write_data(layout.write)
        references = layout.references(data)

        def replace(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
            return references.get(id(tensor)) or inline(tensor)

        destination.write_model(lambda file: write_model(model, file, replace, _check_own))
        destination.settle_data(data, temporary)

    return _stage(name, destination, write)


def stage_copy(source: Loaded, out: str | os.PathLike[str]) -> Staged:
    """Stages the unchanged model file of ``source``.

    The model file is copied byte for byte. External data is copied too, under names of its own, so that the
    copy stands alone; then the model differs from its source in those names only.

    Raises:
        OutputError: NF920 or NF921.
    """
    name, destination = _destination(out)
    if isinstance(destination, StreamDestination) and source.external:
        destination.discard()
        raise OutputError(f"{name}: a stream cannot have external data beside it", code="NF921")

    def write() -> None:
        if not source.external:
            destination.write_model(lambda file: _copy(source.path, file))
            return
        folder = source.path.parent.absolute()
        names: dict[Path, str] = {}
        pending: list[tuple[str, Path]] = []
        for path in source.data_files:
            data, temporary = destination.write_data(functools.partial(_copy, path))
            names[path] = data
            pending.append((data, temporary))
        proto = parse(source.path)
        for tensor in walk.tensors(proto):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = names[folder / entry.value]
        destination.write_model(lambda file: file.write(proto.SerializeToString(deterministic=True)))
        for data, temporary in pending:
            destination.settle_data(data, temporary)

    return _stage(name, destination, write)


def save(
    model: ir.Model,
    out: str | os.PathLike[str],
    *,
    like: Loaded | None = None,
    external: bool | None = None,
) -> SavedFiles:
    """Stages and publishes in one step; arguments and errors are those of ``stage``."""
    with stage(model, out, like=like, external=external) as staged:
        return staged.publish()


def _stage(name: str, destination: Destination, write: Callable[[], None]) -> Staged:
    try:
        with as_output_error(name):
            write()
            return Staged(name, destination)
    except BaseException:
        destination.discard()
        raise


def _destination(out: str | os.PathLike[str]) -> tuple[str, Destination]:
    name = os.fspath(out)
    if name == STREAM:
        return name, StreamDestination(name)
    if is_url(name):
        return name, RemoteDestination(name)
    path = Path(plain_path(name)).absolute()
    with as_output_error(name):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise OutputError(f"{name}: is a folder", code="NF920")
        if not stat.S_ISREG(mode):
            return name, StreamDestination(name)
        if not path.parent.is_dir():
            raise OutputError(f"{name}: the folder {path.parent} does not exist", code="NF920")
    remove_leftovers(path)
    return name, Destination(path)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Returns a protobuf of its own, with all weights inside.

    Raises:
        OutputError: NF921 if it would be above the 2 GB limit of protobuf.
    """
    if weights_nbytes(model) > PROTOBUF_LIMIT:
        raise OutputError("the model is above the 2 GB limit of protobuf; save it to a file", code="NF921")
    proto, tensors = outline(model, inline)
    for place, apart in tensors.items():
        stub = message_at(proto, place)
        stub.CopyFrom(ir.to_proto(apart.tensor))
        if apart.name is not None:
            stub.name = apart.name
    return proto


def check(model: ir.Model) -> None:
    """Proves that a model in memory is a valid ONNX model; its weights are not read.

    Raises:
        InputError: NF903, NF906, NF907, NF908, NF911 or NF912, in one line.
    """
    try:
        proto, _ = outline(model, inline)
    except Exception as error:
        raise InputError(f"not a valid ONNX model: {one_line(root_cause(error))}", code="NF903") from error
    refuse(proto, with_data=False)


def _check_own(proto: onnx.ModelProto) -> None:
    try:
        refuse(proto, with_data=False)
    except InputError as error:
        raise RuntimeError(f"the result would not be a valid model: {error}") from error


def _copy(source: Path, file: Sink) -> None:
    advance = meter(source.stat().st_size)
    with source.open("rb") as content:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
            advance(len(chunk))
