"""The table of our own kernels, one module per operator family."""

from __future__ import annotations

from normfold.evaluation.call import Kernel
from normfold.evaluation.kernels import convolution, creation, linear, normalization, pooling

KERNELS: dict[tuple[str, str], Kernel] = {
    **convolution.KERNELS,
    **creation.KERNELS,
    **linear.KERNELS,
    **normalization.KERNELS,
    **pooling.KERNELS,
}
