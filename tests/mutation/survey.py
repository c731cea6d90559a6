"""What the tests do to the unbroken code: the lines that each of them runs, and the models that it folds.

``python -m tests.mutation.survey FILE`` writes a ``Survey``: in a process of its own, because a trial must
never have imported what its mutant changes.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import pickle
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "normfold"
TESTS = (
    "tests/planning",
    "tests/recognition",
    "tests/rewriting",
    "tests/preparation",
    "tests/consistency/test_restoration.py",
    "tests/consistency/test_drift.py",
    "tests/test_affine.py",
    "tests/folding",
    "tests/test_traps.py",
    "tests/test_fuzz.py",
    "tests/test_norm_nets.py",
)
"""Those that look at folds; the tests of the proof, of files and of commands look elsewhere."""

_LARGEST = 100_000
"""Bytes of a model that is kept; a mutant is tried on small ones."""

_TAKEN = frozenset(n * (n + 1) // 2 for n in range(1, 13))
"""Which of a test's questions to one node become models: some test asks hundreds."""

Lines = int
"""A set of lines of normfold as a bit for each of them; see ``numbered``."""


@dataclass(frozen=True)
class Asked:
    """A test: what it is called, how long it takes, the lines that it runs."""

    name: str
    seconds: float
    lines: Lines


@dataclass(frozen=True)
class Folded:
    """A model that a test folds, serialised, the options that it gives, and the lines of the fold."""

    test: str
    model: bytes
    options: dict[str, Any]
    lines: Lines


@dataclass
class Survey:
    """All of it.

    Attributes:
        tests: every test that passed, the shortest first.
        models: every model once, the smallest first.
    """

    tests: list[Asked] = field(default_factory=list)
    models: list[Folded] = field(default_factory=list)

    def __add__(self, other: Survey) -> Survey:
        tests = sorted([*self.tests, *other.tests], key=lambda test: test.seconds)
        models = {folded.model: folded for folded in (*self.models, *other.models)}
        return Survey(tests, sorted(models.values(), key=lambda folded: len(folded.model)))


@functools.cache
def _first_numbers() -> dict[str, int]:
    """The number of each file's first line; lines are counted through all files."""
    firsts, number = {}, 0
    for path in sorted(PACKAGE.rglob("*.py")):
        firsts[str(path.relative_to(PACKAGE))] = number
        number += path.read_text().count("\n") + 2
    return firsts


def numbered(path: str, lines: Iterable[int]) -> Lines:
    """The set of those lines of the file ``normfold/<path>``."""
    first = _first_numbers()[path]
    return functools.reduce(operator.or_, (1 << first + line for line in lines), 0)


class _Tracer:
    """Notes the lines of normfold that run, for whoever is listening."""

    def __init__(self) -> None:
        self._listeners: list[set[int]] = []
        self._firsts: dict[Any, int | None] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[set[int]]:
        found: set[int] = set()
        self._listeners.append(found)
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield found
        finally:
            sys.settrace(before)
            self._listeners.pop()
            if self._listeners:
                self._listeners[-1] |= found

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code not in self._firsts:
            name = code.co_filename
            inside = name.startswith(str(PACKAGE))
            self._firsts[code] = _first_numbers()[str(Path(name).relative_to(PACKAGE))] if inside else None
        first = self._firsts[code]
        if first is None:
            return None
        found = self._listeners[-1]

        def line(frame: FrameType, event: str, _: Any) -> Any:
            found.add(first + frame.f_lineno)
            return line

        return line


