"""Judges rounding: how far is each model from a float64 reference, and is the folded one further than it may
be?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from normfold.inputs.drawing import is_floating, machine_epsilon
from normfold.verification.labels import Flips, label_flips

FACTOR = 4.0
"""The folded model may err this many times as much as the original and newly rounded weights do; see
docs/decisions/0003-rounding-bound.md."""

ULPS = 4.0
TOO_UNCERTAIN = 0.01

HISTOGRAM_EDGES = tuple(float(f"{10.0 ** (half / 2):.4g}") for half in range(-10, 3))
"""Ratios of an element's error to the bound: two to a power of ten, from 1e-5 to 10."""

Status = Literal["pass", "fail", "uncertain", "nonfinite"]
Values = Sequence[np.ndarray]
"""One output's values, one array per run."""


@dataclass(frozen=True)
class Judgement:
    """One output under one provider and optimisation level.

    Attributes:
        output: its name.
        status: ``uncertain`` where the original's own error is too large to judge by, ``nonfinite`` where NaN
            or Inf appear.
        e0: largest error of the original against the reference.
        e1: largest error of the folded model.
        rms0: root mean square error of the original.
        rms1: root mean square error of the folded model.
        bound: what ``e1`` may be.
        peak: largest absolute value of the reference.
        reason: one clause where the status is not ``pass``.
        flips: what became of the labels of a classifier, ``None`` for other outputs.
        floor: the least bound, a few units in the last place.
        counts: elements of each model by the ratio of their error to the bound: below the first of
            ``HISTOGRAM_EDGES``, between two of them, and from the last on. Empty where there is no bound.
    """

    output: str
    status: Status
    e0: float = 0.0
    e1: float = 0.0
    rms0: float = 0.0
    rms1: float = 0.0
    bound: float = 0.0
    peak: float = 0.0
    reason: str = ""
    flips: Flips | None = None
    floor: float = 0.0
    counts: tuple[tuple[int, ...], ...] = ()

    def as_dict(self, provider: str, optimizations: bool, bound_from: str) -> dict[str, Any]:
        """The entry of the report; numbers that JSON cannot hold are ``None``."""
        numbers = {
            name: number if math.isfinite(number) else None
            for name, number in (
                ("e0", self.e0),
                ("e1", self.e1),
                ("rms0", self.rms0),
                ("rms1", self.rms1),
                ("bound", self.bound),
                ("peak", self.peak),
            )
        }
        return {
            "output": self.output,
            "provider": provider,
            "optimizations": "on" if optimizations else "off",
            "status": self.status,
            **numbers,
            "bound_from": bound_from,
            **({"histogram": self._histogram()} if self.counts else {}),
            **({"labels": dataclasses.asdict(self.flips)} if self.flips is not None else {}),
        }

    def _histogram(self) -> dict[str, list[float] | list[int]]:
        original, folded = self.counts
        return {"edges": list(HISTOGRAM_EDGES), "original": list(original), "folded": list(folded)}


