"""Which axes a Reduce operator reduces."""

from __future__ import annotations

from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_REDUCE_SUM_TAKES_AXES = 13
_OTHERS_TAKE_AXES = 18


def reduced_axes(node: NodeView) -> tuple[int, ...]:
    """The axes that a Reduce operator reduces, not negative.

    Raises:
        Refused: NF112 where the rank, NF114 where the axes are not known.
    """
    rank = node.rank(0)
    axes: list[int] | None = None
    if node.opset < (_REDUCE_SUM_TAKES_AXES if node.op_type == "ReduceSum" else _OTHERS_TAKE_AXES):
        axes = node.ints_attribute("axes")
    elif node.has(1):
        axes = node.integers(1)
        if axes is None:
            raise Refused("NF114", f"the axes of {node.op_type} {node.name!r} are computed at run time")
    if axes:
        return tuple(sorted({axis % rank for axis in axes}))
    return () if node.int_attribute("noop_with_empty_axes", 0) else tuple(range(rank))
