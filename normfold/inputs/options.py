"""What a caller can decide about inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from normfold.inputs.image_options import ImageOptions

DataSource = str | os.PathLike[str] | Mapping[str, np.ndarray]
"""Where real inputs come from: a file, a folder, or arrays by input name with samples along axis 0."""


@dataclass(frozen=True)
class InputOptions:
    """Which inputs models run on.

    Attributes:
        data: real inputs, used instead of generated ones: ``.npz`` (keys are input names), ``.npy``, a folder
            of either or of images, an ONNX test data set, or arrays by input name. Axis 0 of every array
            counts samples.
        image: how images become inputs.
        shapes: full shape of an input by name, for inputs with dynamic axes.
        dims: size of a named dynamic axis by its name.
        seed: of everything that is drawn.
    """

    data: DataSource | None = None
    image: ImageOptions | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
