"""Replace every chain of affines by one virtual node."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import epsilon_of
from normfold.recognition.chains import Chain
from normfold.recognition.virtual import SiteRecord, VirtualAffine, make_virtual


def raise_chain(chain: Chain, workspace: Workspace, stands_for: Mapping[ir.Node, tuple[str, ...]]) -> ir.Node:
    """Put a virtual node in the place of the chain's nodes, which are kept, detached, to be put back if
    nothing happens.

    Args:
        chain: what is replaced.
        workspace: its model.
        stands_for: operator types of the original, by nodes that have taken the place of several.
    """
    record = SiteRecord(
        name=chain.y.name or "",
        kind="batchnorm" if any(n.op_type == "BatchNormalization" for n in chain.nodes) else "affine",
        operators=tuple(op_type for n in chain.nodes for op_type in stands_for.get(n, (n.op_type,))),
        statistics=_statistics(chain, workspace),
    )
    y = chain.y
    output = ir.Value(name=y.name, shape=y.shape, type=y.type, doc_string=y.doc_string)
    output.metadata_props.update(y.metadata_props)
    workspace.shapes.copy(y, output)
    content = VirtualAffine(
        chain.affine,
        chain.nodes,
        tuple(tuple(node.inputs) for node in chain.nodes),
        chain.x_slot,
        [record],
        kernel_axis=chain.kernel_axis,
    )
    node = make_virtual(chain.x, output, content)
    last = chain.nodes[-1]
    last.append(node)
    workspace.place(node, workspace.position(last))
    y.replace_all_uses_with(output, replace_graph_outputs=True)
    _detach(chain)
    return node


def remove_identity(chain: Chain) -> None:
    """Let the readers of a chain that does nothing read what it reads."""
    chain.y.replace_all_uses_with(chain.x)
    _detach(chain)


def _detach(chain: Chain) -> None:
    for member in reversed(chain.nodes):
        for slot in range(len(member.inputs)):
            member.replace_input_with(slot, None)
        assert member.graph is not None
        member.graph.remove(member)


def _statistics(chain: Chain, workspace: Workspace) -> dict[str, object] | None:
    for node in chain.nodes:
        if node.op_type != "BatchNormalization":
            continue
        arrays: dict[str, object] = {}
        for name, operand in zip(("scale", "B", "mean", "var"), node.inputs[1:5], strict=True):
            array = workspace.constants.array(operand)
            assert array is not None
            arrays[name] = array.astype(np.float32)
        arrays["epsilon"] = epsilon_of(node)
        arrays["x"] = node.inputs[0].name if node.inputs[0] is not None else None
        return arrays
    return None
