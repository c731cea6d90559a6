"""Names of values that a model does not have yet."""

from __future__ import annotations

import onnx_ir as ir

from normfold.preparation.graphs import graphs_of, named_values


class FreshNames:
    """Gives out names that no value of the model has, its subgraphs included, and none twice."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = {value.name for graph in graphs_of(model) for value in named_values(graph)}

    def take(self, stem: str) -> str:
        """``stem`` itself, or with the first number that makes it free."""
        name, number = stem, 1
        while name in self._taken:
            name = f"{stem}_{number}"
            number += 1
        self._taken.add(name)
        return name
