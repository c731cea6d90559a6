"""What a computed shape operand says, symbolically: ``Concat(Gather(Shape(x), 0), 64, -1)`` is [N, 64, -1].

onnx's own data propagation stops at many operators that exporters use. Reading goes from the operand to its
producers and never evaluates anything that depends on an input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.preparation.shapes import Dims
from normfold.preparation.sizes import Size
from normfold.refusal import Refused

# Shape expressions of real exports are a few nodes deep.
_DEEPEST = 32


class Element(NamedTuple):
    """A symbol: an element of an integer operand of which nothing is known."""

    value: ir.Value
    place: int


_Reader = Callable[[NodeView, int], "list[Size] | None"]


def sizes_of(node: NodeView, slot: int) -> list[Size] | None:
    """The dimensions of an operand; one without a name is a symbol of its own. ``None``: rank not known."""
    value, dims = node.value(slot), node.dims(slot)
    return None if value is None or dims is None else sizes(value, dims)


def sizes(value: ir.Value, dims: Dims) -> list[Size]:
    return [
        Size(dim) if isinstance(dim, int) else Size.symbol((value, axis) if dim is None else dim)
        for axis, dim in enumerate(dims)
    ]


def elements(node: NodeView, slot: int, depth: int = 0) -> list[Size] | None:
    """The elements of a vector or scalar of integers; ``None`` where not even their number is known."""
    value, dims = node.value(slot), node.dims(slot)
    if value is None or dims is None or len(dims) > 1:
        return None
    constant = node.integers(slot)
    if constant is not None:
        return [Size(i) for i in constant]
    maker = producer(node, slot)
    read = _READERS.get(maker.op_type) if maker is not None and depth < _DEEPEST else None
    if maker is not None and read is not None:
        found = read(maker, depth + 1)
        if found is not None:
            return found
    count = dims[0] if dims else 1
    if not isinstance(count, int):
        return None
    return [Size.symbol(Element(value, index)) for index in range(count)]


def numbers(node: NodeView, slot: int, depth: int = 0) -> list[int] | None:
    """The elements of a vector or scalar of integers, constant or computed from static sizes."""
    found = elements(node, slot, depth)
    if found is None or any(size.number is None for size in found):
        return None
    return [size.number for size in found if size.number is not None]


def is_read(size: Size) -> bool:
    """Whether something is known of every factor."""
    return not any(isinstance(symbol, Element) for symbol, _ in size.symbols)


def target_sizes(node: NodeView, before: list[Size]) -> list[Size]:
    """Dimensions of Y: what shape inference knows as numbers, else what the target's expression says."""
    if node.opset < 5:
        said = [Size(dim) for dim in node.ints_attribute("shape") or []]
    else:
        said = elements(node, 1) or []
    dims = node.output_dims()
    if not said and dims is None:
        raise Refused("NF112", f"the rank behind Reshape {node.name!r} is not known")
    output = node.node.outputs[0]
    inferred = sizes(output, dims if dims is not None else (None,) * len(said))
    copies = node.int_attribute("allowzero", 0) == 0
    target: list[Size] = []
    remainder: int | None = None
    for axis, known in enumerate(inferred):
        word = said[axis] if len(said) == len(inferred) else None
        if word is not None and word.number == -1:
            remainder = axis
            target.append(known)
        elif known.number is not None or word is None or word.factor < 0 or not is_read(word):
            target.append(known)
        elif word.number == 0 and copies and axis < len(before):
            target.append(before[axis])
        else:
            target.append(word)
    if remainder is not None and target[remainder].number is None:
        others = Size.product(size for axis, size in enumerate(target) if axis != remainder)
        target[remainder] = Size.product(before).divided_by(others) or target[remainder]
    return target


def producer(node: NodeView, slot: int) -> NodeView | None:
    """The standard operator whose only output an operand is."""
    maker = node.producer(slot)
    if maker is None or len(maker.node.outputs) != 1 or maker.node.domain not in ("", "ai.onnx"):
        return None
    return maker


def bounds(node: NodeView, index: int, name: str, depth: int = 0) -> list[int] | None:
    """``starts``, ``ends`` or ``axes`` of a Slice: an attribute before opset 10, then an operand."""
    return node.ints_attribute(name) if node.opset < 10 else numbers(node, index, depth)


def _shape(node: NodeView, depth: int) -> list[Size] | None:
    found = sizes_of(node, 0)
    if found is None:
        return None
    end = node.int_attribute("end", len(found)) if node.has_attribute("end") else len(found)
    return found[node.int_attribute("start", 0) : end]


def _count(node: NodeView, depth: int) -> list[Size] | None:
    found = sizes_of(node, 0)
    return None if found is None else [Size.product(found)]


def _gather(node: NodeView, depth: int) -> list[Size] | None:
    found, indices = elements(node, 0, depth), node.integers(1)
    if found is None or indices is None or not all(-len(found) <= i < len(found) for i in indices):
        return None
    return [found[i] for i in indices]


def _slice(node: NodeView, depth: int) -> list[Size] | None:
    found = elements(node, 0, depth)
    starts, ends = bounds(node, 1, "starts", depth), bounds(node, 2, "ends", depth)
    steps = bounds(node, 4, "steps", depth) if node.has(4) else [1]
    if found is None or starts is None or ends is None or steps is None or len(starts) != 1:
        return None
    return found[starts[0] : ends[0] : steps[0]]


def _concat(node: NodeView, depth: int) -> list[Size] | None:
    joined: list[Size] = []
    for slot in range(len(node.node.inputs)):
        part = elements(node, slot, depth)
        if part is None:
            return None
        joined.extend(part)
    return joined


def _same(node: NodeView, depth: int) -> list[Size] | None:
    return elements(node, 0, depth)


def _cast(node: NodeView, depth: int) -> list[Size] | None:
    source, target = node.dtype(0), node.output_dtype()
    integers = (ir.DataType.INT64, ir.DataType.INT32)
    return elements(node, 0, depth) if source in integers and target in integers else None


def _product(node: NodeView, depth: int) -> list[Size] | None:
    found = elements(node, 0, depth)
    return None if found is None else [Size.product(found)]


def _elementwise(combine: Callable[[Size, Size], Size | None]) -> _Reader:
    def read(node: NodeView, depth: int) -> list[Size] | None:
        left, right = elements(node, 0, depth), elements(node, 1, depth)
        if not left or not right or (len(left) != len(right) and 1 not in (len(left), len(right))):
            return None
        count = max(len(left), len(right))
        pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
        results = [combine(a, b) for a, b in pairs]
        value = node.node.outputs[0]
        return [Size.symbol(Element(value, i)) if r is None else r for i, r in enumerate(results)]

    return read


def _literal(combine: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    def apply(a: Size, b: Size) -> Size | None:
        return None if a.number is None or b.number is None else Size(combine(a.number, b.number))

    return apply


def _quotient(a: Size, b: Size) -> Size | None:
    if a.number is not None and b.number is not None:
        return Size(a.number // b.number) if a.number >= 0 and b.number > 0 else None
    return a.divided_by(b)


_READERS: dict[str, _Reader] = {
    "Shape": _shape,
    "Size": _count,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Cast": _cast,
    "ReduceProd": _product,
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(_quotient),
    "Add": _elementwise(_literal(lambda a, b: a + b)),
    "Sub": _elementwise(_literal(lambda a, b: a - b)),
}
