"""The operator table: how an affine crosses each ONNX operator, and which can absorb one.

To add an operator: write a class with ``op_types``, ``backward`` and ``forward`` in the file of its
family, name it in that file's ``OPERATORS``, list the file here if it is new, and test it in
``tests/planning/operators/``.
"""

from __future__ import annotations

from normfold.planning.crossing import Operator
from normfold.planning.operators import (
    activations,
    add,
    concat,
    conv,
    conv_transpose,
    depth_to_space,
    expand_tile,
    extremes,
    gather,
    gemm,
    identity,
    matmul,
    mul,
    normalization,
    pad,
    pool,
    quantized,
    recurrent,
    reduce,
    reshape,
    resize,
    shape,
    slice_split,
    softmax,
    squeeze,
    transpose,
    where,
)

TABLE: dict[str, Operator] = {
    op_type: operator
    for family in (
        activations,
        add,
        concat,
        conv,
        conv_transpose,
        depth_to_space,
        expand_tile,
        extremes,
        gather,
        gemm,
        identity,
        matmul,
        mul,
        normalization,
        pad,
        pool,
        quantized,
        recurrent,
        reduce,
        reshape,
        resize,
        shape,
        slice_split,
        softmax,
        squeeze,
        transpose,
        where,
    )
    for operator in family.OPERATORS
    for op_type in operator.op_types
}
