"""Branches that no input takes: both models run with the conditions inverted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from normfold.inputs.drawing import Arrays
from normfold.verification.graph_index import STANDARD_DOMAINS, GraphIndex, first_output


def conditions(original: GraphIndex, folded: GraphIndex) -> dict[str, str]:
    """Conditions of the Ifs in the main graph that both models have.

    Args:
        original: the original.
        folded: the other model; values of the same name mean the same.

    Returns:
        Name of the condition by the first output of the If; without conditions that no input can change.
    """
    return {
        name: original.keys[condition][1]
        for name, node in _ifs(original.model).items()
        if (condition := node.inputs[0]) in original.keys
        and condition not in original.constants
        and name in _ifs(folded.model)
    }


def untaken(wanted: Mapping[str, str], runs: Sequence[Arrays]) -> list[str]:
    """The Ifs, by their first outputs, of which a branch was never taken.

    Args:
        wanted: names of conditions, as :func:`conditions` gives them.
        runs: the conditions in each run.
    """
    return [
        name
        for name, condition in wanted.items()
        if len({bool(np.asarray(run[condition]).reshape(-1)[0]) for run in runs}) < 2
    ]


def inverted(model: ir.Model, ifs: Collection[str]) -> ir.Model:
    """A copy in which some Ifs take the other branch.

    Args:
        model: the model; not changed.
        ifs: first outputs of the Ifs.
    """
    copy = model.clone()
    for name, node in _ifs(copy).items():
        if name not in ifs:
            continue
        condition = node.inputs[0]
        assert condition is not None
        opposite = ir.Node("", "Not", [condition])
        opposite.outputs[0].name = f"{condition.name}~not~{name}"
        copy.graph.insert_before(node, opposite)
        node.replace_input_with(0, opposite.outputs[0])
    return copy


def same_branches(original: ir.Model, folded: ir.Model, name: str) -> bool:
    """Whether an If is the same in both models, names and contents included."""
    first, second = (
        ir.to_proto(_ifs(model)[name]).SerializeToString(deterministic=True) for model in (original, folded)
    )
    return bool(first == second)


def _ifs(model: ir.Model) -> dict[str, ir.Node]:
    return {
        name: node
        for node in model.graph
        if node.op_type == "If"
        and node.domain in STANDARD_DOMAINS
        and (name := first_output(node)) is not None
    }
