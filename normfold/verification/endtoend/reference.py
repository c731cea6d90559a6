"""Float64 references of whole models, within a budget of time and memory, and what they show on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation import DeadlineExceeded, Evaluator, NotCovered, deadline
from normfold.evaluation.promotion import native_slots
from normfold.inputs.drawing import Arrays, is_floating, machine_epsilon
from normfold.verification.endtoend.noise import is_rounded, with_initializers
from normfold.verification.graph_index import GraphIndex
from normfold.verification.options import VerifyOptions
from normfold.verification.proof.boundary import Observation

OBSERVED_ELEMENTS = 65536
"""Contents of larger integer values are not kept."""

VALUES_ALIVE = 4
"""A run holds several values of the largest size at once."""


QUICK_SECONDS = 0.05
QUICK_DRAWS = 4
"""Draws of weight noise where a run takes less than ``QUICK_SECONDS``: few outputs need several to show its
size."""


Observer = Callable[[str, Any], None]


def _ignore(_name: str, _content: object) -> None:
    """For runs of which only the outputs are wanted."""


class OverBudget(Exception):
    """The reference would take more time or memory than allowed."""


@dataclass
class Reference:
    """Float64 outputs of the original.

    Attributes:
        runs: outputs of each run, in float64.
        native: outputs of the first run in the model's own types, for a check of the evaluator itself.
        response: how far each output moves, in the first run at least, when all weights move by up to one
            unit in the last place of their type, as they do when they are rounded anew.
        missing: why there are no references, ``None`` where there are.
        seconds: time taken.
    """

    runs: list[Arrays] = field(default_factory=list)
    native: Arrays = field(default_factory=dict)
    response: dict[str, float] = field(default_factory=dict)
    missing: str | None = None
    seconds: float = 0.0

    def of(self, names: Sequence[str], runs: int) -> Reference | None:
        """The same for some of the values and the first runs; ``None`` where not all of them are here."""
        if self.missing is None and not all(name in self.native for name in names):
            return None
        return Reference(
            [{name: run[name] for name in names} for run in self.runs[:runs]],
            {name: self.native[name] for name in names} if self.native else {},
            {name: self.response[name] for name in names} if self.response else {},
            self.missing,
        )


class Watch:
    """Holds evaluations to a budget of time and memory from the moment it is made; thorough ones to none."""

    def __init__(self, options: VerifyOptions) -> None:
        self._thorough = options.thorough
        self._deadline = time.monotonic() + options.budget_seconds
        self._largest = options.budget_bytes // VALUES_ALIVE
        self._seconds, self._bytes = options.budget_seconds, options.budget_bytes

    def run(
        self, evaluator: Evaluator, batch: Arrays, outputs: Sequence[str] | None, observe: Observer = _ignore
    ) -> Arrays:
        """Runs an evaluator in what is left of the budget.

        Args:
            evaluator: the model.
            batch: its inputs.
            outputs: names of the outputs wanted; ``None`` for all.
            observe: is shown every value of the main graph.

        Raises:
            OverBudget: it takes too much.
            NotCovered: the model is not covered, or rejects the inputs.
        """

        def checked(name: str, content: Any) -> None:
            self._check_size(content)
            observe(name, content)

        left = math.inf if self._thorough else self._deadline - time.monotonic()
        try:
            with deadline(left):
                return evaluator.run(batch, outputs, observe=checked)
        except DeadlineExceeded:
            raise OverBudget(f"it takes more than {self._seconds:g} s") from None

    def _check_size(self, content: object) -> None:
        if self._thorough:
            return
        if isinstance(content, np.ndarray) and content.nbytes > self._largest:
            raise OverBudget(f"it takes more than {self._bytes / 1024**3:g} GiB")


def float64_reference(
    model: ir.Model, batches: Sequence[Arrays], outputs: Sequence[str], options: VerifyOptions
) -> Reference:
    """Runs a model in float64 on all batches, and once in its own types.

    Args:
        model: the original.
        batches: inputs of each run.
        outputs: names of the outputs wanted.
        options: budget.

    Returns:
        The reference; ``missing`` is set where the model is not covered or over budget.
    """
    begun = time.monotonic()
    watch = Watch(options)
    reference = Reference()
    try:
        evaluator = Evaluator(model)
        for batch in batches:
            reference.runs.append(watch.run(evaluator, batch, outputs))
        native = Evaluator(model, precision="native")
        reference.native = watch.run(native, batches[0], outputs)
        spent = (time.monotonic() - begun) / (len(batches) + 1)
        weighted = _with_made_constants(model, batches[0], watch)
        for draw in range(QUICK_DRAWS if spent < QUICK_SECONDS else 1):
            moved = Evaluator(weighted, constants=moved_weights(weighted, (options.seed, draw)))
            for truth, batch in zip(reference.runs, batches if draw else batches[:1], strict=False):
                for name, value in watch.run(moved, batch, outputs).items():
                    known = reference.response.get(name, 0.0)
                    reference.response[name] = max(known, largest_change(truth[name], value))
    except (NotCovered, OverBudget) as error:
        reference.missing, reference.runs = str(error), []
    reference.seconds = time.monotonic() - begun
    return reference


def largest_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest finite difference between two arrays of one shape; zero for anything that is not floating."""
    if not (is_floating(a.dtype) and is_floating(b.dtype)) or a.shape != b.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        change = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(np.max(change, initial=0.0, where=np.isfinite(change)))


