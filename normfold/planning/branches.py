"""Parallel linear branches: a sum of Conv, BatchNormalization, identity and average pooling over one input is one Conv.

Tap j of a branch reads the input at offset ``j·dilation − pad_begin``. The merged kernel is the union of the offsets, so kernels of even
size, causal and asymmetric padding and different dilations merge. An identity is a tap at offset 0; a pool is a depthwise kernel of 1/area.
Groups merge to their greatest common divisor. Exact where all branches have the same strides and the same output size for every input size,
that is where ``pad_begin + pad_end − extent`` agrees on every axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, vector
from normfold.planning.crossing import NodeView
from normfold.planning.operators.conv import resolved_pads
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import is_virtual, virtual

# Before, Pad has its amounts as an attribute.
_PADS_AS_INPUT = 11
_SUMS = frozenset({"Add", "Sub", "Sum"})


@dataclass(frozen=True)
class Branch:
    """One linear branch over ``x`` [N, Cin, *spatial].

    Attributes:
        nodes: its nodes, which the merge removes.
        kernel: [O, Cin/groups, *k].
        bias: [O].
        begin: padding in front, per spatial axis.
        end: padding behind, per spatial axis.
        multiplies: multiply-adds per output element that it costs now, elementwise passes included.
    """

    nodes: tuple[ir.Node, ...]
    kernel: Array64
    bias: Array64
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    multiplies: float

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel.shape[2:], self.dilations, strict=True))

    @property
    def slack(self) -> tuple[int, ...]:
        """``pad_begin + pad_end − extent``: branches of equal slack and strides have equal output sizes."""
        return tuple(b + e - x for b, e, x in zip(self.begin, self.end, self.extents, strict=True))

    def scaled(self, scale: Array64, shift: Array64) -> Branch:
        factor = scale.reshape(-1, *(1 for _ in self.kernel.shape[1:]))
        return replace(self, kernel=self.kernel * factor, bias=self.bias * scale + shift)


@dataclass(frozen=True)
class Term:
    """One operand of a flattened sum: ``sign · value``."""

    value: ir.Value
    sign: float


@dataclass(frozen=True)
class BranchMerge:
    """Replace ``root``'s sum by one Conv over ``x``, plus the ``others``.

    Attributes:
        root: the sum's last node.
        nodes: every node that goes: the sum's own and the branches'.
        x: what all branches read.
        merged: the one branch that they make.
        others: operands of the sum that are no branches of ``x``.
    """

    root: ir.Node
    nodes: tuple[ir.Node, ...]
    x: ir.Value
    merged: Branch
    others: tuple[Term, ...]
    dtype: ir.DataType


def find_merge(node: ir.Node, workspace: Workspace) -> BranchMerge | None:
    """The merge that ends in ``node``, if it is the last of a sum and the merge costs no more than what it replaces."""
    return _merge_of(node, workspace) if _is_sum(node) and not _feeds_sum(node) else None


def _is_sum(node: ir.Node) -> bool:
    return (
        node.op_type in _SUMS and node.domain in ("", "ai.onnx") and all(v is not None for v in node.inputs)
    )


def _feeds_sum(node: ir.Node) -> bool:
    """Whether its result is read by one other sum only, which then is the root."""
    return _is_private(node.outputs[0]) and _is_sum(next(iter(node.outputs[0].uses())).node)


def _is_private(value: ir.Value) -> bool:
    """Read once, in its own graph, and no graph output."""
    uses = value.uses()
    return len(uses) == 1 and not value.is_graph_output() and next(iter(uses)).node.graph is value.graph


def _merge_of(root: ir.Node, workspace: Workspace) -> BranchMerge | None:
    terms, sums = _flatten(root)
    candidates: dict[ir.Value, list[tuple[Term, Branch]]] = {}
    for term in terms:
        for x, branch in _readings(term, workspace):
            candidates.setdefault(x, []).append((term, branch))
    for x, members in candidates.items():
        if len(members) < 2 or not any(_has_conv(branch) for _, branch in members):
            continue
        chosen = [branch for _, branch in members]
        dtype = workspace.shapes.dtype(x)
        merged = _merged(chosen)
        if merged is None or dtype is None or not _same_shape(root, x, merged, workspace):
            continue
        before = sum(branch.multiplies for branch in chosen) + len(members) - 1
        if merged.multiplies > before:
            continue
        taken = {id(term) for term, _ in members}
        others = tuple(term for term in terms if id(term) not in taken)
        gone = (*sums, *(n for branch in chosen for n in branch.nodes))
        return BranchMerge(root, tuple(dict.fromkeys(gone)), x, merged, others, dtype)
    return None


def _flatten(root: ir.Node) -> tuple[list[Term], list[ir.Node]]:
    """The operands of a tree of sums, with their signs, and its nodes."""
    terms: list[Term] = []
    sums: list[ir.Node] = []
    stack = [(root, 1.0)]
    while stack:
        node, sign = stack.pop()
        sums.append(node)
        for slot, value in enumerate(node.inputs):
            assert value is not None
            own = -sign if node.op_type == "Sub" and slot == 1 else sign
            producer = value.producer()
            if producer is not None and _is_sum(producer) and _is_private(value):
                stack.append((producer, own))
            else:
                terms.append(Term(value, own))
    return terms, sums


def _readings(term: Term, workspace: Workspace) -> list[tuple[ir.Value, Branch]]:
    """The ways to read a term as a branch: what it reads, and how. Any value is an identity of itself."""
    readings: list[tuple[ir.Value, Branch]] = []
    identity = _identity(term.value, workspace)
    if identity is not None:
        readings.append((term.value, identity))
    node = term.value.producer()
    if node is not None and _is_private(term.value):
        outer: Affine | None = None
        outer_nodes: tuple[ir.Node, ...] = ()
        if is_virtual(node):
            outer, outer_nodes = virtual(node).affine, (node,)
            source = node.inputs[0]
            assert source is not None
            inner = _identity(source, workspace)
            if inner is not None:
                readings.append((source, _wrapped(inner, outer, outer_nodes)))
            node = source.producer() if _is_private(source) else None
        if node is not None:
            branch = _linear(node, workspace)
            if branch is not None and node.inputs[0] is not None:
                x, branch = _with_pad(node.inputs[0], branch, workspace)
                readings.append((x, branch if outer is None else _wrapped(branch, outer, outer_nodes)))
    return [
        (x, branch.scaled(np.full(branch.bias.shape, term.sign), np.zeros(1)))
        for x, branch in readings
        if np.isfinite(branch.kernel).all()
    ]


def _with_pad(x: ir.Value, branch: Branch, workspace: Workspace) -> tuple[ir.Value, Branch]:
    """A Pad with zeros in front of the branch becomes its own padding."""
    pad = x.producer()
    if pad is None or pad.op_type != "Pad" or not _is_private(x) or workspace.opset < _PADS_AS_INPUT:
        return x, branch
    view = NodeView(pad, workspace)
    amounts, fill, source = view.integers(1), view.array(2) if view.has(2) else np.zeros(1), view.value(0)
    if amounts is None or fill is None or source is None or view.has(3) or fill.any():
        return x, branch
    rank = len(amounts) // 2
    before, after = amounts[:rank], amounts[rank:]
    if (
        view.string_attribute("mode", "constant") != "constant"
        or rank != branch.kernel.ndim
        or any((*before[:2], *after[:2]))
        or min(amounts) < 0
    ):
        return x, branch
    return source, replace(
        branch,
        nodes=(pad, *branch.nodes),
        begin=tuple(own + more for own, more in zip(branch.begin, before[2:], strict=True)),
        end=tuple(own + more for own, more in zip(branch.end, after[2:], strict=True)),
        multiplies=branch.multiplies + 1,
    )


def _wrapped(branch: Branch, affine: Affine, nodes: tuple[ir.Node, ...]) -> Branch:
    """The branch followed by a per-channel affine; NaN in the kernel marks one that is not per channel."""
    size = branch.bias.size
    if set(affine.axes) - {1}:
        return replace(branch, kernel=np.full_like(branch.kernel, np.nan))
    wrapped = branch.scaled(vector(affine.scale, 1, size), vector(affine.shift, 1, size))
    return replace(wrapped, nodes=(*branch.nodes, *nodes), multiplies=branch.multiplies + 1)


def _identity(value: ir.Value, workspace: Workspace) -> Branch | None:
    dims = workspace.dims(value)
    if dims is None or len(dims) < 3 or not isinstance(dims[1], int) or not workspace.is_float(value):
        return None
    channels, spatial = dims[1], len(dims) - 2
    return _depthwise(
        (), channels, np.ones((1,) * spatial), (1,) * spatial, (0,) * spatial, (0,) * spatial, 0.0
    )


def _linear(node: ir.Node, workspace: Workspace) -> Branch | None:
    """A Conv with a constant weight, or an average pool that divides by the same number everywhere."""
    if node.domain not in ("", "ai.onnx") or any(v.uses() for v in node.outputs[1:]):
        return None
    view = NodeView(node, workspace)
    if node.op_type == "Conv":
        return _conv(view)
    return _pool(view) if node.op_type == "AveragePool" else None


def _conv(view: NodeView) -> Branch | None:
    weight = view.constant(1)
    bias = view.constant(2) if view.has(2) else None
    if weight is None or (view.has(2) and bias is None):
        return None
    kernel = weight.shape[2:]
    pads = resolved_pads(view, kernel)
    if pads is None:
        return None
    ones = [1] * len(kernel)
    return Branch(
        nodes=(view.node,),
        kernel=weight.compute(),
        bias=np.zeros(weight.shape[0]) if bias is None else bias.compute(),
        groups=view.int_attribute("group", 1),
        strides=tuple(view.ints_attribute("strides") or ones),
        dilations=tuple(view.ints_attribute("dilations") or ones),
        begin=pads[0],
        end=pads[1],
        multiplies=math.prod(weight.shape[1:]),
    )


def _pool(view: NodeView) -> Branch | None:
    kernel = tuple(view.ints_attribute("kernel_shape") or ())
    dims = view.dims(0)
    pads = resolved_pads(view, kernel)
    if pads is None or dims is None or not isinstance(dims[1], int) or view.int_attribute("ceil_mode", 0):
        return None
    if any((*pads[0], *pads[1])) and not view.int_attribute("count_include_pad", 0):
        return None
    strides = tuple(view.ints_attribute("strides") or [1] * len(kernel))
    area = math.prod(kernel)
    branch = _depthwise((view.node,), dims[1], np.full(kernel, 1.0 / area), strides, *pads, float(area))
    dilations = view.ints_attribute("dilations")
    return branch if dilations is None else replace(branch, dilations=tuple(dilations))


def _depthwise(
    nodes: tuple[ir.Node, ...],
    channels: int,
    kernel: Array64,
    strides: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    multiplies: float,
) -> Branch:
    return Branch(
        nodes=nodes,
        kernel=np.broadcast_to(kernel, (channels, 1, *kernel.shape)),
        bias=np.zeros(channels),
        groups=channels,
        strides=strides,
        dilations=(1,) * kernel.ndim,
        begin=begin,
        end=end,
        multiplies=multiplies,
    )


def _has_conv(branch: Branch) -> bool:
    return any(node.op_type == "Conv" for node in branch.nodes)


def _same_shape(root: ir.Node, x: ir.Value, merged: Branch, workspace: Workspace) -> bool:
    """Whether the sum broadcasts nothing: its result has the merged Conv's channels and rank."""
    dims, source = workspace.dims(root.outputs[0]), workspace.dims(x)
    return (
        dims is not None and source is not None and len(dims) == len(source) and dims[1] == merged.bias.size
    )


