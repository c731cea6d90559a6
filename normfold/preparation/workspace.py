"""The working copy of a model, with everything the planner may ask about it."""

from __future__ import annotations

import onnx_ir as ir

from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.constants import Constants
from normfold.preparation.graphs import graphs_of
from normfold.preparation.inference import infer_shapes
from normfold.preparation.names import FreshNames
from normfold.preparation.shapes import Dims, Shapes


class Workspace:
    """A model being folded: its graphs, constants, shapes and the order of its nodes.

    Only ``normfold.rewriting`` changes it.

    Attributes:
        fused: nodes that runtimes recognise as parts of a larger kernel, found by ``recognition.idioms``.
        sealed: values inside of normalisations, past which an affine may go, but where none may be put.
    """

    def __init__(self, model: ir.Model, *, freeze_initializers: bool = False) -> None:
        self.model = model
        self.opsets = dict(model.opset_imports)
        self.overridable = _overridable(model, freeze_initializers)
        self.shapes = Shapes()
        self.constants = Constants(self.overridable, self.opsets, self.shapes.dtype, self.shapes.dims)
        infer_shapes(model, self.shapes, self.constants)
        self.fused: set[ir.Node] = set()
        self.sealed: set[ir.Value] = set()
        self._position: dict[ir.Node, float] = {}
        for graph in graphs_of(model):
            for index, node in enumerate(graph):
                self._position[node] = float(index)
        self._names = FreshNames(model)

    @property
    def opset(self) -> int:
        return self.opsets.get("", self.opsets.get("ai.onnx", 1))

    def opset_of(self, node: ir.Node) -> int:
        """The opset that a node is to be read by: the model's, unless it keeps the one it came with."""
        return self.opset if node.version is None else node.version

    def dims(self, value: ir.Value) -> Dims | None:
        return self.shapes.dims(value)

    def is_float(self, value: ir.Value) -> bool:
        return self.shapes.dtype(value) in FLOAT_TYPES

    def position(self, node: ir.Node) -> float:
        """Place in the topological order of the node's own graph."""
        return self._position[node]

    def place(self, node: ir.Node, position: float) -> None:
        self._position[node] = position

    def fresh_name(self, stem: str) -> str:
        """A value name that nothing in the model has."""
        return self._names.take(stem)


def _overridable(model: ir.Model, freeze: bool) -> frozenset[ir.Value]:
    """Initializers that are also graph inputs: defaults that a caller may replace, from IR version 4 on.

    Before, every initializer had to be listed as an input, and runtimes treat them as constants.
    """
    if freeze or (model.ir_version is not None and model.ir_version < 4):
        return frozenset()
    return frozenset(v for v in model.graph.inputs if v.is_initializer())
