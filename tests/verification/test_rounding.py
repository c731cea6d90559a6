"""The judgement of one output: what is rounding and what is an error."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from normfold.verification.rounding import judge, rounding_of, ulp, within

TRUTH = np.linspace(-4, 4, 64)
ULP = float(np.spacing(np.float32(1)))


def single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def test_errors_up_to_four_times_the_original_pass() -> None:
    original = single(TRUTH + 1e-5)
    assert judge("y", [TRUTH], [original], [single(TRUTH - 3.5e-5)]).status == "pass"
    verdict = judge("y", [TRUTH], [original], [single(TRUTH - 5e-5)])
    assert verdict.status == "fail" and verdict.bound == pytest.approx(4e-5, rel=0.1)


def test_exact_original_still_allows_four_ulp() -> None:
    original = single(TRUTH)
    off = original.copy()
    off[-1] -= 3 * np.spacing(np.float32(4))
    assert judge("y", [original.astype(float)], [original], [off]).status == "pass"
    off[-1] -= 3 * np.spacing(np.float32(4))
    assert judge("y", [original.astype(float)], [original], [off]).status == "fail"


def test_response_to_noise_adds_to_the_bound() -> None:
    off = single(TRUTH + 1e-4)
    assert judge("y", [TRUTH], [single(TRUTH)], [off]).status == "fail"
    assert judge("y", [TRUTH], [single(TRUTH)], [off], response=5e-5).status == "pass"


def test_uncertain_original_is_no_pass() -> None:
    assert judge("y", [TRUTH], [single(TRUTH + 0.1)], [single(TRUTH + 0.1)]).status == "uncertain"


def test_one_nan_fails_and_is_accepted_only_where_the_original_has_it() -> None:
    original, folded = single(TRUTH), single(TRUTH)
    folded[3] = np.nan
    assert judge("y", [TRUTH], [original], [folded]).status == "fail"
    assert judge("y", [TRUTH], [original], [folded], allow_nonfinite=True).status == "fail"
    original[3] = np.nan
    assert judge("y", [TRUTH], [original], [folded]).status == "nonfinite"
    assert judge("y", [TRUTH], [original], [folded], allow_nonfinite=True).status == "pass"


def test_infinity_of_the_other_sign_is_a_difference() -> None:
    original, folded = single(TRUTH), single(TRUTH)
    original[0], folded[0] = np.inf, -np.inf
    assert judge("y", [TRUTH], [original], [folded], allow_nonfinite=True).status == "fail"


@pytest.mark.parametrize("other", [single(TRUTH[:-1]), TRUTH])
def test_other_shape_or_type_fails(other: np.ndarray) -> None:
    assert judge("y", [TRUTH], [single(TRUTH)], [other]).status == "fail"


def test_integers_must_be_equal() -> None:
    a = np.arange(5)
    assert judge("y", [a], [a], [a.copy()]).status == "pass"
    verdict = judge("y", [a], [a], [a + (a == 2)])
    assert verdict.status == "fail" and verdict.e1 == 1


def test_largest_error_over_all_runs_counts() -> None:
    noisy = single(TRUTH + 1e-4)
    assert judge("y", [TRUTH, TRUTH], [noisy, single(TRUTH)], [single(TRUTH), noisy]).status == "pass"


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.float32, 2**-21), (np.float16, 2**-8), (ml_dtypes.bfloat16, 2**-5)]
)
def test_ulp(dtype: type, expected: float) -> None:
    assert ulp(4.0, np.dtype(dtype)) == expected


def test_given_tolerances() -> None:
    a, b = single(TRUTH), single(TRUTH + 1e-3)
    assert within("y", [a], [b], None, None) is None
    assert within("y", [a], [b], None, 2e-3) is None
    assert "y" in (within("y", [a], [b], None, 5e-4) or "")
    assert within("y", [a], [b], 1e-3, 1e-3) is None


def test_optimised_original_errs_for_the_optimised_fold() -> None:
    """Five units off: too many where the original is exact, few where its optimised self is off by two."""
    truth = np.ones(3)
    exact, off = truth.astype(np.float32), (truth + 5 * ULP).astype(np.float32)
    assert judge("y", [truth], [exact], [off]).status == "fail"
    judged = judge("y", [truth], [exact], [off], optimised=2 * ULP)
    assert judged.status == "pass" and judged.e0 == 2 * ULP
    assert judge("y", [truth], [exact], [exact + np.float32(9 * ULP)], optimised=2 * ULP).status == "fail"


def test_elements_are_counted_by_their_error_relative_to_the_bound() -> None:
    """The bound is 4·2⁻¹⁰: errors of 0, 1/4, 1/2 and twice the bound."""
    truth, step = np.ones(4), 2.0**-10
    original = (truth + step * np.array([0, 1, 0, 0])).astype(np.float32)
    folded = (truth + step * np.array([0, 1, 2, 8])).astype(np.float32)
    row = judge("y", [truth], [original], [folded]).as_dict("cpu", False, "float64")
    edges = row["histogram"]["edges"]
    assert edges[0] == 1e-5 and edges[-1] == 10.0 and 1.0 in edges and len(edges) == 13

    def spread(counts: list[int]) -> dict[float, int]:
        """Counts by the lower edge."""
        return {edge: count for edge, count in zip([0.0, *edges], counts, strict=True) if count}

    assert spread(row["histogram"]["original"]) == {0.0: 3, 0.1: 1}
    assert spread(row["histogram"]["folded"]) == {0.0: 1, 0.1: 1, 0.3162: 1, 1.0: 1}


def test_rounding_of_many_operators_grows_with_their_root() -> None:
    """A runtime's wrong fusion is off by thousands of units, two hundred operators by some fifty."""
    single_ulp = float(np.spacing(np.float32(3)))
    assert rounding_of(1, 3.0, np.dtype(np.float32)) == 4 * single_ulp
    assert rounding_of(225, 3.0, np.dtype(np.float32)) == pytest.approx(60 * single_ulp)
    assert rounding_of(225, 3.0, np.dtype(np.float32)) < 2.9e-3 * 3 / 100
