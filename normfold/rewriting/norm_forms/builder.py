"""Puts nodes in the place of a normalisation, and removes the old ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64, along
from normfold.preparation.constant64 import Constant64
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm
from normfold.rewriting.initializers import integer_initializer, new_initializer, remove_unread

# Far below the distance of two nodes of the original order.
_STEP = 1e-6
_EPSILON = float(np.float32(1e-5))


Attributes = Mapping[str, int | float | Sequence[int] | ir.Attr]


@dataclass
class Emitted:
    """What a substitution made.

    Attributes:
        nodes: the new nodes, in order.
        affine: those of them that are Mul and Add of scale and shift.
        y: what took the place of the norm's y.
    """

    y: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    affine: list[ir.Node] = field(default_factory=list)


class Builder:
    """Emits in front of the last node of a norm.

    Attributes:
        norm: what is replaced.
        workspace: its model.
        dtype: type of the values.
        dims: dimensions of x, its channels as axis 1 wherever the norm has them.
    """

    def __init__(self, norm: Norm, workspace: Workspace) -> None:
        anchor = norm.y.producer()
        dims, dtype = workspace.dims(norm.x), workspace.shapes.dtype(norm.x)
        assert anchor is not None and anchor.graph is not None and dims is not None and dtype is not None
        self.norm, self.workspace = norm, workspace
        self.channels_last = norm.channel_axis != 1
        self.dims: Dims = (dims[0], dims[-1], *dims[1:-1]) if self.channels_last else dims
        self.dtype = dtype
        self._anchor, self._graph = anchor, anchor.graph
        self._made = Emitted(norm.y)

    @functools.cached_property
    def x(self) -> ir.Value:
        """x with its channels as axis 1."""
        if not self.channels_last:
            return self.norm.x
        order = (0, len(self.dims) - 1, *range(1, len(self.dims) - 1))
        return self.op("Transpose", [self.norm.x], self.dims, {"perm": order})

    def laid_out(self, value: ir.Value) -> ir.Value:
        """A value with its channels as axis 1 in the layout of y."""
        if not self.channels_last:
            return value
        order = (0, *range(2, len(self.dims)), 1)
        return self.op("Transpose", [value], tuple(self.dims[axis] for axis in order), {"perm": order})

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        dims: Dims | None,
        attributes: Attributes | None = None,
        *,
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        """One node; its output's name says what it is of."""
        node = ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain)
        self._anchor.prepend(node)
        made = self._made.nodes
        self.workspace.place(node, self.workspace.position(self._anchor) - 0.5 + len(made) * _STEP)
        made.append(node)
        value = node.outputs[0]
        value.name = self.workspace.fresh_name(f"{self.norm.y.name}_{op_type.lower()}")
        value.type = ir.TensorType(self.dtype if dtype is None else dtype)
        self.workspace.shapes.set(value, dims, self.dtype if dtype is None else dtype)
        return value

    def stashed(self, attributes: Attributes) -> Attributes:
        """Attributes of an operator that computes statistics in float32, whatever x is, unless it is told."""
        return (
            {**attributes, "stash_type": int(self.dtype)} if self.dtype == ir.DataType.DOUBLE else attributes
        )

    def constant(self, values: Array64, stem: str, dtype: ir.DataType | None = None) -> ir.Value:
        """An initializer, by default of the norm's type, rounded once, when it is written."""
        name = f"{self.norm.y.name}_{stem}"
        return new_initializer(Constant64.of(values, dtype or self.dtype), name, self._graph, self.workspace)

    def integers(self, values: Sequence[int], stem: str) -> ir.Value:
        return integer_initializer(values, f"{self.norm.y.name}_{stem}", self._graph, self.workspace)

    def grouped(self) -> ir.Value:
        """x as [N, G, elements of a group]."""
        target = self.integers([0, self.norm.groups, -1], "groups")
        sizes = [size for size in self.dims[2:] if isinstance(size, int)]
        last = int(np.prod(sizes)) * self.norm.channels // self.norm.groups
        static = len(sizes) == len(self.dims) - 2
        dims = (self.dims[0], self.norm.groups, last if static else None)
        return self.op("Reshape", [self.x, target], dims)

    def ungrouped(self, value: ir.Value) -> ir.Value:
        """[N, G, elements of a group] as x."""
        spatial = self.dims[2:]
        unknown = sum(not isinstance(size, int) for size in spatial)
        if unknown > 1:
            shape = self.op("Shape", [self.x], (len(self.dims),), dtype=ir.DataType.INT64)
        else:
            sizes = [size if isinstance(size, int) else -1 for size in spatial]
            shape = self.integers([0, self.norm.channels, *sizes], "shape")
        return self.op("Reshape", [value, shape], self.dims)

    def mul_add(self, value: ir.Value) -> ir.Value:
        """Scale and shift as Mul and Add, where there are any."""
        rank = len(self.dims)
        for op_type, values, neutral in (("Mul", self.norm.scale, 1.0), ("Add", self.norm.shift, 0.0)):
            if (values != neutral).any():
                constant = self.constant(along(values, 1, rank)[0] if rank > 1 else values, _STEMS[op_type])
                value = self.op(op_type, [value, constant], self.dims)
                self._made.affine.append(self._made.nodes[-1])
        return value

    def batchnorm(self, value: ir.Value) -> ir.Value:
        """Scale and shift as one BatchNormalization of mean 0; one of them alone as Mul or Add."""
        norm = self.norm
        if len(self.dims) < 3 or not ((norm.scale != 1.0).any() and (norm.shift != 0.0).any()):
            return self.mul_add(value)
        variance = Constant64.of(np.full(norm.channels, 1.0 - _EPSILON), self.dtype).rounded()
        exact = variance.astype(np.float64)
        operands = [
            value,
            self.constant(norm.scale * np.sqrt(exact + _EPSILON), "scale"),
            self.constant(norm.shift, "bias"),
            self.constant(np.zeros(norm.channels), "mean"),
            self.constant(exact, "var"),
        ]
        return self.op("BatchNormalization", operands, self.dims, {"epsilon": _EPSILON})

    def silu(self, value: ir.Value) -> ir.Value:
        return self.op("Mul", [value, self.op("Sigmoid", [value], self.dims)], self.dims)

    def finish(self, result: ir.Value) -> Emitted:
        """Let ``result`` take over name and readers of y, and remove what led to y."""
        y = self.norm.y
        name = y.name
        y.replace_all_uses_with(result, replace_graph_outputs=True)
        result.shape, result.type, result.doc_string = y.shape, y.type, y.doc_string
        result.metadata_props.update(y.metadata_props)
        self._keep_sizes(y, result)
        self.workspace.shapes.copy(y, result)
        y.name = self.workspace.fresh_name(f"{name}_replaced")
        result.name = name
        # With the expressions of shapes that only the removed nodes read.
        remove_unread(self.norm.nodes, spared=self._made.nodes)
        self._made.y = result
        return self._made

    def _keep_sizes(self, y: ir.Value, result: ir.Value) -> None:
        """State sizes of y that x does not tell: the targets of the Reshapes that told them are gone."""
        told, known = self.workspace.dims(self.norm.x) or (), self.workspace.dims(y) or ()
        more = any(isinstance(b, int) and not isinstance(a, int) for a, b in zip(told, known, strict=False))
        if more and not result.is_graph_output():
            result.shape = ir.Shape([size if isinstance(size, int) else None for size in known])
            result.type = ir.TensorType(self.dtype)


_STEMS = {"Mul": "scale", "Add": "shift"}
