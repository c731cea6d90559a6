"""Instance, group, layer and RMS normalisation: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html

``Y = γ ⊙ x̂ + β`` where x̂ is X minus its mean, divided by its deviation, over the normalised axes.

Backward, ``s ⊙ Y + t``: ``γ' = s·γ``, ``β' = s·β + t`` where γ covers the axes that s and t vary on.
Forward: a shift that is uniform over the normalised axes is part of the mean and dead. A scale is not,
because of ε.

| operator | X | normalised axes | γ, β |
|---|---|---|---|
| InstanceNormalization | [N, C, *spatial] | spatial | [C] |
| GroupNormalization | [N, C, *spatial] in G groups | group's channels, spatial | [C], before opset 21 [G] |
| LayerNormalization | any | ``axis`` and all behind it | broadcast to those; β may be missing |
| RMSNormalization | any | ``axis`` and all behind it | γ likewise, no β; no mean, so no shift is dead |
| MeanVarianceNormalization | any | ``axes`` | none |
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, alike, varying_axes, vector
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_X, _SCALE, _BIAS = 0, 1, 2
_PER_CHANNEL = 21


class InstanceNormalization(Operator):
    op_types = ("InstanceNormalization",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        _require_channel_axis(affine, node)
        gamma = node.weight(_SCALE)
        scale, shift = affine.channel(1, gamma.shape[0])
        return _absorbed(node, affine, gamma, scale, shift)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return _drop_shift(node, given, range(2, node.rank(_X)))


class GroupNormalization(Operator):
    op_types = ("GroupNormalization",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        _require_channel_axis(affine, node)
        gamma = node.weight(_SCALE)
        if node.opset >= _PER_CHANNEL:
            scale, shift = affine.channel(1, gamma.shape[0])
        else:
            scale, shift = (_per_group(array, gamma.shape[0], node) for array in (affine.scale, affine.shift))
        return _absorbed(node, affine, gamma, scale, shift)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        crossing = _drop_shift(node, given, range(2, node.rank(_X)))
        shift = given[_X].shift
        if 1 in varying_axes(shift):
            groups = node.int_attribute("num_groups", 1)
            _require_whole_groups(shift.shape[1], groups, node)
            grouped = shift.reshape(shift.shape[0], groups, -1)
            if not alike(grouped, grouped[..., :1]).all():
                raise Refused("NF114", f"the shift varies within a group of {node.op_type} {node.name!r}")
        return crossing


class LayerNormalization(Operator):
    """With RMSNormalization, which has neither a mean nor β."""

    op_types = ("LayerNormalization", "RMSNormalization")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        if list(wanted) != [0]:
            raise Refused("NF114", f"the statistics of {node.op_type} {node.name!r} are what they are")
        affine, axis = wanted[0], _first_axis(node)
        if affine.has_shift and node.op_type == "RMSNormalization":
            raise Refused("NF118", f"RMSNormalization {node.name!r} has no bias to take the shift")
        allowed = set(range(axis, affine.rank))
        require_axes(affine.scale, allowed, "scale", node)
        require_axes(affine.shift, allowed, "shift", node)
        scale, shift = (array.reshape(array.shape[axis:]) for array in (affine.scale, affine.shift))
        return _absorbed(node, affine, node.weight(_SCALE), scale, shift)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if node.op_type == "RMSNormalization":
            raise Refused("NF114", f"RMSNormalization {node.name!r} does not subtract the mean")
        if len(node.node.outputs) > 1 and node.is_used(1):
            raise Refused("NF114", f"the mean of {node.op_type} {node.name!r} is read")
        return _drop_shift(node, given, range(_first_axis(node), node.rank(_X)))


class MeanVarianceNormalization(Operator):
    op_types = ("MeanVarianceNormalization",)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        rank = node.rank(_X)
        return _drop_shift(node, given, [axis % rank for axis in node.ints_attribute("axes") or (0, 2, 3)])


def _absorbed(node: NodeView, affine: Affine, gamma: Constant64, scale: Array64, shift: Array64) -> Crossing:
    """γ and β with ``scale`` and ``shift``, which broadcast against them, taken in; both get one shape."""
    beta = node.weight(_BIAS, "bias") if node.has(_BIAS) else None
    shapes = [gamma.shape] if beta is None else [gamma.shape, beta.shape]
    shape = np.broadcast_shapes(*shapes, scale.shape, shift.shape)
    constants = {}
    if affine.has_scale or gamma.shape != shape:
        constants[_SCALE] = gamma.map(lambda g: np.broadcast_to(g * scale, shape), shape)
    if beta is not None:
        constants[_BIAS] = beta.map(lambda b: np.broadcast_to(b * scale + shift, shape), shape)
    elif affine.has_shift:
        constants[_BIAS] = Constant64.of(np.broadcast_to(shift, shape), gamma.dtype)
    return Crossing(constants=constants)


def _drop_shift(node: NodeView, given: Mapping[int, Affine], normalised: range | list[int]) -> Crossing:
    if list(given) != [_X]:
        raise Refused("NF114", f"the parameters of {node.op_type} {node.name!r} are computed at run time")
    affine = given[_X]
    if affine.has_scale:
        raise Refused("NF114", f"a scale does not cross {node.op_type} {node.name!r}, because of its epsilon")
    if set(affine.shift_axes) & set(normalised):
        raise Refused("NF114", f"the shift varies along an axis that {node.op_type} {node.name!r} normalises")
    return Crossing()


def _require_channel_axis(affine: Affine, node: NodeView) -> None:
    require_axes(affine.scale, {1}, "scale", node)
    require_axes(affine.shift, {1}, "shift", node)


def _require_whole_groups(channels: int, groups: int, node: NodeView) -> None:
    if groups < 1 or channels % groups:
        raise Refused("NF113", f"{node.op_type} {node.name!r} has {channels} channels in {groups} groups")


def _per_group(array: Array64, groups: int, node: NodeView) -> Array64:
    """[C] as [G], where it is the same for all channels of a group."""
    if array.size == 1:
        return vector(array, 1, groups)
    _require_whole_groups(array.size, groups, node)
    grouped = array.reshape(groups, -1)
    if not alike(grouped, grouped[:, :1]).all():
        raise Refused(
            "NF110",
            f"{node.op_type} {node.name!r} has one parameter per group, and the affine varies within one",
        )
    return grouped[:, 0]


def _first_axis(node: NodeView) -> int:
    return node.int_attribute("axis", -1) % node.rank(_X)


OPERATORS: tuple[Operator, ...] = (
    InstanceNormalization(),
    GroupNormalization(),
    LayerNormalization(),
    MeanVarianceNormalization(),
)
