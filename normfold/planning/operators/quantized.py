"""DequantizeLinear of a constant: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html

``w = (q − z) · d`` with integers q, z and a scale d: one number, one per index of ``axis`` ([C]), or from
opset 21 on one per block along ``axis`` (d has q's shape, but for the blocks).

Backward, ``s ⊙ w``: ``d' = |s|·d``, and where s < 0 ``q' = 2·z − q``, if that is in the range of the type;
where s = 0 ``q' = z``. s may vary on the axis that d has. A d that is one number becomes one per index
(opset ≥ 13); a blocked d takes s on every axis but the blocked one. So the integers of a weight do not
change but for their sign.

A shift moves an int32 (a bias) only, by the whole number t / d', if it is one. A weight never takes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, varying_axes
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.numbers import output_type
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_Q, _SCALE, _ZERO = 0, 1, 2
_PER_AXIS = 13


def is_dequantised(node: NodeView, slot: int) -> bool:
    """Whether the operand in ``slot`` is a DequantizeLinear of stored integers."""
    value = node.value(slot)
    producer = None if value is None else value.producer()
    if producer is None or producer.domain not in ("", "ai.onnx") or producer.op_type != "DequantizeLinear":
        return False
    stored = producer.inputs[_Q]
    source = None if stored is None else stored.producer()
    return stored is not None and (
        stored.is_initializer() or (source is not None and source.op_type == "Constant")
    )


def stored_shape(node: NodeView, slot: int, what: str = "weight") -> tuple[int, ...]:
    """Shape of an operand that may be asked to carry an affine: a floating constant or a dequantised one.

    Raises:
        Refused: NF102, NF112 or NF115, saying why it may not be.
    """
    if node.constant(slot) is not None or not is_dequantised(node, slot):
        return node.weight(slot, what).shape
    sizes = [dim for dim in node.dims(slot) or (None,) if isinstance(dim, int)]
    if len(sizes) != len(node.dims(slot) or (None,)):
        raise Refused("NF112", f"the shape of the {what} of {node.op_type} {node.name!r} is not known")
    return tuple(sizes)


@dataclass
class Request:
    """What a layer asks its weight and bias to carry: at once of a constant, else of the DequantizeLinear."""

    node: NodeView
    constants: dict[int, Constant64] = field(default_factory=dict)
    affines: dict[int, Affine] = field(default_factory=dict)

    def ask(self, slot: int, affine: Affine) -> None:
        """``affine`` has the rank of the operand in ``slot``, whose shape it does not change.

        Raises:
            Refused: NF103 or NF124 where a DequantizeLinear cannot take it. Asked here already, so that no
                walk leaves an operator on the weight instead.
        """
        constant = self.node.constant(slot)
        if constant is None:
            self._check_dequantised(slot, affine)
            self.affines[slot] = affine
        elif affine.has_shift:
            self.constants[slot] = constant.map(affine.apply)
        else:
            self.constants[slot] = constant.scaled(affine.scale)

    def _check_dequantised(self, slot: int, affine: Affine) -> None:
        value = self.node.value(slot)
        producer = self.node.producer(slot)
        assert value is not None and producer is not None
        if len(value.uses()) != 1 or value.is_graph_output():
            raise Refused("NF103", f"the dequantised {value.name!r} is also read elsewhere")
        DequantizeLinear().backward(producer, {0: affine})

    @property
    def dtype(self) -> ir.DataType:
        """The type of a bias that the layer gets: its weight's."""
        constant = self.node.constant(1)
        return output_type(self.node) if constant is None else constant.dtype

    def crossing(self, **attributes: Any) -> Crossing:
        return Crossing(self.affines, self.constants, attributes)