def _mask(found: set[int]) -> Lines:
    bits = bytearray(max(found, default=0) // 8 + 1)
    for number in found:
        bits[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(bits, "little")


class _Surveyor:
    """The plugin of pytest that looks on."""

    def __init__(self) -> None:
        self.tracer = _Tracer()
        self.tests: list[Asked] = []
        self.models: dict[bytes, Folded] = {}
        self._test = ""
        self._set_up: dict[str, set[int]] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        with self.tracer.listening() as found:
            yield
        # What a fixture of the file runs, it runs for the first test only.
        self._set_up.setdefault(item.nodeid.partition("::")[0], set()).update(found)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        begun = time.process_time()
        with self.tracer.listening() as found:
            yield
        self.tests.append(Asked(item.nodeid, time.process_time() - begun, _mask(found)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def passed(self) -> list[Asked]:
        """The tests, the shortest first, each with what fixtures run for its file."""
        shared = {file: _mask(found) for file, found in self._set_up.items()}
        found = [
            Asked(test.name, test.seconds, test.lines | shared[test.name.partition("::")[0]])
            for test in self.tests
            if test.name not in self._failed
        ]
        return sorted(found, key=lambda test: test.seconds)

    def watch(self) -> None:
        """Notes the models that are folded from now on, and those that ask one node for an affine."""
        from normfold import folding
        from tests.planning.operators import conftest

        fold = folding.fold_model

        def folds(model: ir.Model, options: Any = None, **more: Any) -> Any:
            with self.tracer.listening() as found:
                folded = fold(model, options, **more)
            self._note(model, options, found)
            return folded

        folding.fold_model = folds
        for name in ("backward", "forward"):
            self._watch_node(conftest.OneNode, name, folds)

    def _watch_node(self, one: Any, name: str, folds: Callable[[ir.Model], Any]) -> None:
        asks = getattr(one, name)
        asked_by: Counter[str] = Counter()

        def asked(node: Any, affines: Any, *more: Any, **named: Any) -> Any:
            asked_by[self._test] += 1
            if asked_by[self._test] not in _TAKEN:
                return asks(node, affines, *more, **named)
            by_slot = affines if isinstance(affines, Mapping) else {0: affines}
            model = between_affines(node.model, by_slot, behind=name == "backward")
            with contextlib.suppress(onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
                onnx.checker.check_model(model, full_check=True)
                folds(ir.from_proto(model))
            return asks(node, affines, *more, **named)

        setattr(one, name, asked)

    def _note(self, model: ir.Model, options: Any, found: set[int]) -> None:
        weights = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
        if sum(weight.nbytes for weight in weights) > _LARGEST:
            return
        data = ir.to_proto(model).SerializeToString(deterministic=True)
        if len(data) > _LARGEST or data in self.models:
            return
        said = {name: value for name, value in asdict(options).items() if value} if options else {}
        self.models[data] = Folded(self._test, data, said, _mask(found))


def between_affines(model: onnx.ModelProto, affines: Mapping[int, Any], *, behind: bool) -> onnx.ModelProto:
    """The one node of ``model`` with ``affines`` at its outputs (``behind``) or inputs, and other affines on
    the far side, which can take in what crosses it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    (node,) = graph.node
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    del graph.node[:]
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for slot, name in enumerate(node.input):
        own = None if behind else affines.get(slot)
        if name not in inputs or not _is_float(inputs[name]):
            continue
        if own is None and not behind:
            continue
        node.input[slot] = f"{name}_{slot}"
        before += _affine(graph, inputs[name], name, node.input[slot], own)
    for slot, name in enumerate(node.output):
        own = affines.get(slot) if behind else None
        if name not in outputs or not _is_float(outputs[name]) or (behind and own is None):
            continue
        node.output[slot] = f"{name}_made"
        after += _affine(graph, outputs[name], node.output[slot], name, own)
    graph.node.extend([*before, node, *after])
    return made


def _is_float(value: onnx.ValueInfoProto) -> bool:
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _affine(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, x: str, y: str, affine: Any
) -> list[onnx.NodeProto]:
    """``y = scale · x + shift``, or one that any other can be taken into."""
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    scale, shift = (np.array(1.5), np.array(-0.5)) if affine is None else (affine.scale, affine.shift)
    nodes = []
    for op_type, array, out in (("Mul", scale, f"{y}_scaled"), ("Add", shift, y)):
        name = f"{y}_{op_type}"
        graph.initializer.append(numpy_helper.from_array(np.asarray(array).astype(dtype), name))
        nodes.append(helper.make_node(op_type, [x, name], [out]))
        x = out
    return nodes


def survey(tests: Sequence[str] = TESTS) -> Survey:
    """Runs the tests."""
    surveyor = _Surveyor()
    surveyor.watch()
    arguments = ["-q", "--tb=no", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.main([*arguments, f"--rootdir={ROOT}", *tests], plugins=[surveyor])
    models = sorted(surveyor.models.values(), key=lambda folded: len(folded.model))
    return Survey(surveyor.passed(), models)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("wb") as file:
        from tests.mutation import survey as this  # so that the classes are not those of __main__

        pickle.dump(this.survey(sys.argv[2:] or TESTS), file)