def moved_weights(model: ir.Model, seed: tuple[int, ...]) -> dict[str, Callable[[], np.ndarray]]:
    """Initializers moved by up to one unit in the last place of their type, by name."""
    moved: dict[str, Callable[[], np.ndarray]] = {}
    for graph in model.graphs():
        for position, (name, value) in enumerate(graph.initializers.items()):
            tensor = value.const_value
            if tensor is not None and is_rounded(tensor) and not _is_structural(value):
                moved[name] = partial(_moved, tensor, (*seed, position))
    return moved


def _is_structural(value: ir.Value) -> bool:
    """Whether it is a size or an index, such as the scales of a Resize, behind a Cast too."""
    return any(
        use.idx in native_slots(use.node.domain, use.node.op_type)
        or (use.node.op_type in ("Cast", "Identity") and _is_structural(use.node.outputs[0]))
        for use in value.uses()
    )


def _moved(tensor: ir.TensorProtocol, seed: tuple[int, ...]) -> np.ndarray:
    """The content, moved by up to one unit in the last place; equal numbers alike, as rounding does."""
    content = np.asarray(tensor.numpy())
    noise = _noise_of(content.astype(np.float64), seed)
    return np.asarray(content.astype(np.float64) * (1.0 + machine_epsilon(content.dtype) * noise))


def _noise_of(content: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Uniform noise in [-1, 1) that depends on the numbers and the seed alone: the mixing of SplitMix64."""
    (start,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    mixed = np.ascontiguousarray(content).view(np.uint64) ^ start
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27), (1, 31)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)


def _with_made_constants(model: ir.Model, batch: Arrays, watch: Watch) -> ir.Model:
    """A copy whose floating constants are initializers, those too that nodes make of others."""
    copy = with_initializers(model)
    index = GraphIndex(copy)
    made = [
        value
        for (scope, name), value in index.values.items()
        if not scope
        and value in index.constants
        and value.producer() is not None
        and not value.is_graph_output()
        and any(use.node.outputs[0] not in index.constants for use in value.uses())
    ]
    contents = (
        watch.run(Evaluator(copy, precision="native"), batch, [v.name or "" for v in made]) if made else {}
    )
    for value in made:
        content = contents[value.name or ""]
        if not isinstance(content, np.ndarray) or not is_floating(content.dtype):
            continue
        name = f"{value.name}~made"
        new = ir.Value(name=name, const_value=ir.tensor(content, name=name))
        copy.graph.register_initializer(new)
        value.replace_all_uses_with(new)
    return copy


def observe(model: ir.Model, batch: Arrays, options: VerifyOptions) -> Observation | None:
    """Shapes of all values of the main graph in one run, and contents of small integer ones.

    Returns:
        The observation, ``None`` where it is over budget.

    Raises:
        NotCovered: the evaluator does not cover the model, or the model does not accept the input.
    """
    watch = Watch(options)
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    contents: dict[str, np.ndarray] = {}

    def note(name: str, content: object) -> None:
        if isinstance(content, np.ndarray):
            shapes[name] = (content.shape, content.dtype)
            if content.size <= OBSERVED_ELEMENTS and (content.dtype.kind != "f" or content.size <= 16):
                contents[name] = content

    for name, array in batch.items():
        note(name, array)
    try:
        watch.run(Evaluator(model, precision="native"), batch, None, note)
    except OverBudget:
        return None
    return Observation(shapes, contents)
