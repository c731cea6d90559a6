"""Relu, LeakyRelu, PRelu, Abs and HardSigmoid: https://onnx.ai/onnx/operators/onnx__Relu.html

All elementwise, so the affine may vary on any axis. Backward ``s ⊙ f(X) + t``, forward ``f(s ⊙ X + t)``.

* Relu: ``s·Relu(x) = Relu(s·x)`` for s ≥ 0, ``Min(s·x, 0)`` for s < 0. With a shift
  ``s·Relu(x) + t = Max(s·x + t, t)``, forward ``Relu(s·x + t) = s·Max(x, −t/s) + t``; ``Min`` for s < 0.
* LeakyRelu, PRelu with slope α: ``s·f_α(x) = f_α(s·x)`` for s ≥ 0. For s < 0 backward ``f_{1/α}(s·α·x)``
  where α > 0, forward ``f_α(s·x) = s·α·f_{1/α}(x)`` where α ≠ 0. No shift.
* Abs: ``s·|x| = |s·x|`` for s ≥ 0; forward ``|s·x| = |s|·|x|``. No shift.
* HardSigmoid, forward only: ``max(0, min(1, α·(s·x + t) + β))`` has α' = α·s and β' = β + α·t.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.numbers import attribute, operand, scalar, uniform
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

# Max and Min broadcast from here on; before, their operands had to have one shape.
_MAX_BROADCASTS = 8
_PRELU_BROADCASTS = 7
_CLIP_TAKES_INPUTS = 11
_CLIP_OF_FLOAT64 = 12
# Attributes are float32, defaults included.
_LEAKY_ALPHA = float(np.float32(0.01))
_HARD_SIGMOID_ALPHA = float(np.float32(0.2))


class Relu(Operator):
    """``max(x, 0)``. With a shift or a negative scale it becomes a bound other than 0, or from above."""

    op_types = ("Relu",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        if not affine.has_shift and (affine.scale >= 0).all():
            return Crossing(affines={0: affine})
        return _bounded(node, affine, affine.shift, {0: affine})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        if not affine.has_shift and (affine.scale >= 0).all():
            return Crossing(affines={0: affine})
        if not affine.scale.all():
            raise Refused("NF127", f"a scale in front of Relu {node.name!r} is zero")
        with np.errstate(over="ignore"):
            return _bounded(node, affine, -affine.shift / affine.scale, {0: affine})


def _bounded(node: NodeView, affine: Affine, bound: Array64, affines: Mapping[int, Affine]) -> Crossing:
    """Relu as Max or Min with a constant, or as Clip, which runtimes fuse, where the bound is one number."""
    if (affine.scale >= 0).all():
        upper = False
    elif (affine.scale < 0).all():
        upper = True
    else:
        raise Refused("NF117", f"the scale at Relu {node.name!r} has both signs")
    if node.opset < _MAX_BROADCASTS:
        raise Refused("NF114", f"in opset {node.opset} Relu {node.name!r} cannot become a Max of two shapes")
    if bound.size == 1 and _may_be_clip(node):
        limit = scalar(float(bound.item()), node)
        return Crossing(affines, constants={2 if upper else 1: limit}, op_type="Clip")
    return Crossing(affines, constants={1: operand(bound, node)}, op_type="Min" if upper else "Max")


def _may_be_clip(node: NodeView) -> bool:
    """Whether its bounds can be operands, of this type; onnxruntime's first such Clip has no float64."""
    since = _CLIP_OF_FLOAT64 if node.output_dtype() == ir.DataType.DOUBLE else _CLIP_TAKES_INPUTS
    return node.opset >= since


class Leaky(Operator):
    """LeakyRelu (one slope α, an attribute) and PRelu (a slope that broadcasts to X)."""

    op_types = ("LeakyRelu", "PRelu")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        _refuse_shift(affine, node)
        if (affine.scale >= 0).all():
            return Crossing(affines={0: affine})
        slope, constants, attributes, op_type = self._turned(node, affine.scale)
        if ((slope < 0) & (affine.scale < 0)).any():
            raise Refused("NF117", f"a negative slope of {node.op_type} {node.name!r} keeps its sign")
        scale = np.where(affine.scale < 0, affine.scale * slope, affine.scale)
        return Crossing({0: Affine.of(scale, rank=affine.rank)}, constants, attributes, op_type)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [0]:
            raise Refused("NF114", f"the slope of {node.op_type} {node.name!r} is scaled at run time")
        affine = given[0]
        _refuse_shift(affine, node)
        if (affine.scale >= 0).all():
            return Crossing(affines={0: affine})
        slope, constants, attributes, op_type = self._turned(node, affine.scale)
        scale = np.where(affine.scale < 0, affine.scale * slope, affine.scale)
        return Crossing({0: Affine.of(scale, rank=affine.rank)}, constants, attributes, op_type)

    def _turned(
        self, node: NodeView, scale: Array64
    ) -> tuple[Array64, dict[int, Constant64], dict[str, None], str | None]:
        """α, and the edit that makes the slope 1/α where the scale is negative."""
        if node.opset < _PRELU_BROADCASTS:
            raise Refused("NF117", f"in opset {node.opset} the slope of {node.op_type} cannot follow a sign")
        if node.op_type == "LeakyRelu":
            slope = np.full((1,) * scale.ndim, node.float_attribute("alpha", _LEAKY_ALPHA))
        else:
            stored = node.weight(1, "slope").compute()
            slope = stored.reshape((1,) * (scale.ndim - stored.ndim) + stored.shape)
        try:
            shape = np.broadcast_shapes(slope.shape, scale.shape)
        except ValueError:
            raise Refused(
                "NF113", f"the slope of {node.op_type} {node.name!r} has the shape {slope.shape}"
            ) from None
        negative = np.broadcast_to(scale < 0, shape)
        if ((slope == 0) & negative).any():
            raise Refused(
                "NF117", f"a slope of {node.op_type} {node.name!r} is zero where the scale is negative"
            )
        turned = np.broadcast_to(slope, shape).copy()
        turned[negative] = 1.0 / turned[negative]
        if node.op_type == "LeakyRelu":
            return slope, {1: operand(turned, node)}, {"alpha": None}, "PRelu"
        return slope, {1: operand(turned, node)}, {}, None


class Abs(Operator):
    """``|x|``."""

    op_types = ("Abs",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        _refuse_shift(affine, node)
        if (affine.scale < 0).any():
            raise Refused("NF117", f"Abs {node.name!r} cannot produce a negative value")
        return Crossing(affines={0: affine})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        _refuse_shift(affine, node)
        return Crossing(affines={0: Affine.of(np.abs(affine.scale), rank=affine.rank)})


class HardSigmoid(Operator):
    """``max(0, min(1, α·x + β))`` is an affine inside: forward it takes a uniform one over."""

    op_types = ("HardSigmoid",)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        scale, shift = uniform(given[0], node)
        alpha = node.float_attribute("alpha", _HARD_SIGMOID_ALPHA)
        beta = node.float_attribute("beta", 0.5)
        return Crossing(
            attributes={
                "alpha": attribute(alpha * scale, node),
                "beta": attribute(beta + alpha * shift, node),
            }
        )


def _refuse_shift(affine: Affine, node: NodeView) -> None:
    if affine.has_shift:
        raise Refused("NF114", f"a shift does not cross {node.op_type} {node.name!r}")


OPERATORS: tuple[Operator, ...] = (Relu(), Leaky(), Abs(), HardSigmoid())
