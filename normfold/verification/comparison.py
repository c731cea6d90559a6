"""Runs two small models on the same random inputs in float64 and says whether they compute the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Evaluator, NotCovered
from normfold.evaluation.errors import EvaluationFailed
from normfold.verification.boundary import Draft
from normfold.verification.inputs import FAMILIES, family_sample, is_floating

RELATIVE = 1e-12
"""Rounding of the float64 evaluation itself, relative to the largest element."""

NOISE_FACTOR = 16.0
NOISE_ULPS = 2.0
INFORMATIVE = 1e-6
"""Inputs whose 2-ulp neighbourhood moves the original by more than this part of its largest element say
nothing."""

REDRAWS = 4

Constants = Mapping[str, Callable[[], np.ndarray]]


class Rejected(Exception):
    """The original's side of a region cannot run on these shapes."""


class Uncovered(Exception):
    """The evaluator does not cover a node of the region."""


@dataclass(frozen=True)
class Mismatch:
    """The first value that differs.

    Attributes:
        value: its name.
        error: largest absolute difference; infinite where shapes or types differ, or the folded side fails.
        bound: what was allowed.
        detail: one clause on what was seen.
    """

    value: str
    error: float
    bound: float
    detail: str


@dataclass
class Agreement:
    """What a comparison found.

    Attributes:
        samples: number of informative inputs.
        max_error: largest difference over all values and inputs.
        max_ratio: largest ratio of difference to bound.
        mismatch: the first value beyond its bound, if any.
    """

    samples: int = 0
    max_error: float = 0.0
    max_ratio: float = 0.0
    mismatch: Mismatch | None = None


@dataclass(frozen=True)
class Side:
    """One half of a comparison: a model, and exact contents of initializers whose stored ones are rounded."""

    model: ir.Model
    constants: Constants = dataclasses.field(default_factory=dict)

    def runner(self, overrides: Constants | None = None) -> Runner:
        """Makes the model ready to run; each constant is converted to float64 once.

        Args:
            overrides: other contents of initializers, by name.
        """
        inputs = frozenset(value.name or "" for value in self.model.graph.inputs)
        return Runner(Evaluator(self.model, constants={**self._cached(), **(overrides or {})}), inputs)

    def _cached(self) -> Constants:
        cached: dict[str, Callable[[], np.ndarray]] = {}
        for graph in self.model.graphs():
            for name, value in graph.initializers.items():
                tensor = value.const_value
                if name in self.constants:
                    cached[name] = _once(self.constants[name])
                elif tensor is not None and tensor.dtype.is_floating_point():
                    cached[name] = _once(partial(_as_double, tensor))
        return cached


def _as_double(tensor: ir.TensorProtocol) -> np.ndarray:
    return np.asarray(tensor.numpy()).astype(np.float64)


