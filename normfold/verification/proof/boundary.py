"""Shapes and values for the boundary of a region: small where the region allows it, consistent with each
other always."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.evaluation.promotion import native_slots
from normfold.inputs.drawing import is_floating
from normfold.verification.graph_index import GraphIndex, Key
from normfold.verification.proof.shape_inference import Dims, infer

SHRINK_ABOVE = 4096
"""Boundary values with more elements than this are first tried with smaller images."""

SYMBOL_SIZES = ((2, 8, 6, 10), (3, 11, 7, 13))
"""Two sizes for each dynamic axis: one for batches, the others in turn."""


@dataclass(frozen=True)
class Draft:
    """What to feed to one region.

    Attributes:
        shapes: shape and element type of each value to be drawn, by key.
        fixed: values that must be what the model really computes (shapes, indices, sizes), by key.
        origin: where the shapes come from: ``shrunk``, ``static``, ``symbolic`` or ``observed``.
        variant: which of the two sizes of the dynamic axes.
    """

    shapes: Mapping[Key, tuple[tuple[int, ...], np.dtype]]
    fixed: Mapping[Key, np.ndarray]
    origin: str
    variant: int = 0


@dataclass(frozen=True)
class Observation:
    """The values of the main graph in one run of the original: all shapes, and the content of what is not
    floating."""

    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    contents: Mapping[str, np.ndarray]


class Boundaries:
    """Answers what to feed at the boundary of a region.

    Args:
        index: the original.
        observe: runs the original on its ``variant``-th set of inputs; ``None`` where no run is possible.
            Called at most once per variant, and only if some region needs it.
    """

    def __init__(self, index: GraphIndex, observe: Callable[[int], Observation | None]) -> None:
        self._index = index
        self._observe = observe
        self._observed: dict[int, Observation | None] = {}
        self._dims, self._dtypes = infer(index)
        self._input_symbols: dict[str, int] = {}
        for value in index.model.graph.inputs:
            for axis, dim in enumerate(self._dims.get(index.keys[value]) or ()):
                if isinstance(dim, str):
                    self._input_symbols.setdefault(dim, axis)

    def dims(self, key: Key) -> Dims | None:
        """Inferred dimensions of a value of the original, ``None`` where the rank is unknown."""
        return self._dims.get(key)

    def dtype(self, key: Key) -> np.dtype | None:
        """Element type of a value of the original, ``None`` where unknown."""
        return self._dtypes.get(key)

    def drafts(self, inputs: Sequence[Key], nodes: Sequence[ir.Node]) -> Iterator[list[Draft]]:
        """Yields lists of drafts, the cheapest first. A list whose drafts all run settles the region.

        Args:
            inputs: boundary values.
            nodes: the region's nodes of the original, for what their operands mean.
        """
        structural = self._structural(nodes)
        plain = [key for key in inputs if self._is_plain(key, structural)]
        dims = {key: self._dims.get(key) for key in plain}
        if len(plain) == len(inputs) and all(self._resolvable(d) for d in dims.values()):
            known = {key: d for key, d in dims.items() if d is not None}
            variants = 2 if any(isinstance(size, str) for d in known.values() for size in d) else 1
            shapes = [
                {key: self._with_sizes(d, variant) for key, d in known.items()} for variant in range(variants)
            ]
            origin = "symbolic" if variants == 2 else "static"
            smaller = [_shrunk(s) for s in shapes]
            if smaller != shapes:
                yield [self._draft(s, "shrunk", v) for v, s in enumerate(smaller)]
            yield [self._draft(s, origin, v) for v, s in enumerate(shapes)]
        dynamic = bool(self._input_symbols)
        found = [self._observed_draft(inputs, structural, variant) for variant in range(1 + dynamic)]
        complete = [draft for draft in found if draft is not None]
        if complete:
            yield complete

    def _is_plain(self, key: Key, structural: set[Key]) -> bool:
        dtype = self._dtypes.get(key)
        if dtype is None or key in structural:
            return False
        return is_floating(dtype) or (key in self._index.values and self._index.producer(key) is None)

    def _structural(self, nodes: Sequence[ir.Node]) -> set[Key]:
        """Boundary values that decide shapes, sizes or indices."""
        return {
            self._index.keys[value]
            for node in nodes
            for slot, value in enumerate(node.inputs)
            if value is not None
            and value in self._index.keys
            and slot in native_slots(node.domain, node.op_type)
        }

    def _resolvable(self, dims: Dims | None) -> bool:
        return dims is not None and all(isinstance(d, int) or d in self._input_symbols for d in dims)

    def _with_sizes(self, dims: Dims, variant: int) -> tuple[int, ...]:
        batch, *others = SYMBOL_SIZES[variant]
        names = [name for name, axis in self._input_symbols.items() if axis > 0]
        sizes = {name: others[i % len(others)] for i, name in enumerate(names)}
        return tuple(d if isinstance(d, int) else sizes.get(d or "", batch) for d in dims)

    def _draft(self, shapes: Mapping[Key, tuple[int, ...]], origin: str, variant: int) -> Draft:
        return Draft({key: (shape, self._dtypes[key]) for key, shape in shapes.items()}, {}, origin, variant)

    def _observed_draft(self, inputs: Sequence[Key], structural: set[Key], variant: int) -> Draft | None:
        if variant not in self._observed:
            self._observed[variant] = self._observe(variant)
        seen = self._observed[variant]
        if seen is None:
            return None
        shapes, fixed = {}, {}
        for key in inputs:
            scope, name = key
            if scope or name not in seen.shapes:
                return None
            shape, dtype = seen.shapes[name]
            if is_floating(dtype) and key not in structural:
                shapes[key] = (shape, dtype)
            elif name in seen.contents:
                fixed[key] = seen.contents[name]
            else:
                return None
        return Draft(shapes, fixed, "observed", variant)


def _shrunk(shapes: Mapping[Key, tuple[int, ...]]) -> dict[Key, tuple[int, ...]]:
    """Shapes with smaller images and batches, proportions between boundary values kept.

    Sizes shrink by whole factors to at least 8, and keep their remainder modulo 8, on which paddings and
    overhangs of strided windows depend.
    """
    if max((math.prod(s) for s in shapes.values()), default=0) <= SHRINK_ABOVE:
        return dict(shapes)
    rank = max(map(len, shapes.values()))
    factors: dict[int, tuple[int, int]] = {}
    for axis in range(2, rank):
        unit = math.gcd(*(s[axis] for s in shapes.values() if len(s) == rank))
        small = 8 + unit % 8
        if unit > small:
            factors[axis] = (unit, small)
    result = {}
    for key, shape in shapes.items():
        sizes = list(shape)
        if len(shape) == rank >= 4:
            for axis, (unit, small) in factors.items():
                sizes[axis] = shape[axis] // unit * small
        if len(shape) == rank >= 2 and shape[0] > 3:
            sizes[0] = 2
        result[key] = tuple(sizes)
    return result
