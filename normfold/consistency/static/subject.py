"""What all static checks look at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.layers import NormLayer, read_layers
from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace

_STANDARD = ("", "ai.onnx")
_SHOWN = 6


class Subject:
    """A model under examination.

    Attributes:
        workspace: its constants and shapes.
        layers: its BatchNormalizations with constant parameters.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.layers = read_layers(workspace)

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """Standard nodes in graph order, subgraphs included; of every type where none is named."""
        for graph in graphs_of(self.workspace.model):
            for node in graph:
                if node.domain in _STANDARD and (not op_types or node.op_type in op_types):
                    yield node

    @cached_property
    def evaluated(self) -> list[NormLayer]:
        """Layers that evaluate with statistics of training.

        Left out are those in training mode, and affines that normfold itself spells as a BatchNormalization:
        with mean 0 and variance 1 − epsilon they compute ``γ·x + β``, and have no statistics.
        """
        return [layer for layer in self.layers if not layer.training and not layer.affine]

    @cached_property
    def by_node(self) -> dict[ir.Node, NormLayer]:
        """The layers of ``evaluated``, by their node."""
        return {layer.node: layer for layer in self.evaluated}

    def array(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        return self.workspace.constants.array(value)

    def scalar(self, value: ir.Value | None) -> float | None:
        """A floating constant of one element."""
        array = self.array(value)
        if array is None or array.size != 1 or array.dtype != np.float64:
            return None
        return float(array.reshape(-1)[0])

    def dims(self, value: ir.Value | None) -> tuple[int | str | None, ...] | None:
        return None if value is None else self.workspace.dims(value)


def is_op(node: ir.Node | None, *op_types: str) -> TypeGuard[ir.Node]:
    """Whether the node is one of the standard operators named."""
    return node is not None and node.domain in _STANDARD and node.op_type in op_types


def maker(value: ir.Value | None) -> ir.Node | None:
    """The node that produces a value."""
    return None if value is None else value.producer()


def only_reader(value: ir.Value | None) -> ir.Node | None:
    """The node that alone reads a value, once."""
    if value is None or value.is_graph_output():
        return None
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 else None


def channel_list(mask: np.ndarray[Any, Any]) -> str:
    """``3 of 64 channels (5, 9, 11)``."""
    indices = np.flatnonzero(mask)
    if mask.size == 1:
        return "its one channel"
    if indices.size == mask.size:
        return f"all {mask.size} channels"
    shown = ", ".join(str(index) for index in indices[:_SHOWN])
    more = ", …" if indices.size > _SHOWN else ""
    return f"{indices.size} of {mask.size} channels ({shown}{more})"


def name_list(names: list[str]) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > _SHOWN else "")


def largest(values: Array64) -> float:
    """The largest magnitude, 0 where there is none."""
    return float(np.max(np.abs(values), initial=0.0))