def _merged(branches: Sequence[Branch]) -> Branch | None:
    """The one branch that is their sum, or ``None`` where they do not line up."""
    first = branches[0]
    channels_in = {branch.kernel.shape[1] * branch.groups for branch in branches}
    if (
        len(channels_in) != 1
        or len({branch.bias.size for branch in branches}) != 1
        or len({branch.strides for branch in branches}) != 1
        or len({branch.slack for branch in branches}) != 1
        or len({branch.kernel.ndim for branch in branches}) != 1
    ):
        return None
    groups = math.gcd(*(branch.groups for branch in branches))
    spatial = first.kernel.ndim - 2
    begin = tuple(max(b.begin[i] for b in branches) for i in range(spatial))
    last = [max(b.extents[i] - 1 - b.begin[i] for b in branches) for i in range(spatial)]
    extents = [last[i] + begin[i] + 1 for i in range(spatial)]
    dilations = tuple(_common_step(branches, begin, i) for i in range(spatial))
    sizes = [(extents[i] - 1) // dilations[i] + 1 for i in range(spatial)]
    (channels,) = channels_in
    kernel = np.zeros((first.bias.size, channels // groups, *sizes))
    for branch in branches:
        taps = [
            (begin[i] - branch.begin[i] + branch.dilations[i] * np.arange(branch.kernel.shape[2 + i]))
            // dilations[i]
            for i in range(spatial)
        ]
        rows, columns = (np.arange(size) for size in kernel.shape[:2])
        kernel[np.ix_(rows, columns, *taps)] += _regrouped(branch, groups)
    return Branch(
        nodes=(),
        kernel=kernel,
        bias=np.sum([branch.bias for branch in branches], axis=0),
        groups=groups,
        strides=first.strides,
        dilations=dilations,
        begin=begin,
        end=tuple(first.slack[i] + extents[i] - begin[i] for i in range(spatial)),
        multiplies=math.prod(kernel.shape[1:]),
    )


def _common_step(branches: Sequence[Branch], begin: tuple[int, ...], axis: int) -> int:
    """The largest dilation whose lattice holds every tap of every branch."""
    steps = [begin[axis] - branch.begin[axis] for branch in branches]
    steps += [branch.dilations[axis] for branch in branches if branch.kernel.shape[2 + axis] > 1]
    return math.gcd(*steps) or 1


def _regrouped(branch: Branch, groups: int) -> Array64:
    """The kernel as one of fewer groups: zero where the branch connects nothing."""
    if branch.groups == groups:
        return branch.kernel
    out, per_group = branch.kernel.shape[:2]
    inner = branch.groups // groups
    wide = np.zeros((out, per_group * inner, *branch.kernel.shape[2:]))
    out_per_group = out // branch.groups
    for channel in range(out):
        own = (channel // out_per_group) % inner
        wide[channel, own * per_group : (own + 1) * per_group] = branch.kernel[channel]
    return wide
