"""Normalisations that are one operator: InstanceNormalization, GroupNormalization 18 and 21,
LayerNormalization, RMSNormalization and com.microsoft's GroupNorm.
"""

from __future__ import annotations

import numpy as np

from normfold.affine import Array64
from normfold.preparation.node_view import NodeView
from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import Laid, NotRead, View, reshaped, sizes_of_view, uncut
from normfold.recognition.groupnorm.reader import Reader, Reading, with_affine
from normfold.recognition.groupnorm.terms import ONE, Expression, product, total

_DEFAULT_EPSILON = float(np.float32(1e-5))


def _instance(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    rank = len(x.view)
    normal = reader.standardised(x, set(range(2, rank)), _epsilon(node))
    shape = (-1, *(1,) * (rank - 2))
    return with_affine(normal, *(reader.parameter(node, slot).reshape(shape) for slot in (1, 2)))


def _group(node: NodeView, reader: Reader) -> Expression:
    """Scale and bias are [G] in opset 18 to 20, [C] from 21 on."""
    x = reader.expression(node, 0)
    return _grouped(node, reader, x, node.int_attribute("num_groups", 0), axis=1)


def _ms_group(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    axis = len(x.view) - 1 if node.int_attribute("channels_last", 1) else 1
    result = _grouped(node, reader, x, node.int_attribute("groups", 0), axis=axis)
    if node.int_attribute("activation", 0) == 1:
        return Expression(result.view, result.terms, "silu")
    return result


def _grouped(node: NodeView, reader: Reader, x: Expression, groups: int, *, axis: int) -> Expression:
    sizes = sizes_of_view(x.view)
    rest = sizes[axis].divided_by(Size(groups)) if groups > 0 else None
    if rest is None:
        raise NotRead("the number of groups does not divide the channels")
    view = reshaped(x.view, [*sizes[:axis], Size(groups), rest, *sizes[axis + 1 :]])
    averaged = set(range(1, len(view))) - {axis}
    normal = reader.standardised(Expression(view, x.terms), averaged, _epsilon(node))
    scale, shift = (reader.parameter(node, slot).reshape(-1) for slot in (1, 2))
    return Expression(x.view, _on_channels(normal, view, axis, scale, shift))


def _on_channels(
    normal: Expression, view: View, axis: int, scale: Array64, shift: Array64
) -> dict[tuple[int, int, int, tuple[tuple[int, int], ...]], Laid]:
    channel = uncut((*view[axis], *view[axis + 1]))
    per_group = uncut(view[axis])
    laid = []
    for array in (scale, shift):
        pieces = per_group if array.size == (Size.product(p.size for p in per_group).number or 0) else channel
        laid.append(Laid.over((pieces,), array)[0])
    terms = product(normal.terms, {ONE: laid[0]})
    return total(terms, {ONE: laid[1]}) if shift.any() else terms


def _layer(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    rank = len(x.view)
    axes = set(range(node.int_attribute("axis", -1) % rank, rank))
    centred = node.op_type == "LayerNormalization"
    normal = reader.standardised(x, axes, _epsilon(node), centred=centred)
    shift = reader.parameter(node, 2) if node.has(2) else np.zeros(())
    return with_affine(normal, reader.parameter(node, 1), shift)


def _epsilon(node: NodeView) -> float:
    return node.float_attribute("epsilon", _DEFAULT_EPSILON)


READINGS: dict[tuple[str, str], Reading] = {
    ("", "InstanceNormalization"): _instance,
    ("", "GroupNormalization"): _group,
    ("", "LayerNormalization"): _layer,
    ("", "RMSNormalization"): _layer,
    ("", "SimplifiedLayerNormalization"): _layer,
    ("com.microsoft", "SimplifiedLayerNormalization"): _layer,
    ("com.microsoft", "GroupNorm"): _ms_group,
}
