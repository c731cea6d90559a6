"""The user's data as batches that can be gone through several times."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from normfold.verification.data import load_data
from normfold.verification.image_options import ImageOptions
from normfold.verification.inputs import Arrays, signature
from normfold.verification.options import DataSource


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
