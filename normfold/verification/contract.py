"""What a caller of a model can see without running it: inputs and outputs, their names, types and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir


def signature_differences(a: ir.Model, b: ir.Model) -> Iterator[str]:
    """Yields one sentence per difference between two models' inputs and outputs.

    A size that only one of them declares is no difference.
    """
    yield from _compare("input", _required(a), _required(b))
    yield from _compare("output", a.graph.outputs, b.graph.outputs)


def _required(model: ir.Model) -> list[ir.Value]:
    """Inputs without a default. Until IR version 3 every initializer had to be listed as an input too."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _compare(kind: str, a: Sequence[ir.Value], b: Sequence[ir.Value]) -> Iterator[str]:
    left, right = {v.name: v for v in a}, {v.name: v for v in b}
    yield from (f"{kind} '{name}' is missing" for name in left if name not in right)
    yield from (f"{kind} '{name}' is new" for name in right if name not in left)
    if left.keys() == right.keys() and list(left) != list(right):
        yield f"{kind}s are in another order"
    for name in left.keys() & right.keys():
        first, second = left[name], right[name]
        if first.type is not None and second.type is not None and first.type != second.type:
            yield f"{kind} '{name}' has type {second.type} instead of {first.type}"
        elif first.shape is not None and second.shape is not None and _conflict(first.shape, second.shape):
            yield f"{kind} '{name}' has shape {second.shape} instead of {first.shape}"


def _conflict(a: ir.Shape, b: ir.Shape) -> bool:
    return len(a) != len(b) or any(
        isinstance(x, int) and isinstance(y, int) and x != y and min(x, y) >= 0
        for x, y in zip(a, b, strict=True)
    )
