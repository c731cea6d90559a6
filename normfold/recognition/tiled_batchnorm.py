"""BatchNormalization over channels that are tiled by the batch: what InstanceNorm with tracked statistics is.

Exporters write ``F.instance_norm`` with running statistics, which are [C], as x [N, C, *S] → Reshape
[1, N·C, *S] → BatchNormalization with every parameter repeated N times → Reshape [N, C, *S]. With an open
batch the parameters are no constants, and it is a BatchNormalization of x all the same: row-major order puts
(n, c) at n·C + c, where the parameter is that of c.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, sizes_of, target_sizes
from normfold.preparation.sizes import Size
from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import is_inference
from normfold.refusal import Refused

_PARAMETERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class TiledBatchNorm:
    """A BatchNormalization between two Reshapes that equals one of x.

    Attributes:
        x: what is normalised.
        merge: the Reshape that merges batch and channels.
        norm: the BatchNormalization.
        split: the Reshape that takes them apart.
        parameters: its scale, B, mean and var as they were before they were tiled, each [C].
    """

    x: ir.Value
    merge: ir.Node
    norm: ir.Node
    split: ir.Node
    parameters: tuple[ir.Value, ...]

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return self.merge, self.norm, self.split


def read_tiled_batchnorm(norm: ir.Node, workspace: Workspace) -> TiledBatchNorm | None:
    """What a node and its neighbours are, ``None`` where they are not that."""
    view = NodeView(norm, workspace)
    if norm.op_type != "BatchNormalization" or view.is_constant(3) or not is_inference(norm, view.opset):
        return None
    merge, split = view.producer(0), _only_reader(norm, workspace)
    if merge is None or split is None or not (_is_reshape(merge) and _is_reshape(split)):
        return None
    x, before = merge.value(0), sizes_of(merge, 0)
    if x is None or before is None or len(before) < 2 or before[1].number is None:
        return None
    try:
        merged = target_sizes(merge, before)
        after = target_sizes(split, merged)
    except Refused:
        return None
    if merged != [Size(1), before[0] * before[1], *before[2:]] or after != before:
        return None
    parameters = [_before_tiling(view, slot, before[0]) for slot in _PARAMETERS]
    known = tuple(p for p in parameters if p is not None and workspace.dims(p) == (before[1].number,))
    if len(known) != len(_PARAMETERS):
        return None
    return TiledBatchNorm(x, merge.node, norm, split.node, known)


def _before_tiling(norm: NodeView, slot: int, batch: Size) -> ir.Value | None:
    """The constant [C] that an operand repeats ``batch`` times."""
    tile = norm.producer(slot)
    if tile is None or tile.op_type != "Tile" or not tile.is_constant(0):
        return None
    return tile.value(0) if elements(tile, 1) == [batch] else None


def _only_reader(node: ir.Node, workspace: Workspace) -> NodeView | None:
    y = node.outputs[0]
    uses = y.uses()
    if y.is_graph_output() or len(uses) != 1:
        return None
    (use,) = uses
    return NodeView(use.node, workspace) if use.node.graph is node.graph and use.idx == 0 else None


def _is_reshape(node: NodeView) -> bool:
    return node.op_type == "Reshape" and node.node.domain in ("", "ai.onnx")
