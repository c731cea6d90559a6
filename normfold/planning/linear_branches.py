"""Linear branches: what is equal to one Conv over its input, and the one Conv that a sum of them is.

Tap j of a branch reads the input at offset ``j·dilation − pad_begin``. The merged kernel is the union of the
offsets, so kernels of even size, causal and asymmetric padding and different dilations merge. An identity is
a tap at offset 0; a pool is a depthwise kernel of 1/area. Groups merge to their greatest common divisor.
Exact where all branches have the same strides and the same output size: for every input size, where
``pad_begin + pad_end − extent`` agrees on an axis; else for the static size of that axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, vector
from normfold.planning.operators._windows import resolved_pads
from normfold.preparation.node_view import NodeView
from normfold.preparation.shapes import Dim
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import is_virtual, virtual

# Before, Pad has its amounts as an attribute.
_PADS_AS_INPUT = 11


@dataclass(frozen=True)
class Branch:
    """One linear branch over ``x`` [N, Cin, *spatial].

    Attributes:
        nodes: its nodes, which a merge removes.
        shape: of its kernel, [O, Cin/groups, *k].
        kernel: computes the kernel.
        bias: [O].
        begin: padding in front, per spatial axis.
        end: padding behind, per spatial axis.
        multiplies: multiply-adds per output element that it costs now, elementwise passes included.
    """

    nodes: tuple[ir.Node, ...]
    shape: tuple[int, ...]
    kernel: Callable[[], Array64]
    bias: Array64
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    multiplies: float

    @property
    def channels(self) -> tuple[int, int]:
        """Cin and O."""
        return self.shape[1] * self.groups, self.shape[0]

    @property
    def has_conv(self) -> bool:
        return any(node.op_type == "Conv" for node in self.nodes)

    @property
    def is_pointwise(self) -> bool:
        """Whether every output element reads the input elements of its own place."""
        spatial = (*self.shape[2:], *self.strides)
        return all(size == 1 for size in spatial) and not any((*self.begin, *self.end))

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.shape[2:], self.dilations, strict=True))

    @property
    def slack(self) -> tuple[int, ...]:
        """``pad_begin + pad_end − extent``: an axis of n elements becomes ``(n + slack) // stride + 1``."""
        return tuple(b + e - x for b, e, x in zip(self.begin, self.end, self.extents, strict=True))

    def scaled(self, scale: Array64, shift: Array64) -> Branch:
        """``scale ⊙ branch(x) + shift``, both [O]."""
        kernel, factor = self.kernel, scale.reshape(-1, *(1 for _ in self.shape[1:]))
        return replace(self, kernel=lambda: kernel() * factor, bias=self.bias * scale + shift)


@dataclass(frozen=True)
class Layout:
    """The geometry of the Conv that a sum of branches is; attributes as in :class:`Branch`."""

    shape: tuple[int, ...]
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def multiplies(self) -> float:
        """Multiply-adds per output element."""
        return math.prod(self.shape[1:])


