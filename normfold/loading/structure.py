"""Are the graphs of a model well formed: unique names, no dangling reader, no cycle?

ONNX IR specification, "Names Within a Graph" and "Nodes": static single assignment, and nodes in topological
order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from normfold.errors import InputError
from normfold.loading import walk


def check_structure(model: onnx.ModelProto) -> None:
    """Checks the main graph, its subgraphs and the local functions.

    Raises:
        InputError: NF906 (cycle), NF907 (dangling input), NF908 (duplicate name), NF912 (undeclared
            domain) or NF903
            (nodes not in topological order), naming a value.
    """
    _check_graph(model.graph, (), "")
    _check_domains(model.graph.node, model.opset_import)
    for function in model.functions:
        where = f" in function {function.name!r}"
        _check_body(function.node, [set(function.input)], function.output, where)
        _check_domains(function.node, function.opset_import)
    _check_recursion(model.functions)


def _check_graph(graph: onnx.GraphProto, outer: Sequence[set[str]], where: str) -> None:
    own: set[str] = set()
    for kind, names in (
        ("graph inputs", [value.name for value in graph.input]),
        ("initializers", [tensor.name for tensor in graph.initializer]),
    ):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise InputError(f"two {kind} are named {name!r}{where}", code="NF908")
            seen.add(name)
        own |= seen
    _check_body(graph.node, [*outer, own], [value.name for value in graph.output], where)


def _check_body(
    nodes: Sequence[onnx.NodeProto], scopes: list[set[str]], outputs: Iterable[str], where: str
) -> None:
    own = scopes[-1]
    produced = {name for node in nodes for name in node.output if name}
    for index, node in enumerate(nodes):
        for name in node.input:
            if name and not any(name in scope for scope in scopes):
                raise _unavailable(name, index, nodes, where)
        for name in sorted(_captures(node) & produced):
            if not any(name in scope for scope in scopes):
                raise _unavailable(name, index, nodes, where)
        for subgraph in walk.subgraphs(node):
            _check_graph(subgraph, scopes, f" in a subgraph of {_label(node)!r}")
        for name in node.output:
            if not name:
                continue
            if name in own:
                raise InputError(f"two values are named {name!r}{where}", code="NF908")
            own.add(name)
    for name in outputs:
        if not any(name in scope for scope in scopes):
            raise InputError(f"graph output {name!r} is produced by nothing{where}", code="NF907")


def _unavailable(name: str, index: int, nodes: Sequence[onnx.NodeProto], where: str) -> InputError:
    """Says why the input ``name`` of ``nodes[index]`` does not exist yet."""
    reader = _label(nodes[index])
    later = {output for node in nodes[index:] for output in node.output if output}
    if name not in later:
        return InputError(f"input {name!r} of node {reader!r} is produced by nothing{where}", code="NF907")
    on_cycle = _first_on_cycle(nodes)
    if on_cycle is not None:
        return InputError(f"the graph has a cycle through {on_cycle!r}{where}", code="NF906")
    return InputError(
        f"not a valid ONNX model: nodes are not in topological order, {reader!r} stands before the node "
        f"that produces {name!r}{where}",
        code="NF903",
    )


def _first_on_cycle(nodes: Sequence[onnx.NodeProto]) -> str | None:
    """Returns an output name of a node that can never run, by Kahn's algorithm; ``None`` if an order
    exists."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [
        {producer[name] for name in {*node.input, *_captures(node)} if name in producer} for node in nodes
    ]
    readers: dict[int, list[int]] = {}
    for index, needed in enumerate(waiting):
        for source in needed:
            readers.setdefault(source, []).append(index)
    ready = [index for index, needed in enumerate(waiting) if not needed]
    for index in ready:
        for reader in readers.get(index, ()):
            waiting[reader].discard(index)
            if not waiting[reader]:
                ready.append(reader)
    stuck = {index for index, needed in enumerate(waiting) if needed}
    if not stuck:
        return None
    # Walking back from a stuck node over stuck producers must come round: that point is on a cycle.
    current, seen = min(stuck), set()
    while current not in seen:
        seen.add(current)
        current = min(waiting[current] & stuck)
    return _label(nodes[current])


def _captures(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node read and do not define: values of the graphs around."""
    captures: set[str] = set()
    for graph in walk.subgraphs(node):
        inner = list(walk.nodes(graph.node))
        nested = [graph, *(inside for each in inner for inside in walk.subgraphs(each))]
        read = {name for each in inner for name in each.input} | {
            value.name for inside in nested for value in inside.output
        }
        defined = {name for each in inner for name in each.output}
        for inside in nested:
            defined.update(value.name for value in inside.input)
            defined.update(tensor.name for tensor in inside.initializer)
        captures |= read - defined
    return captures


def _label(node: onnx.NodeProto) -> str:
    return next((name for name in node.output if name), node.name or node.op_type)


def _check_domains(nodes: Iterable[onnx.NodeProto], imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    declared = {_domain(opset.domain) for opset in imports}
    for node in walk.nodes(nodes):
        if _domain(node.domain) not in declared:
            raise InputError(
                f"node {_label(node)!r} uses {node.op_type} of domain {node.domain or 'ai.onnx'!r}, "
                "for which no operator set is imported",
                code="NF912",
            )


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _check_recursion(functions: Iterable[onnx.FunctionProto]) -> None:
    bodies = {(_domain(function.domain), function.name): function for function in functions}
    calls = {
        key: {
            target
            for node in walk.nodes(function.node)
            if (target := (_domain(node.domain), node.op_type)) in bodies
        }
        for key, function in bodies.items()
    }
    # A function is sound once everything it calls is; what is never found sound calls itself.
    while sound := [key for key, targets in calls.items() if not targets]:
        for key in sound:
            del calls[key]
        for targets in calls.values():
            targets.difference_update(sound)
    if calls:
        _, name = min(calls)
        raise InputError(f"local function {name!r} calls itself", code="NF906")
