"""The table of our own kernels, one module per operator family."""

from __future__ import annotations

from normfold.evaluation.call import Kernel
from normfold.evaluation.kernels import (
    activation,
    contrib,
    convolution,
    creation,
    elementwise,
    gathering,
    linear,
    normalization,
    padding,
    pooling,
    quantization,
    recurrent,
    resizing,
    sampling,
    splitting,
)

KERNELS: dict[tuple[str, str], Kernel] = {
    key: kernel
    for module in (
        activation,
        contrib,
        convolution,
        creation,
        elementwise,
        gathering,
        linear,
        normalization,
        padding,
        pooling,
        quantization,
        recurrent,
        resizing,
        sampling,
        splitting,
    )
    for key, kernel in module.KERNELS.items()
}
