"""The operator table: how an affine crosses each ONNX operator, and which can absorb one.

To add an operator: write a class with ``op_types``, ``backward`` and ``forward`` in the file of its family, name it in that file's
``OPERATORS``, list the file here if it is new, and test it in ``tests/planning/operators/``.
"""

from __future__ import annotations

from normfold.planning.crossing import Operator
from normfold.planning.operators import (
    concat,
    conv,
    conv_transpose,
    depth_to_space,
    expand_tile,
    gather,
    gemm,
    identity,
    matmul,
    reshape,
    shape,
    slice_split,
    squeeze,
    transpose,
)

TABLE: dict[str, Operator] = {
    op_type: operator
    for family in (
        concat,
        conv,
        conv_transpose,
        depth_to_space,
        expand_tile,
        gather,
        gemm,
        identity,
        matmul,
        reshape,
        shape,
        slice_split,
        squeeze,
        transpose,
    )
    for operator in family.OPERATORS
    for op_type in operator.op_types
}
