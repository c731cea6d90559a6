"""Bytes on their way into a file: tensors in pieces, and the digest of all that passes."""

from __future__ import annotations

import hashlib
from typing import Protocol

import onnx_ir as ir

_CHUNK = 1 << 20


class Sink(Protocol):
    """What a model can be written to."""

    def write(self, content: bytes | memoryview, /) -> object:
        """Takes the next bytes."""


class DigestingSink:
    """Takes the SHA-256 and the size of what is written through it, so that no file is read again for them.

    Args:
        file: where the bytes go; ``None`` to digest them only.
    """

    def __init__(self, file: Sink | None = None) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes | memoryview, /) -> None:
        self._sha256.update(content)
        self.size += memoryview(content).nbytes
        if self._file is not None:
            self._file.write(content)

    @property
    def sha256(self) -> str:
        """Of all so far, hexadecimal."""
        return self._sha256.hexdigest()


class _Piecewise:
    """Cuts what is written into chunks: a large one would be copied as a whole on its way."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = 0

    def write(self, content: bytes | memoryview, /) -> None:
        view = memoryview(content).cast("B")
        self.size += view.nbytes
        for start in range(0, view.nbytes, _CHUNK):
            self._sink.write(view[start : start + _CHUNK])


def write_tensor(tensor: ir.TensorProtocol, sink: Sink, name: str | None = None) -> None:
    """Writes the bytes of ``tensor``. One that lies in a file is read, and a recipe computed, in pieces.

    Args:
        tensor: what to write.
        sink: where to.
        name: how it is called, where that is not its own name.

    Raises:
        RuntimeError: if they are not as many as its shape says.
    """
    pieces = _Piecewise(sink)
    if isinstance(tensor, ir.ExternalTensor) and tensor.raw is not None:
        # Whoever has it mapped may have replaced the file since.
        start = tensor.offset or 0
        pieces.write(memoryview(tensor.raw)[start : start + tensor.nbytes])
    elif (to_file := getattr(tensor, "tofile", None)) is not None:
        to_file(pieces)
    else:
        pieces.write(tensor.tobytes())
    if pieces.size != tensor.nbytes:
        raise RuntimeError(
            f"tensor {(name or tensor.name)!r} has {pieces.size} bytes, its shape says {tensor.nbytes}"
        )