def judge(
    output: str,
    reference: Values,
    original: Values,
    folded: Values,
    *,
    response: float = 0.0,
    optimised: float = 0.0,
    allow_nonfinite: bool = False,
) -> Judgement:
    """Compares the errors of two models on one output.

    ``e1`` may be ``max(4·(e0 + response), 4 ulp of the largest reference value)``, the ulp that of the
    original's type.

    Args:
        output: name of the output.
        reference: its values in float64; the original's own where the bound comes from noise.
        original: values of the original.
        folded: values of the folded model.
        response: how far noise of the size of rounding moves the original.
        optimised: the original's error with graph optimisations on, where the folded model has them on too.
        allow_nonfinite: accept NaN and Inf that both models have in the same places.

    Returns:
        The judgement. Integers, booleans and strings must be equal, which ``e1`` counts.
    """
    for a, b in zip(original, folded, strict=True):
        if a.shape != b.shape:
            return Judgement(output, "fail", reason=f"shape {list(b.shape)} for {list(a.shape)}")
        if a.dtype != b.dtype:
            return Judgement(output, "fail", reason=f"type {b.dtype} for {a.dtype}")
    if not all(is_floating(a.dtype) for a in original):
        wrong = sum(int(np.count_nonzero(a != b)) for a, b in zip(original, folded, strict=True))
        total = sum(a.size for a in original)
        reason = f"{wrong} of {total} elements differ" if wrong else ""
        return Judgement(output, "fail" if wrong else "pass", e1=float(wrong), reason=reason)
    masks = []
    for truth, a, b in zip(reference, original, folded, strict=True):
        if truth.shape != a.shape:
            return Judgement(output, "uncertain", reason="the float64 reference has another shape")
        finite = np.isfinite(a.astype(np.float64))
        if not finite.all() and not allow_nonfinite:
            return Judgement(output, "nonfinite", reason="the original gives NaN or Inf")
        other = b.astype(np.float64)
        if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(
            a.astype(np.float64)[~finite], other[~finite], equal_nan=True
        ):
            return Judgement(output, "fail", e1=math.inf, reason="the folded model gives NaN or Inf")
        masks.append(finite & np.isfinite(truth))
    peak = max((_peak(r[m]) for r, m in zip(reference, masks, strict=True)), default=0.0)
    e0, rms0 = _errors(reference, original, masks)
    e0 = max(e0, optimised)
    e1, rms1 = _errors(reference, folded, masks)
    floor = ULPS * ulp(peak, original[0].dtype)
    bound = max(FACTOR * (e0 + response), floor)
    flips = label_flips(reference, original, folded, bound)
    judged = partial(
        Judgement,
        output,
        e0=e0,
        e1=e1,
        rms0=rms0,
        rms1=rms1,
        bound=bound,
        peak=peak,
        flips=flips,
        floor=floor,
        counts=tuple(_counts(reference, values, masks, bound) for values in (original, folded)),
    )
    if max(e0, response) > TOO_UNCERTAIN * peak and e1 > floor:
        own = max(e0, response)
        reason = f"the original's own error of {own:.2g} is above 1 % of its largest value, {peak:.2g}"
        return judged(status="uncertain", reason=reason)
    if e1 > bound:
        return judged(status="fail", reason=f"error {e1:.3g} where {bound:.3g} is allowed")
    return judged(status="pass")


def within(
    output: str, original: Values, folded: Values, rtol: float | None, atol: float | None
) -> str | None:
    """Checks the caller's own tolerances, as ``|folded − original| ≤ atol + rtol·|original|``.

    Returns:
        One clause where they are exceeded, otherwise ``None``.
    """
    if rtol is None and atol is None:
        return None
    for a, b in zip(original, folded, strict=True):
        if not is_floating(a.dtype) or a.shape != b.shape:
            continue
        left, right = a.astype(np.float64), b.astype(np.float64)
        excess = np.abs(right - left) - ((atol or 0.0) + (rtol or 0.0) * np.abs(left))
        if excess.size and float(np.nanmax(excess)) > 0:
            return f"output '{output}' exceeds the given tolerance by {float(np.nanmax(excess)):.3g}"
    return None


def ulp(value: float, dtype: np.dtype) -> float:
    """Distance from ``value`` to the next larger number of a floating type."""
    if dtype.kind == "f":
        return float(np.spacing(np.asarray(abs(value), dtype=dtype)))
    return machine_epsilon(dtype) * 2.0 ** math.floor(math.log2(abs(value))) if value else 0.0


def rounding_of(operators: int, peak: float, dtype: np.dtype) -> float:
    """How far the rounding of that many operators in a row, each independent of the others, is expected to
    move an output of size ``peak``: ``4·√n`` units in the last place."""
    return ULPS * math.sqrt(max(operators, 1)) * ulp(peak, dtype)


def _peak(array: np.ndarray) -> float:
    return float(np.abs(array).max()) if array.size else 0.0


def _errors(reference: Values, values: Values, masks: Sequence[np.ndarray]) -> tuple[float, float]:
    largest, squares, count = 0.0, 0.0, 0
    for truth, value, mask in zip(reference, values, masks, strict=True):
        error = np.abs(value.astype(np.float64)[mask] - truth[mask])
        largest = max(largest, _peak(error))
        squares += float(np.square(error).sum())
        count += error.size
    return largest, math.sqrt(squares / count) if count else 0.0


def _counts(reference: Values, values: Values, masks: Sequence[np.ndarray], bound: float) -> tuple[int, ...]:
    """Elements by the ratio of their error to the bound; see ``Judgement.counts``."""
    counts = np.zeros(len(HISTOGRAM_EDGES) + 1, dtype=np.int64)
    edges = bound * np.asarray(HISTOGRAM_EDGES)
    for truth, value, mask in zip(reference, values, masks, strict=True):
        error = np.abs(value.astype(np.float64)[mask] - truth[mask])
        places = np.searchsorted(edges, error, side="right")
        counts += np.bincount(places, minlength=len(counts))
    return tuple(map(int, counts))


def column(runs: Sequence[Mapping[str, np.ndarray]], output: str) -> list[np.ndarray]:
    """One output's values over all runs."""
    return [run[output] for run in runs]
