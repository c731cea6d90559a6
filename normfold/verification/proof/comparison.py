"""Runs two small models on the same random inputs in float64 and says whether they compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Alterations, Evaluator, NotCovered
from normfold.evaluation.dtypes import promote
from normfold.evaluation.errors import EvaluationFailed
from normfold.evaluation.frame import UNALTERED
from normfold.inputs.drawing import family_sample, is_floating
from normfold.verification.proof.boundary import Draft

RELATIVE = 1e-12
"""Rounding of the float64 evaluation itself, relative to the largest element."""

NOISE_FACTOR = 16.0
NOISE_ULPS = 2.0
INFORMATIVE = 1e-6
"""Inputs whose 2-ulp neighbourhood moves the original by more than this part of its largest element say
nothing."""

NOISE_DRAWS = 3
"""Of noise on constants, where one of them may come out as if there were none."""

DEAD = 1e-3
RESIDUE = 1e-10
"""Where a value is this far below what goes in, behind a Relu that lets nothing pass for one, a difference
this small may be what a cancellation leaves on the folded side: such an input says nothing."""

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


class Side:
    """One half of a comparison: a model, ready to run in float64.

    Args:
        model: the model, which must not change.
        constants: exact contents of initializers whose stored ones are rounded.
    """

    def __init__(self, model: ir.Model, constants: Constants | None = None) -> None:
        self.model = model
        self._inputs = frozenset(value.name or "" for value in model.graph.inputs)
        self._evaluator = Evaluator(model, constants=constants, keep_constants=True)

    def shaken(self, rng: np.random.Generator) -> Side:
        """The same with noise of 2 ulp on its constants."""
        stored = {value.name or "": value.const_value for value in self.model.graph.initializers.values()}
        constants = {name: promote(tensor.numpy()) for name, tensor in stored.items() if tensor is not None}
        noisy = {name: _jitter(array, rng) for name, array in constants.items()}
        return Side(self.model, {name: partial(noisy.__getitem__, name) for name in noisy})

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], altered: Alterations = UNALTERED
    ) -> dict[str, np.ndarray]:
        """Runs the side on those of the inputs that it reads.

        Args:
            inputs: boundary values by name.
            outputs: names of the values wanted.
            altered: a change to plant.

        Raises:
            Rejected: it does not accept the shapes.
            Uncovered: the evaluator does not cover it.
        """
        read = {name: array for name, array in inputs.items() if name in self._inputs}
        try:
            return self._evaluator.run(read, outputs, altered=altered)
        except EvaluationFailed as error:
            raise Rejected(str(error)) from error
        except NotCovered as error:
            raise Uncovered(str(error)) from error


@dataclass(frozen=True)
class Sample:
    """What the original computes on one input, and how far rounding can move it.

    Attributes:
        original: the original's side.
        inputs: the input.
        values: the original's values.
        seed: of the noise that tells how ill-conditioned the original is there.
    """

    original: Side
    inputs: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    seed: int

    @cached_property
    def peaks(self) -> dict[str, float]:
        """Largest absolute element of each floating value."""
        return {name: _peak(value) for name, value in self.values.items() if value.dtype.kind == "f"}

    @cached_property
    def reach(self) -> float:
        """Largest absolute element that goes in, plus 1 for constants: what cancels where little comes
        out."""
        floating = (array for array in self.inputs.values() if array.dtype.kind == "f")
        return max((_peak(array) for array in floating), default=0.0) + 1.0

    @cached_property
    def bounds(self) -> dict[str, float] | None:
        """Allowed difference per floating value; ``None`` where the input says nothing.

        ``1e-12·max|a| + 16·B`` with B the original's own change under 2-ulp noise. It costs another run, so
        nothing that agrees to ``1e-12·max|a|`` asks for it.
        """
        rng = np.random.default_rng(self.seed)
        noisy = {name: _jitter(array, rng) for name, array in self.inputs.items()}
        moved = self.original.run(noisy, list(self.values))
        bounds = {}
        for name, value in self.values.items():
            other = moved[name]
            if value.dtype.kind != "f":
                if not np.array_equal(value, other):
                    return None
                continue
            if value.shape != other.shape or not _finite(other):
                return None
            peak, response = self.peaks[name], _peak(value - other)
            if response > INFORMATIVE * peak:
                return None
            bounds[name] = RELATIVE * peak + NOISE_FACTOR * response
        return bounds

    @cached_property
    def responses(self) -> dict[str, float]:
        """How far each floating value moves under 2-ulp noise on the original's constants.

        Noise on inputs does not move zeros. A channel that comes out constant has a variance that is nothing
        but rounding, and where no epsilon covers it, so has what is divided by its root.
        """
        rng = np.random.default_rng((self.seed, 1))
        found = dict.fromkeys(self.peaks, 0.0)
        for _ in range(NOISE_DRAWS):
            try:
                moved = self.original.shaken(rng).run(self.inputs, list(self.values))
            except Rejected:
                continue
            for name in found:
                if moved[name].shape == self.values[name].shape:
                    response = _peak(moved[name] - self.values[name])
                    found[name] = max(found[name], response if np.isfinite(response) else np.inf)
        return found


def sample(
    original: Side, draft: Draft, outputs: Sequence[str], family: str, rng: np.random.Generator
) -> Sample | None:
    """Draws one input of a family; ``None`` where the original is not finite on it.

    Raises:
        Rejected: the original does not accept the shapes.
        Uncovered: the evaluator does not cover it.
    """
    inputs = _draw(draft, family, rng)
    values = original.run(inputs, outputs)
    seed = int(rng.integers(2**32))
    return Sample(original, inputs, values, seed) if all(map(_finite, values.values())) else None


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


def compare(folded: Side, seen: Sample, agreement: Agreement) -> bool:
    """Runs the folded side on the sample's input and enters the outcome into ``agreement``.

    Returns:
        Whether the input says anything; where it does not, nothing is entered.
    """
    outcome = _Outcome(seen)
    try:
        for name, result in folded.run(seen.inputs, list(seen.values)).items():
            outcome.add(name, result)
    except Rejected as refusal:
        outcome.reject(str(refusal))
    if not outcome.informative:
        return False
    agreement.samples += 1
    agreement.max_error = max(agreement.max_error, outcome.error)
    agreement.max_ratio = max(agreement.max_ratio, outcome.ratio)
    agreement.mismatch = agreement.mismatch or outcome.mismatch
    return True


class _Outcome:
    """One comparison on one input, value by value."""

    def __init__(self, seen: Sample) -> None:
        self._seen = seen
        self.error = self.ratio = 0.0
        self.mismatch: Mismatch | None = None
        self.informative = True

    def add(self, name: str, result: np.ndarray) -> None:
        error, detail = _difference(self._seen.values[name], result)
        peak = self._seen.peaks.get(name, 0.0)
        bound = RELATIVE * peak
        if bound < error <= RESIDUE * self._seen.reach and peak <= DEAD * self._seen.reach:
            self.informative = False
            return
        if error > bound:
            bounds = self._seen.bounds
            self.informative &= bounds is not None
            bound = (bounds or {}).get(name, 0.0) if np.isfinite(error) else 0.0
            if self.informative and bound < error <= NOISE_FACTOR * self._seen.responses.get(name, 0.0):
                self.informative = False
                return
        self.error = max(self.error, error)
        self.ratio = max(self.ratio, error / bound if bound else (float("inf") if error else 0.0))
        if error > bound and self.mismatch is None:
            self.mismatch = Mismatch(name, error, bound, detail)

    def reject(self, reason: str) -> None:
        self.informative = self._seen.bounds is not None
        name = next(iter(self._seen.values))
        self.mismatch = Mismatch(name, float("inf"), 0.0, f"the folded side fails: {reason}")


def _difference(value: np.ndarray, result: np.ndarray) -> tuple[float, str]:
    """How far a result is off, infinitely where it cannot be said, and what was seen."""
    if value.shape != result.shape:
        return float("inf"), f"shape {list(result.shape)} for {list(value.shape)}"
    if value.dtype != result.dtype:
        return float("inf"), f"type {result.dtype} for {value.dtype}"
    if value.dtype.kind != "f":
        wrong = int(np.count_nonzero(value != result))
        return float(wrong), f"{wrong} of {value.size} elements differ"
    error = _peak(value - result)
    return (error if np.isfinite(error) else float("inf")), "values differ"


def notices(side: Side, altered: Alterations, samples: Sequence[Sample]) -> bool:
    """Whether the comparison on these inputs rejects what the side computes with a change planted."""
    return any(_rejects(side, altered, seen) for seen in samples)


def _rejects(side: Side, altered: Alterations, seen: Sample) -> bool:
    try:
        results = side.run(seen.inputs, list(seen.values), altered)
    except Rejected:
        return False
    for name, peak in seen.peaks.items():
        error = np.abs(results[name] - seen.values[name])
        largest = float(error.max()) if error.size else 0.0
        if largest <= RELATIVE * peak:
            continue
        # No input that says anything allows more.
        if not largest <= (RELATIVE + NOISE_FACTOR * INFORMATIVE) * peak:
            return True
        if seen.bounds is not None and largest > seen.bounds[name]:
            return True
    return False