class DequantizeLinear(Operator):
    op_types = ("DequantizeLinear",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        stored, dtype = node.array(_Q), node.dtype(_Q)
        if stored is None or dtype is None:
            raise Refused("NF124", f"{node.name!r} is dequantised from a value computed at run time")
        if not dtype.is_integer():
            raise Refused("NF124", f"{node.name!r} is stored as {dtype.name.lower()}")
        step = node.weight(_SCALE, "scale")
        codes, zero = stored.astype(np.float64), self._zero(node)
        constants: dict[int, Constant64] = {}
        attributes: dict[str, Any] = {}
        axis = node.int_attribute("axis", 1) % max(codes.ndim, 1)
        if affine.has_scale:
            axis = self._axis(node, affine.scale, step, axis, codes.ndim)
            grows = len(step.shape) < 2 and affine.scale.size > 1 and step.shape != (affine.scale.size,)
            factor = affine.scale if len(step.shape) > 1 else affine.scale.reshape(-1)
            magnitude = np.where(factor == 0, 1.0, np.abs(factor))
            if grows:
                attributes["axis"] = axis
                if zero is not None and node.has(_ZERO):
                    zero = np.broadcast_to(zero, (factor.size,))
                    constants[_ZERO] = Constant64.of(zero, dtype)
            elif affine.scale.size == 1:
                magnitude = magnitude.reshape(())
            step = step.map(lambda d: d * magnitude, np.broadcast_shapes(step.shape, magnitude.shape))
            constants[_SCALE] = step
        moved = _turned(codes, self._spread(node, zero, axis, codes), affine.scale)
        if affine.has_shift:
            moved = moved + self._whole_steps(
                node, dtype, affine.shift, self._spread(node, step.compute(), axis, codes)
            )
        if not np.array_equal(moved, codes):
            if moved.min() < dtype.min or moved.max() > dtype.max:
                raise Refused("NF124", f"{node.name!r} would leave the range of {dtype.name.lower()}")
            constants[_Q] = Constant64.of(moved, dtype)
        return Crossing(constants=constants, attributes=attributes)

    def _zero(self, node: NodeView) -> Array64 | None:
        if not node.has(_ZERO):
            return None
        zero = node.array(_ZERO)
        if zero is None:
            raise Refused("NF124", f"the zero point of {node.name!r} is computed at run time")
        return zero.astype(np.float64)

    def _axis(self, node: NodeView, scale: Array64, step: Constant64, axis: int, rank: int) -> int:
        """The axis of the quantisation scale, after it has taken ``scale``."""
        axes = varying_axes(scale)
        if len(step.shape) > 1:
            if axis in axes:
                raise Refused(
                    "NF124", f"{node.name!r} is quantised in blocks along the axis that the scale varies on"
                )
            return axis
        if not axes:
            return axis
        if len(axes) > 1 or (step.shape not in ((), (1,)) and axes != (axis,)):
            raise Refused(
                "NF124", f"the scale varies on an axis along which {node.name!r} has one quantisation scale"
            )
        if step.shape in ((), (1,)) and node.opset < _PER_AXIS:
            raise Refused("NF124", f"in opset {node.opset} {node.name!r} has one quantisation scale")
        return axes[0]

    def _spread(self, node: NodeView, parameter: Array64 | None, axis: int, codes: Array64) -> Array64:
        """A scale or zero point in a shape that broadcasts against the integers."""
        if parameter is None:
            return np.zeros(())
        if parameter.size == 1:
            return parameter.reshape(())
        if parameter.ndim == 1 and not node.int_attribute("block_size", 0):
            return parameter.reshape(-1, *(1,) * (codes.ndim - axis - 1))
        blocks = np.repeat(parameter, node.int_attribute("block_size", 0), axis=axis)
        return blocks[tuple(slice(size) for size in codes.shape)]

    def _whole_steps(self, node: NodeView, dtype: ir.DataType, shift: Array64, step: Array64) -> Array64:
        """``t / d'``, for a bias that can be moved exactly."""
        if dtype != ir.DataType.INT32 or not step.all():
            raise Refused("NF124", f"{node.name!r} is quantised and takes no shift")
        steps = np.rint(shift / step)
        if not np.array_equal(steps * step, np.broadcast_to(shift, steps.shape)):
            raise Refused("NF124", f"the shift is no whole number of quantisation steps of {node.name!r}")
        return steps


def _turned(codes: Array64, zero: Array64, scale: Array64) -> Array64:
    """The integers whose scale is |s|: mirrored at the zero point where s < 0, at it where s = 0."""
    return np.where(scale < 0, 2 * zero - codes, np.where(scale == 0, zero, codes))


OPERATORS: tuple[Operator, ...] = (DequantizeLinear(),)
