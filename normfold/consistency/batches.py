"""The user's data as batches that can be gone through several times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from normfold.inputs import ImageOptions
from normfold.inputs.data import load_data
from normfold.inputs.drawing import Arrays, signature
from normfold.inputs.options import DataSource
from normfold.loading.load import file_sha256


class DataBatches:
    """Reads the data anew each time, so that only one batch is in memory."""

    def __init__(self, model: ir.Model, data: DataSource, image: ImageOptions | None = None) -> None:
        """Names the data; nothing is read yet.

        Args:
            model: whose inputs they are.
            data: file, folder or arrays by input name, samples along axis 0.
            image: how images become inputs.

        Raises:
            InputError: the model has an input that cannot be given as an array.
        """
        self._specs = signature(model)
        self._data = data
        self._image = image

    def __iter__(self) -> Iterator[Arrays]:
        """Yields inputs by name.

        Raises:
            InputError: the data cannot be read or do not fit the inputs.
        """
        return load_data(self._data, self._specs, self._image)


def data_record(data: DataSource) -> list[dict[str, str]]:
    """The files that the data are in, by path within the folder given, and their hashes; none for arrays."""
    if isinstance(data, Mapping):
        return []
    root = Path(os.fspath(data))
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    return [
        {
            "path": file.name if file == root else file.relative_to(root).as_posix(),
            "sha256": file_sha256(file),
        }
        for file in files
    ]