def layout_of(branches: Sequence[Branch], sizes: Sequence[Dim]) -> Layout | None:
    """Where the taps of all branches lie together, or ``None`` where their results do not line up.

    ``sizes``: of the spatial axes of what the branches read.
    """
    first = branches[0]
    if len({(branch.channels, branch.strides, len(branch.shape)) for branch in branches}) != 1:
        return None
    channels_in, channels_out = first.channels
    groups = math.gcd(*(branch.groups for branch in branches))
    kernel, dilations, begins, ends = [], [], [], []
    for axis, stride in enumerate(first.strides):
        slacks = {branch.slack[axis] for branch in branches}
        size = sizes[axis] if axis < len(sizes) else None
        if len(slacks) > 1 and not (
            isinstance(size, int) and len({(size + slack) // stride for slack in slacks}) == 1
        ):
            return None
        begin = max(branch.begin[axis] for branch in branches)
        last = max(branch.extents[axis] - 1 - branch.begin[axis] for branch in branches)
        step = _common_step(branches, begin, axis)
        begins.append(begin)
        ends.append(max(slacks) + last + 1)
        dilations.append(step)
        kernel.append((last + begin) // step + 1)
    return Layout(
        (channels_out, channels_in // groups, *kernel),
        groups,
        first.strides,
        tuple(dilations),
        tuple(begins),
        tuple(ends),
    )


def kernel_of(branches: Sequence[Branch], layout: Layout) -> Array64:
    """The sum of the branches' kernels, [O, Cin/groups, *k] as ``layout`` says."""
    kernel = np.zeros(layout.shape)
    for branch in branches:
        taps = [
            (begin - own + step * np.arange(size)) // dilation
            for begin, own, step, size, dilation in zip(
                layout.begin, branch.begin, branch.dilations, branch.shape[2:], layout.dilations, strict=True
            )
        ]
        rows, columns = (np.arange(size) for size in layout.shape[:2])
        kernel[np.ix_(rows, columns, *taps)] += _regrouped(branch, layout.groups)
    return kernel


def _common_step(branches: Sequence[Branch], begin: int, axis: int) -> int:
    """The largest dilation whose lattice holds every tap of every branch."""
    steps = [begin - branch.begin[axis] for branch in branches]
    steps += [branch.dilations[axis] for branch in branches if branch.shape[2 + axis] > 1]
    return math.gcd(*steps) or 1


def _regrouped(branch: Branch, groups: int) -> Array64:
    """The kernel as one of fewer groups: zero where the branch connects nothing."""
    kernel = branch.kernel()
    if branch.groups == groups:
        return kernel
    out, per_group = branch.shape[:2]
    inner = branch.groups // groups
    wide = np.zeros((out, per_group * inner, *branch.shape[2:]))
    out_per_group = out // branch.groups
    for channel in range(out):
        own = (channel // out_per_group) % inner
        wide[channel, own * per_group : (own + 1) * per_group] = kernel[channel]
    return wide


def is_private(value: ir.Value) -> bool:
    """Read once, in its own graph, and no graph output."""
    uses = value.uses()
    return len(uses) == 1 and not value.is_graph_output() and next(iter(uses)).node.graph is value.graph


def readings(value: ir.Value, workspace: Workspace) -> Iterator[tuple[ir.Value, Branch]]:
    """The ways to read a value as a branch: what it reads, and how. Any value is an identity of itself.

    ``Conv``, ``AveragePool``, an affine, or an affine behind one of them, with or without a Pad and a 1×1
    Conv in front. What a merge removes has no other reader.
    """
    yield from _identity(value, workspace)
    node = value.producer()
    if node is None or not is_private(value):
        return
    if not is_virtual(node):
        yield from _linear(node, workspace)
        return
    source = node.inputs[0]
    assert source is not None
    inner = _identity(source, workspace)
    producer = source.producer()
    if producer is not None and is_private(source):
        inner = itertools.chain(inner, _linear(producer, workspace))
    for x, branch in inner:
        yield from _followed(x, branch, virtual(node).affine, node)


def _followed(
    x: ir.Value, branch: Branch, affine: Affine, node: ir.Node
) -> Iterator[tuple[ir.Value, Branch]]:
    """The branch with an affine behind it, if that is per channel."""
    if set(affine.axes) <= {1}:
        _, size = branch.channels
        followed = branch.scaled(vector(affine.scale, 1, size), vector(affine.shift, 1, size))
        yield x, replace(followed, nodes=(*branch.nodes, node), multiplies=branch.multiplies + 1)


def _identity(value: ir.Value, workspace: Workspace) -> Iterator[tuple[ir.Value, Branch]]:
    dims = workspace.dims(value)
    if dims is not None and len(dims) >= 3 and isinstance(dims[1], int) and workspace.is_float(value):
        ones, zeros = (1,) * (len(dims) - 2), (0,) * (len(dims) - 2)
        yield value, _depthwise((), dims[1], ones, ones, zeros, zeros, 0.0)


def _linear(node: ir.Node, workspace: Workspace) -> Iterator[tuple[ir.Value, Branch]]:
    """A Conv with a constant weight, or an average pool that divides by the same number everywhere."""
    x = node.inputs[0] if node.inputs else None
    if x is None or node.domain not in ("", "ai.onnx") or any(v.uses() for v in node.outputs[1:]):
        return
    view = NodeView(node, workspace)
    branch = {"Conv": _conv, "AveragePool": _pool}.get(node.op_type, lambda _: None)(view)
    if branch is not None:
        x, branch = _with_pad(x, branch, workspace)
        yield x, branch
        yield from _behind_pointwise(x, branch, workspace)


def _behind_pointwise(x: ir.Value, branch: Branch, workspace: Workspace) -> Iterator[tuple[ir.Value, Branch]]:
    """The branch and the 1×1 Conv that makes what it reads, as one.

    Padding stands between the two: its zeros are what a 1×1 Conv without a bias makes of zeros.
    """
    node = x.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Conv" and is_private(x) else None
    inner = None if source is None or node is None else _conv(NodeView(node, workspace))
    if source is None or inner is None or not inner.is_pointwise:
        return
    if inner.bias.any() and any((*branch.begin, *branch.end)):
        return
    yield source, _composed(inner, branch)


def _composed(inner: Branch, outer: Branch) -> Branch:
    """``outer(inner(x))`` where ``inner`` is pointwise: M channels lie between the two."""
    groups = math.gcd(inner.groups, outer.groups)
    middle, out = inner.shape[0], outer.shape[0]

    def blocks() -> tuple[Array64, Array64]:
        """[G, O/G, M/G, *k] and [G, M/G, Cin/G]."""
        second, first = _regrouped(outer, groups), _regrouped(inner, groups)
        return second.reshape(groups, out // groups, *second.shape[1:]), first.reshape(
            groups, middle // groups, -1
        )

    def kernel() -> Array64:
        second, first = blocks()
        product: Array64 = np.einsum("gom...,gmc->goc...", second, first)
        return product.reshape(out, *product.shape[2:])

    bias = outer.bias
    if inner.bias.any():
        second, _ = blocks()
        sums = second.reshape(groups, out // groups, middle // groups, -1).sum(3)
        bias = bias + np.einsum("gom,gm->go", sums, inner.bias.reshape(groups, -1)).reshape(-1)
    return replace(
        outer,
        nodes=(*inner.nodes, *outer.nodes),
        shape=(out, inner.channels[0] // groups, *outer.shape[2:]),
        kernel=kernel,
        bias=bias,
        groups=groups,
        multiplies=outer.multiplies + inner.multiplies * middle / out * math.prod(outer.strides),
    )


def _with_pad(x: ir.Value, branch: Branch, workspace: Workspace) -> tuple[ir.Value, Branch]:
    """A Pad with zeros in front of the branch becomes its own padding."""
    pad = x.producer()
    if pad is None or pad.op_type != "Pad" or not is_private(x) or workspace.opset_of(pad) < _PADS_AS_INPUT:
        return x, branch
    view = NodeView(pad, workspace)
    amounts, fill, source = view.integers(1), view.array(2) if view.has(2) else np.zeros(1), view.value(0)
    if amounts is None or fill is None or source is None or view.has(3) or fill.any():
        return x, branch
    rank = len(amounts) // 2
    before, after = amounts[:rank], amounts[rank:]
    if (
        view.string_attribute("mode", "constant") != "constant"
        or rank != len(branch.shape)
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


def _conv(view: NodeView) -> Branch | None:
    weight = view.constant(1)
    bias = view.constant(2) if view.has(2) else None
    if weight is None or (view.has(2) and (bias is None or bias.shape != weight.shape[:1])):
        return None
    kernel = weight.shape[2:]
    pads = resolved_pads(view, kernel)
    if pads is None:
        return None
    ones = [1] * len(kernel)
    return Branch(
        nodes=(view.node,),
        shape=tuple(weight.shape),
        kernel=weight.compute,
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
    branch = _depthwise((view.node,), dims[1], kernel, strides, *pads, float(math.prod(kernel)))
    dilations = view.ints_attribute("dilations")
    return branch if dilations is None else replace(branch, dilations=tuple(dilations))


def _depthwise(
    nodes: tuple[ir.Node, ...],
    channels: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    multiplies: float,
) -> Branch:
    """One that takes the mean over the kernel, channel by channel."""
    shape = (channels, 1, *kernel)
    return Branch(
        nodes=nodes,
        shape=shape,
        kernel=lambda: np.full(shape, 1.0 / math.prod(kernel)),
        bias=np.zeros(channels),
        groups=channels,
        strides=strides,
        dilations=(1,) * len(kernel),
        begin=begin,
        end=end,
        multiplies=multiplies,
    )
