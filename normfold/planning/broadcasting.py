"""Affines between an elementwise operator's output and its operands, which broadcasting may have enlarged.

https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md
"""

from __future__ import annotations

from normfold.affine import Affine, Array64, varying_axes
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


def output_rank(node: NodeView) -> int:
    """Rank of the output.

    Raises:
        Refused: NF112 where it is not known.
    """
    dims = node.output_dims()
    if dims is None:
        raise Refused("NF112", f"the rank of {node.name!r} is not known")
    return len(dims)


def to_operand(affine: Affine, node: NodeView, slot: int) -> Affine:
    """What the operand in ``slot`` has to carry so that, broadcast to the output, it carries ``affine``.

    A constant operand may grow to the size of the affine; a computed one must have that size already.

    Raises:
        Refused: NF113 where the operand is, or may be, broadcast along an axis that the affine varies on.
    """
    rank, first = node.rank(slot), _first_axis(node, slot)
    axes = affine.axes
    if _may_grow(node, slot):
        rank = max(rank, affine.rank - min(axes, default=affine.rank))
        first = affine.rank - rank
    elif not fits(affine, node, slot):
        raise Refused(
            "NF113",
            f"operand {slot} of {node.op_type} {node.name!r} is or may be broadcast along an axis"
            " that the affine varies on",
        )
    return Affine(_cut(affine.scale, first, rank), _cut(affine.shift, first, rank))


def fits(affine: Affine, node: NodeView, slot: int) -> bool:
    """Whether the operand in ``slot`` is full-size where ``affine`` varies, or a constant that may grow."""
    if _may_grow(node, slot):
        return True
    dims, first = node.dims(slot), _first_axis(node, slot)
    if dims is None:
        return False
    return all(
        first <= axis < first + len(dims) and dims[axis - first] == array.shape[axis]
        for array in (affine.scale, affine.shift)
        for axis in varying_axes(array)
    )


def to_output(affine: Affine, node: NodeView, slot: int) -> Affine:
    """An affine of the operand in ``slot`` as the output sees it.

    Raises:
        Refused: NF112 where the output's rank is not known.
    """
    rank, first = output_rank(node), _first_axis(node, slot)
    behind = rank - first - affine.rank
    return Affine(_extended(affine.scale, first, behind), _extended(affine.shift, first, behind))


def _first_axis(node: NodeView, slot: int) -> int:
    """The output axis that the operand's axis 0 lies on. Before opset 7 an attribute says so for slot 1."""
    rank = output_rank(node)
    if node.opset < 7 and slot == 1 and node.has_attribute("axis"):
        return node.int_attribute("axis", 0) % rank
    return rank - node.rank(slot)


def _may_grow(node: NodeView, slot: int) -> bool:
    return node.opset >= 8 and node.constant(slot) is not None


def _cut(array: Array64, first: int, rank: int) -> Array64:
    return array.reshape(array.shape[first : first + rank])


def _extended(array: Array64, ahead: int, behind: int) -> Array64:
    return array.reshape((1,) * ahead + array.shape + (1,) * behind)
