"""Labels of classifiers: does the other model rank another class first?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normfold.inputs.drawing import is_floating

TOP = 5
FEWEST_CLASSES = 3
"""An output with fewer numbers in a row is not taken for the scores of a classifier."""


@dataclass(frozen=True)
class Flips:
    """Rows whose labels differ between two models.

    Attributes:
        rows: number of rows.
        top1: rows where another class is the first.
        topk: rows where the first ``k`` classes are not the same set.
        k: five, or half of the classes where there are fewer than ten.
        beyond: rows of either kind where the reference separates the classes by more than twice the bound, so
            that rounding cannot be the reason.
    """

    rows: int
    top1: int
    topk: int
    k: int
    beyond: int


def label_flips(
    reference: Sequence[np.ndarray],
    original: Sequence[np.ndarray],
    folded: Sequence[np.ndarray],
    bound: float,
) -> Flips | None:
    """Counts label flips of an output ``[rows, classes]``.

    Args:
        reference: its values in float64, one array per run.
        original: values of the original.
        folded: values of the other model.
        bound: how far rounding can move a score.

    Returns:
        The counts; ``None`` where the output does not look like the scores of a classifier.
    """
    shapes = {a.shape[1:] for a in original if a.ndim == 2}
    if len(shapes) != 1 or any(a.ndim != 2 for a in original) or not is_floating(original[0].dtype):
        return None
    ((classes,),) = shapes
    rows = sum(len(a) for a in original)
    if classes < FEWEST_CLASSES or not rows:
        return None
    k = min(TOP, classes // 2)
    truth, a, b = (np.concatenate(runs).astype(np.float64) for runs in (reference, original, folded))
    ranked = -np.sort(-truth, axis=1)
    flipped = {}
    beyond = np.zeros(rows, bool)
    for first in {1, k}:
        left, right = (np.sort(np.argsort(-x, axis=1, kind="stable")[:, :first], axis=1) for x in (a, b))
        flipped[first] = (left != right).any(axis=1)
        beyond |= flipped[first] & (ranked[:, first - 1] - ranked[:, first] > 2 * bound)
    return Flips(rows, int(flipped[1].sum()), int(flipped[k].sum()), k, int(beyond.sum()))
