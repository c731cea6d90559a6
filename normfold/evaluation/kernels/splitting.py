"""Split, whose sizes have to add up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array
from normfold.evaluation.reference import run_reference


def _split(call: NodeCall) -> Sequence[Array]:
    """Split. ``onnx.reference`` takes sizes that do not add up, and gives parts that no runtime would."""
    sizes = call.integers("split") if call.version < 13 else call.optional(1)
    whole = call.tensor(0).shape[call.integer("axis", 0) or 0]
    if sizes is not None and int(np.sum(sizes)) != whole:
        raise call.misfit(f"{list(map(int, sizes))} do not add up to {whole}")
    return run_reference(call)


KERNELS: dict[tuple[str, str], Kernel] = {("", "Split"): _split}
