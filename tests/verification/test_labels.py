"""Label flips of classifiers are counted, and told from those that rounding explains."""

from __future__ import annotations

import numpy as np
import pytest

from normfold.verification import verify_models
from normfold.verification.labels import Flips, label_flips
from tests.verification.conftest import model_of

SCORES = np.array([[0.1, 0.5, 0.4, 0.0], [0.9, 0.2, 0.1, 0.3]])


def changed(*swaps: tuple[int, int, float]) -> np.ndarray:
    scores = SCORES.copy()
    for row, column, value in swaps:
        scores[row, column] = value
    return scores


def test_equal_scores_do_not_flip() -> None:
    assert label_flips([SCORES], [SCORES], [SCORES], 0.0) == Flips(2, 0, 0, 2, 0)


def test_first_class_flips_beyond_the_margin() -> None:
    flips = label_flips([SCORES], [SCORES], [changed((0, 2, 0.6))], 0.01)
    assert flips == Flips(2, 1, 0, 2, 1)


def test_flip_within_the_margin_is_counted_and_not_held_against_the_model() -> None:
    assert label_flips([SCORES], [SCORES], [changed((0, 2, 0.51))], 0.06) == Flips(2, 1, 0, 2, 0)


def test_set_of_first_classes_flips() -> None:
    assert label_flips([SCORES], [SCORES], [changed((1, 1, 0.35))], 0.01) == Flips(2, 0, 1, 2, 1)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 3, 4), (0, 5)])
def test_other_outputs_have_no_labels(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape)
    assert label_flips([array], [array], [array], 0.0) is None


def classifier(bias: np.ndarray) -> object:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[8, 6] x) => (float[8, 6] y) { m = MatMul(x, w) y = Add(m, b) }"""
    weight = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    return model_of(text, {"w": weight, "b": bias.astype(np.float32)})


def test_flips_are_in_the_report_and_fail() -> None:
    pytest.importorskip("onnxruntime")
    right, wrong = np.zeros(6), np.array([50.0, 0, 0, 0, 0, 0])
    found = verify_models(classifier(right), classifier(wrong))  # type: ignore[arg-type]
    assert found.verdict == "fail"
    assert any(m.startswith("NF218: output 'y' on cpu: ") for m in found.messages)
    assert found.rounding[0]["labels"]["beyond"] == found.rounding[0]["labels"]["rows"] == 8
    honest = verify_models(classifier(right), classifier(right))  # type: ignore[arg-type]
    assert honest.verdict == "pass" and honest.rounding[0]["labels"]["top1"] == 0