def _once(make: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    made: list[np.ndarray] = []

    def get() -> np.ndarray:
        if not made:
            made.append(make())
        return made[0]

    return get


@dataclass(frozen=True)
class Runner:
    """An evaluator, and which of a region's boundary values its side reads."""

    evaluator: Evaluator
    inputs: frozenset[str]

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs the side in float64.

        Raises:
            Rejected: it does not accept the shapes.
            Uncovered: the evaluator does not cover it.
        """
        try:
            read = {name: array for name, array in inputs.items() if name in self.inputs}
            return self.evaluator.run(read, outputs)
        except EvaluationFailed as error:
            raise Rejected(str(error)) from error
        except NotCovered as error:
            raise Uncovered(str(error)) from error


@dataclass(frozen=True)
class Reference:
    """What the original computes on one input, and how far rounding can move it.

    Attributes:
        inputs: the input.
        values: the original's values.
        bounds: allowed difference per floating value.
    """

    inputs: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    bounds: Mapping[str, float]


def references(
    original: Runner,
    draft: Draft,
    outputs: Sequence[str],
    rng: np.random.Generator,
    families: Sequence[str] = FAMILIES,
) -> Iterable[Reference]:
    """Yields one informative input per family with the original's values on it.

    Inputs on which the original is ill-conditioned or not finite are drawn again, a few times.

    Raises:
        Rejected: the original does not accept the shapes.
        Uncovered: the evaluator does not cover it.
    """
    drawn = any(is_floating(dtype) for _, dtype in draft.shapes.values())
    for family in families if drawn else families[:1]:
        for _ in range(REDRAWS):
            inputs = _draw(draft, family, rng)
            values = original.run(inputs, outputs)
            if not all(map(_finite, values.values())):
                continue
            moved = original.run({name: _jitter(x, rng) for name, x in inputs.items()}, outputs)
            bounds = _bounds(values, moved)
            if bounds is not None:
                yield Reference(inputs, values, bounds)
                break


def _draw(draft: Draft, family: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    inputs = {name: content for (_, name), content in draft.fixed.items()}
    for (_, name), (shape, dtype) in draft.shapes.items():
        if is_floating(dtype):
            inputs[name] = family_sample(family, shape, rng)
        elif dtype.kind == "b":
            inputs[name] = rng.random(shape) < 0.5
        elif dtype.kind in "iu":
            inputs[name] = np.asarray(rng.integers(0, 2, size=shape)).astype(dtype)
        else:
            inputs[name] = rng.choice(np.array(["a", "b"], dtype=object), size=shape)
    return inputs


def _jitter(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if array.dtype != np.float64:
        return array
    signs = np.where(rng.random(array.shape) < 0.5, -1.0, 1.0)
    return np.asarray(array * (1.0 + NOISE_ULPS * np.finfo(np.float64).eps * signs))


def _finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _peak(value: np.ndarray) -> float:
    return float(np.abs(value).max()) if value.size else 0.0


def _bounds(values: Mapping[str, np.ndarray], moved: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """Allowed differences, ``None`` where the input says nothing."""
    bounds = {}
    for name, value in values.items():
        other = moved[name]
        if value.dtype.kind != "f":
            if not np.array_equal(value, other):
                return None
            continue
        if value.shape != other.shape or not _finite(other):
            return None
        peak, response = _peak(value), _peak(value - other)
        if response > INFORMATIVE * peak:
            return None
        bounds[name] = RELATIVE * peak + NOISE_FACTOR * response
    return bounds


def compare(folded: Runner, reference: Reference, agreement: Agreement) -> None:
    """Runs the folded side on the reference's input and enters the outcome into ``agreement``."""
    agreement.samples += 1
    names = list(reference.values)
    try:
        results = folded.run(reference.inputs, names)
    except Rejected as refusal:
        agreement.mismatch = agreement.mismatch or Mismatch(
            names[0], float("inf"), 0.0, f"the folded side fails: {refusal}"
        )
        return
    for name in names:
        error, bound, detail = _difference(reference, name, results[name])
        agreement.max_error = max(agreement.max_error, error)
        ratio = error / bound if bound else (float("inf") if error else 0.0)
        agreement.max_ratio = max(agreement.max_ratio, ratio)
        if error > bound and agreement.mismatch is None:
            agreement.mismatch = Mismatch(name, error, bound, detail)


def _difference(reference: Reference, name: str, result: np.ndarray) -> tuple[float, float, str]:
    value = reference.values[name]
    if value.shape != result.shape:
        return float("inf"), 0.0, f"shape {list(result.shape)} for {list(value.shape)}"
    if value.dtype != result.dtype:
        return float("inf"), 0.0, f"type {result.dtype} for {value.dtype}"
    if value.dtype.kind != "f":
        wrong = int(np.count_nonzero(value != result))
        return float(wrong), 0.0, f"{wrong} of {value.size} elements differ"
    error = _peak(value - result)
    return (error if np.isfinite(error) else float("inf")), reference.bounds[name], "values differ"
