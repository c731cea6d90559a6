"""Pad: https://onnx.ai/onnx/operators/onnx__Pad.html

Y is X with elements added (or with negative pads removed) at both ends of each axis.

* edge, reflect, wrap: padding copies elements of X, so both scale and shift cross wherever they vary on
  axes without padding.
* constant v: every padded element must come out as one number again. Backward ``v' = s·v + t``, forward
  ``v' = (v − t)/s``, over all entries that padding meets. On an axis that both is padded and varies, a
  padded entry meets only its own numbers: backward they are dropped, forward they are identities (scale 1,
  shift v − v').
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from normfold.affine import Affine, Array64, alike
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.numbers import attribute, scalar
from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import numbers
from normfold.refusal import Refused

_PADS_ARE_INPUT = 11

Widths = tuple[tuple[int, int], ...]


class Pad(Operator):
    op_types = ("Pad",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine, widths = wanted[0], _widths(node)
        padded = _padded_axes(node, widths, affine)
        if node.string_attribute("mode", "constant") != "constant":
            _require_off(affine, padded, node)
            return Crossing(affines={0: affine})
        inner = Affine.of(_inside(affine.scale, widths), _inside(affine.shift, widths), rank=affine.rank)
        before = _value(node)
        if not padded:
            return Crossing(affines={0: inner})
        met = _met(affine, padded, widths)
        if np.isinf(before):
            if affine.has_scale and not (affine.scale > 0).all():
                raise Refused("NF117", f"Pad {node.name!r} pads with an infinity, which changes its sign")
            return Crossing(affines={0: inner})
        after = _one_number((affine.scale * before + affine.shift)[met], node)
        return _with_value(node, {0: inner}, before, after)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [0]:
            raise Refused("NF114", f"the pad value of Pad {node.name!r} is scaled at run time")
        affine, widths = given[0], _widths(node)
        padded = _padded_axes(node, widths, affine)
        if node.string_attribute("mode", "constant") != "constant":
            _require_off(affine, padded, node)
            return Crossing(affines={0: affine})
        before = _value(node)
        if np.isinf(before):
            _require_off(affine, padded, node)
            if not (affine.scale > 0).all():
                raise Refused("NF117", f"Pad {node.name!r} pads with an infinity, which changes its sign")
            return Crossing(affines={0: affine})
        after = before
        if any(axis not in affine.axes for axis in padded):
            after = _one_number(_sources(affine, before, node), node)
        return _with_value(node, {0: _widened(affine, widths, before - after)}, before, after)


def _widths(node: NodeView) -> Widths | None:
    """Elements added before and behind each axis; ``None`` where computed at run time."""
    rank = node.rank(0)
    axes: list[int] | None = list(range(rank))
    if node.opset < _PADS_ARE_INPUT:
        pads = node.ints_attribute("pads")
    else:
        pads = numbers(node, 1)
        if node.has(3):
            axes = numbers(node, 3)
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    widths = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        widths[axis % rank] = (pads[index], pads[index + len(axes)])
    return tuple(widths)


def _padded_axes(node: NodeView, widths: Widths | None, affine: Affine) -> tuple[int, ...]:
    """Axes that have, or may have, padding.

    Raises:
        Refused: NF114 where a varying axis may have some, or is cropped.
    """
    if widths is None:
        if affine.axes:
            raise Refused("NF114", f"the pads of Pad {node.name!r} are computed at run time")
        return tuple(range(affine.rank))
    for axis in affine.axes:
        if min(widths[axis]) < 0:
            raise Refused("NF114", f"Pad {node.name!r} crops an axis that the affine varies on")
    return tuple(axis for axis, width in enumerate(widths) if max(width) > 0)


def _require_off(affine: Affine, padded: tuple[int, ...], node: NodeView) -> None:
    if set(affine.axes) & set(padded):
        raise Refused("NF110", f"Pad {node.name!r} pads an axis that the affine varies on")


def _value(node: NodeView) -> float:
    if node.opset < _PADS_ARE_INPUT:
        return node.float_attribute("value", 0.0)
    if not node.has(2):
        return 0.0
    values = node.weight(2, "pad value").compute()
    if values.size != 1 or np.isnan(values).any():
        raise Refused("NF108", f"the pad value of Pad {node.name!r} is no number")
    return float(values.item())


def _met(affine: Affine, padded: tuple[int, ...], widths: Widths | None) -> NDArray[np.bool_]:
    """Entries of an output affine that apply to padded elements."""
    shape = np.broadcast_shapes(affine.scale.shape, affine.shift.shape)
    if widths is None or any(axis not in affine.axes for axis in padded):
        return np.ones(shape, dtype=bool)
    met = np.ones(shape, dtype=bool)
    inside = tuple(
        slice(widths[axis][0], size - widths[axis][1]) if axis in padded else slice(None)
        for axis, size in enumerate(shape)
    )
    met[inside] = False
    return met


def _inside(array: Array64, widths: Widths | None) -> Array64:
    """An output array without the entries of padded elements."""
    if widths is None:
        return array
    return array[
        tuple(
            slice(head, size - tail) if size != 1 else slice(None)
            for size, (head, tail) in zip(array.shape, widths, strict=True)
        )
    ]


def _widened(affine: Affine, widths: Widths | None, shift: float) -> Affine:
    """An input affine with scale 1 and ``shift`` for each padded element of the axes it varies on."""
    if widths is None:
        return affine
    grown = [width if axis in affine.axes else (0, 0) for axis, width in enumerate(widths)]
    full = np.broadcast_shapes(affine.scale.shape, affine.shift.shape)

    def widen(array: Array64, fill: float) -> Array64:
        shape = [full[axis] if any(width) else array.shape[axis] for axis, width in enumerate(grown)]
        return np.pad(np.broadcast_to(array, shape), grown, constant_values=fill)

    return Affine.of(widen(affine.scale, 1.0), widen(affine.shift, shift), rank=affine.rank)


def _sources(affine: Affine, value: float, node: NodeView) -> Array64:
    """The pad values in front of the affine that come out as ``value``, wherever that leaves no choice."""
    scale, target = np.broadcast_arrays(affine.scale, value - affine.shift)
    decided = scale != 0
    if target[~decided].any():
        raise Refused(
            "NF127", f"a scale in front of Pad {node.name!r} is zero, its shift is not the pad value"
        )
    return target[decided] / scale[decided] if decided.any() else np.array([value])


def _one_number(values: Array64, node: NodeView) -> float:
    first = float(values.flat[0])
    if not alike(values, values.flat[:1]).all():
        raise Refused("NF116", f"Pad {node.name!r} would need a different pad value for each channel")
    return first


def _with_value(node: NodeView, affines: Mapping[int, Affine], before: float, after: float) -> Crossing:
    if after == before:
        return Crossing(affines=affines)
    if node.opset < _PADS_ARE_INPUT:
        return Crossing(affines=affines, attributes={"value": attribute(after, node)})
    return Crossing(affines=affines, constants={2: scalar(after, node)})


OPERATORS: tuple[Operator, ...] = (Pad(),)
