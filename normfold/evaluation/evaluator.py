"""Evaluation of whole models, in float64 or in their own types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation.control_flow import run_if, run_loop, run_scan, run_sequence_map
from normfold.evaluation.deadline import check_deadline
from normfold.evaluation.dtypes import Array, as_value, cast_like, is_floating, promote
from normfold.evaluation.errors import NotCovered
from normfold.evaluation.frame import UNALTERED, UNWATCHED, Alterations, Frame, Watch, demote
from normfold.evaluation.nodes import Operation, Precision, resolve
from normfold.evaluation.schedule import Request, Schedule, Scheduler, Step, has_subgraphs

Observer = Callable[[str, Array], None]


@dataclass
class _Plan:
    """What to do for one choice of outputs.

    Attributes:
        schedule: all of it.
        remaining: its steps but for those whose results are kept.
        kept: constants, and what steps make of them alone.
    """

    schedule: Schedule
    remaining: list[Step]
    kept: dict[Request, Any] = field(default_factory=dict)


class Evaluator:
    """Evaluates a model, node by node, computing only what the wanted outputs need.

    Args:
        graph_or_model: the model. It is not changed, must not change while the evaluator lives, and its
            weights are read when first needed.
        precision: ``float64`` promotes every floating value to double except what decides a shape, size,
            axis or
            index and operands whose schema has no double (see ``promotion``); Cast to a float type is Cast
            to double. ``native`` keeps the model's types.
        constants: replacements of initializers by name, each a function that returns the tensor.
        keep_constants: hold on to constants, and to what nodes make of them alone, from the first run on: for
            small models that run often.
    """

    def __init__(
        self,
        graph_or_model: ir.Model,
        *,
        precision: Precision = "float64",
        constants: Mapping[str, Callable[[], Array]] | None = None,
        keep_constants: bool = False,
    ) -> None:
        self._model = graph_or_model
        self._graph = graph_or_model.graph
        self._native = precision == "native"
        self._constants = dict(constants or {})
        self._keep_constants = keep_constants
        self._scheduler = Scheduler(graph_or_model)
        self._plans: dict[tuple[tuple[str, ...], frozenset[str]], _Plan] = {}
        self._operations: dict[ir.Node, Operation] = {}
        self._values = {
            value.name: value
            for value in (
                *self._graph.inputs,
                *self._graph.initializers.values(),
                *(output for node in self._graph for output in node.outputs),
            )
            if value.name
        }

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        feed: Mapping[str, Array] | None = None,
        observe: Observer | None = None,
        altered: Alterations = UNALTERED,
        watch: Watch = UNWATCHED,
    ) -> dict[str, Any]:
        """Evaluate the model.

        Args:
            inputs: arrays by graph input name; one that has an initializer may be left out.
            outputs: names of the values wanted, of the main graph; by default the graph outputs.
            feed: values of the main graph to use instead of computing them, in the model's own types.
            observe: called with the name and content of every computed value of the main graph, in graph
                order.
            altered: what nodes find instead of what the model says.
            watch: what is told the first operand of nodes, those in bodies of If, Loop, Scan and local
                functions included, each time that they run.

        Returns:
            The wanted values by name. In float64 evaluation floating ones are float64.

        Raises:
            NotCovered: if a needed node is not covered.
            DeadlineExceeded: if a deadline is set and passes.
            KeyError: if an output, fed value or input is not one of the model's, or a needed input is
                missing.
        """
        names = list(outputs) if outputs is not None else [str(v.name) for v in self._graph.outputs]
        wanted = [(self._values[name], self._native) for name in names]
        fed = {self._values[name]: content for name, content in (feed or {}).items()}
        key = (tuple(names), frozenset(feed or ()))
        if key not in self._plans:
            self._plans[key] = self._planned(self._scheduler.schedule(self._graph, wanted, fed.keys()))
        plan = self._plans[key]
        frame = self._frame(values=plan.kept, altered=altered, watch=watch)
        for name, content in inputs.items():
            self._provide(frame, self._values[name], content)
        for value, content in fed.items():
            self._provide(frame, value, content)
        # An alteration may be of what makes a constant.
        steps = plan.remaining if altered is UNALTERED else plan.schedule.steps
        self._execute(steps, frame, fed.keys(), observe)
        return {name: frame.get(*request) for name, request in zip(names, wanted, strict=True)}

    def _frame(self, **state: Any) -> Frame:
        return Frame(self._graph, self._model.opset_imports, self._initializer, **state)

    def _planned(self, schedule: Schedule) -> _Plan:
        """The plan of a schedule, its constants computed where they are to be kept."""
        plan = _Plan(schedule, schedule.steps)
        if not self._keep_constants:
            return plan
        constants = self._constant_values()
        frame = self._frame()
        made = [step for step in schedule.steps if constants.issuperset(step.node.outputs)]
        for value, native in schedule.outside:
            if value in constants:
                frame.get(value, native)
        self._execute([dataclasses.replace(step, release=[]) for step in made], frame)
        plan.kept = frame.values
        plan.remaining = [step for step in schedule.steps if not constants.issuperset(step.node.outputs)]
        return plan

    def _constant_values(self) -> set[ir.Value]:
        """Values of the main graph that no input can change."""
        found = set(self._graph.initializers.values()).difference(self._graph.inputs)
        for node in self._graph:
            present = [value for value in node.inputs if value is not None]
            literal = node.op_type == "Constant" and not node.domain
            if literal or (present and found.issuperset(present) and not has_subgraphs(node)):
                found.update(node.outputs)
        return found

    def _provide(self, frame: Frame, value: ir.Value, content: Any) -> None:
        content = as_value(content)
        frame.store(value, True, demote(content, value))
        if not self._native:
            frame.store(value, False, promote(content))

    def _initializer(self, value: ir.Value, native: bool) -> Any:
        stored = value.const_value
        assert stored is not None
        override = self._constants.get(value.name or "")
        if override is None:
            content = stored.numpy()
            return content if native else promote(content)
        content = override()
        return cast_like(content, stored.dtype.numpy()) if native else promote(content)

    def _execute(
        self, steps: Sequence[Step], frame: Frame, fed: Any = (), observe: Observer | None = None
    ) -> None:
        for step in steps:
            check_deadline()
            results = self._evaluate(step, frame)
            for index, output in enumerate(step.node.outputs):
                if output in fed:
                    continue
                for native, contents in results.items():
                    frame.store(output, native, contents[index])
                content = results[min(results)][index]
                if observe is not None and output.name and content is not None:
                    observe(output.name, content)
            frame.release(step.release)

    def _evaluate(self, step: Step, frame: Frame) -> dict[bool, list[Any]]:
        """Results by ``native`` flag. What is not floating is computed once, natively, where both are
        wanted.
        """
        results: dict[bool, list[Any]] = {}
        for native in step.precisions:
            contents = self._evaluate_in(step, frame, native)
            if native and len(step.precisions) == 2 and not any(_has_floating(c) for c in contents):
                return {True: contents, False: contents}
            if not native and True in results:
                contents = [
                    c if _has_floating(c) else n for c, n in zip(contents, results[True], strict=True)
                ]
            results[native] = contents
        return results

    def _evaluate_in(self, step: Step, frame: Frame, native: bool) -> list[Any]:
        node = step.node
        function = self._scheduler.function_of(node)
        if function is not None:
            return self._call(function, node, frame, native)
        operands = [
            None if operand is None else frame.get(operand, native or slot in step.kept)
            for slot, operand in enumerate(node.inputs)
        ]
        altered = frame.altered
        if altered is not UNALTERED:
            operands = [altered.operands.get((node, slot), operand) for slot, operand in enumerate(operands)]
        if step.nested:
            return self._control_flow(node, operands, frame, native)
        if not native and node in frame.watch and (first := operands[0]) is not None:
            frame.watch[node](first)
        operation = self._operation(node, frame)
        if node in altered.attributes:
            attributes = {**operation.attributes, **altered.attributes[node]}
            operation = dataclasses.replace(operation, attributes=attributes)
        return operation(operands, double=not native)

    def _operation(self, node: ir.Node, frame: Frame) -> Operation:
        """The resolved node; in a function it depends on the call."""
        if frame.bindings is not None:
            return resolve(node, frame.opsets, frame.bindings)
        if node not in self._operations:
            self._operations[node] = resolve(node, frame.opsets)
        return self._operations[node]

    def _call(self, function: ir.Function, node: ir.Node, outer: Frame, native: bool) -> list[Any]:
        bindings = {
            name: default for name, default in function.attributes.items() if default.value is not None
        }
        for name, attribute in node.attributes.items():
            if not attribute.is_ref():
                bindings[name] = attribute
            elif outer.bindings and (bound := outer.bindings.get(attribute.ref_attr_name or "")):
                bindings[name] = bound
        frame = Frame(
            function, function.opset_imports, self._initializer, bindings=bindings, watch=outer.watch
        )
        schedule = self._scheduler.inner(function, native)
        actual = dict(zip(function.inputs, node.inputs, strict=False))
        for formal, formal_native in schedule.outside:
            operand = actual.get(formal)
            content = None if operand is None else outer.get(operand, formal_native)
            frame.store(formal, formal_native, content)
        self._execute(schedule.steps, frame)
        return [frame.get(value, native) for value in function.outputs]

    def _control_flow(self, node: ir.Node, operands: list[Any], outer: Frame, native: bool) -> list[Any]:
        def run(body: ir.Graph, contents: Sequence[Any]) -> list[Any]:
            frame = Frame(body, outer.opsets, self._initializer, outer, outer.bindings, watch=outer.watch)
            for formal, content in zip(body.inputs, contents, strict=True):
                frame.store(formal, native, content)
            self._execute(self._scheduler.inner(body, native).steps, frame)
            return [frame.get(value, native) for value in body.outputs]

        match (node.domain, node.op_type):
            case "", "If":
                return run_if(node, operands, run)
            case "", "Loop":
                return run_loop(node, operands, run)
            case "", "Scan":
                return run_scan(node, operands, run, node.version or outer.opsets.get("", 0))
            case "", "SequenceMap":
                return run_sequence_map(node, operands, run)
        raise NotCovered(node.op_type, node.domain, "an operator with a subgraph that is not covered")


def _has_floating(content: Any) -> bool:
    if isinstance(content, list):
        return any(_has_floating(item) for item in content)
    return isinstance(content, np.ndarray) and is_floating(content.dtype)
