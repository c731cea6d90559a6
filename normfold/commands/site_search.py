"""Finds the sites whose folds make a model round too much, so that they stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from normfold.reporting.report import Verification

Passes = Callable[[frozenset[str]], bool]
"""Whether the proof passes of a fold that leaves these sites as they are."""


def sites_to_spare(names: Sequence[str], passes: Passes) -> frozenset[str]:
    """The sites to leave as they are for the proof to pass: one of them, if that is enough.

    Args:
        names: sites that a fold acted on, in the order of the graph.
        passes: folds and proves.

    Returns:
        Their names; none where the proof fails without any of the folds.
    """
    if not names or not passes(frozenset(names)):
        return frozenset()
    # The first `few` of them are too few, the first `enough` are not.
    few, enough = 0, len(names)
    while enough - few > 1:
        middle = (few + enough) // 2
        if passes(frozenset(names[:middle])):
            enough = middle
        else:
            few = middle
    last = frozenset(names[few:enough])
    return last if enough == 1 or passes(last) else frozenset(names[:enough])


def is_of_rounding(verification: Verification) -> bool:
    """Whether a proof failed without a difference in float64. One there is a wrong rule, and nobody's to
    give up."""
    if not verification.algebra or verification.algebra["failed"]:
        return False
    return any(entry["status"] in ("fail", "nonfinite") for entry in verification.rounding)
