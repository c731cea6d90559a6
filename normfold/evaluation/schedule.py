"""What to compute, in which precision, and when to let go of it.

A value may be wanted twice in a float64 evaluation: promoted, for the computation, and native, for a shape,
size, axis or index that depends on it. A request is a pair (value, native).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from normfold.evaluation.dtypes import promotes
from normfold.evaluation.promotion import native_slots

Request = tuple[ir.Value, bool]


@dataclass
class Step:
    """One node to evaluate: natively, promoted, or both, native first.

    Attributes:
        node: the node.
        precisions: the ``native`` flags to evaluate it with.
        release: values nobody reads after it.
        kept: input slots that are always native.
        nested: whether the node holds graphs.
    """

    node: ir.Node
    precisions: tuple[bool, ...]
    release: list[ir.Value] = field(default_factory=list)
    kept: frozenset[int] = frozenset()
    nested: bool = False


@dataclass
class Schedule:
    """Steps in graph order, and the requests that must be met from outside: inputs, initializers,
    captures.
    """

    steps: list[Step]
    outside: list[Request]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.value


def has_subgraphs(node: ir.Node) -> bool:
    """Whether any attribute of the node holds a graph."""
    return any(True for _ in subgraphs(node))


class Scheduler:
    """Makes and caches schedules for the graphs and functions of one model."""

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._inner: dict[tuple[int, bool], Schedule] = {}

    def function_of(self, node: ir.Node) -> ir.Function | None:
        """The local function that a node calls."""
        return self._functions.get(node.op_identifier())

    def inner(self, graph: ir.Graph | ir.Function, native: bool) -> Schedule:
        """The schedule of a subgraph or function body with all its outputs in one precision."""
        key = (id(graph), native)
        if key not in self._inner:
            self._inner[key] = self.schedule(graph, [(v, native) for v in graph.outputs if v is not None], ())
        return self._inner[key]

    def schedule(
        self, graph: ir.Graph | ir.Function, wanted: Iterable[Request], fed: Collection[ir.Value]
    ) -> Schedule:
        """Walk the graph backwards from the wanted requests, stopping at fed values."""
        wanted = list(wanted)
        requested: dict[Request, None] = dict.fromkeys(wanted)
        steps: list[Step] = []
        made: set[ir.Value] = set()
        reads: list[list[Request]] = []
        for node in reversed(graph):
            precisions = tuple(
                native
                for native in (True, False)
                if any((output, native) in requested for output in node.outputs if output not in fed)
            )
            if len(precisions) == 2 and not any(
                (output, False) in requested and _may_promote(output) for output in node.outputs
            ):
                precisions = (True,)
            if not precisions:
                continue
            needs = list(dict.fromkeys(need for native in precisions for need in self._needs(node, native)))
            requested.update(dict.fromkeys(needs))
            slots = native_slots(node.domain, node.op_type)
            steps.append(Step(node, precisions, kept=slots, nested=has_subgraphs(node)))
            reads.append(needs)
            made.update(output for output in node.outputs if output not in fed)
        steps.reverse()
        reads.reverse()
        kept = {value for value, _ in wanted}
        last: dict[ir.Value, Step] = {}
        for step, needs in zip(steps, reads, strict=True):
            last.update((value, step) for value in step.node.outputs)
            last.update((value, step) for value, _ in needs)
        for value, step in last.items():
            if value not in kept:
                step.release.append(value)
        return Schedule(steps, [request for request in requested if request[0] not in made])

    def _needs(self, node: ir.Node, native: bool) -> Iterator[Request]:
        function = self.function_of(node)
        if function is not None:
            actual = dict(zip(function.inputs, node.inputs, strict=False))
            for formal, formal_native in self.inner(function, native).outside:
                if (value := actual.get(formal)) is not None:
                    yield value, formal_native
            return
        kept = native_slots(node.domain, node.op_type)
        for index, operand in enumerate(node.inputs):
            if operand is not None:
                yield operand, native or index in kept
        for graph in subgraphs(node):
            own = {*graph.inputs, *graph.initializers.values()}
            for value, value_native in self.inner(graph, native).outside:
                if value not in own:
                    yield value, value_native


def _may_promote(value: ir.Value) -> bool:
    """False only where the value is known not to be floating, so that both precisions are one."""
    return value.dtype is None or promotes(value.dtype)
