"""Where a fold has to stop: each test kills mutants of ``tests/mutation`` that nothing else noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

BRANCHES = "g (float[1, 4, 6, 6] x) => (float[1, 4, ?, ?] y) {{ {body} }}"


def fold(check: Any, body: str, **shapes: Any) -> Any:
    constants = {name: shape for name, shape in shapes.items() if isinstance(shape, np.ndarray)}
    weights = {name: shape for name, shape in shapes.items() if name not in constants}
    return check(check.model(BRANCHES.format(body=body), {**check.weights(0, **weights), **constants}))


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_pad_of_zeros_only_is_the_padding_of_a_branch(check: Any, value: float) -> None:
    body = "p = Pad (x, pads, value) a = Conv (p, w) b = Conv (x, v) y = Add (a, b)"
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    outcome = fold(check, body, w=(4, 4, 3, 3), v=(4, 4, 1, 1), pads=pads, value=np.array(value, np.float32))
    assert outcome.counts["Conv"] == (1 if value == 0.0 else 2)


def test_a_pad_on_channels_is_no_padding_of_a_branch(check: Any) -> None:
    body = "p = Pad (x, pads) a = Conv (p, w) q = Pad (x, pads) b = Conv (q, v) y = Add (a, b)"
    pads = np.array([0, 1, 0, 0, 0, 1, 0, 0])
    assert "Pad" in fold(check, body, w=(4, 6, 1, 1), v=(4, 6, 1, 1), pads=pads).ops


def test_branches_of_different_strides_stay_apart(check: Any) -> None:
    body = "a = Conv (x, w) b = Conv <strides = [2, 2]> (x, v) y = Add (a, b)"
    text = "g (float[1, 4, 4, 4] x) => (float[1, 4, 2, 2] y) { " + body + " }"
    outcome = check(check.model(text, check.weights(0, w=(4, 4, 3, 3), v=(4, 4, 3, 3))))
    assert outcome.counts["Conv"] == 2


def test_an_affine_along_the_width_is_no_branch(check: Any) -> None:
    body = "a = Conv (x, w) s = Mul (a, k) b = Conv (x, v) y = Add (s, b)"
    assert fold(check, body, w=(4, 4, 1, 1), v=(4, 4, 1, 1), k=(6,)).counts["Conv"] == 2


def test_both_branches_of_a_where_take_a_batchnorm(check: Any) -> None:
    text = """g (bool[1, 1, 6, 6] c, float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
        a = Conv (x, w)
        b = Conv (x, u)
        z = Where (c, a, b)
        y = BatchNormalization (z, s, b0, m, v)
    }"""
    parameters = check.batchnorm(4)
    parameters["b0"] = parameters.pop("b")
    feeds = {"c": np.random.default_rng(0).random((1, 1, 6, 6)) < 0.5}
    model = check.model(text, {**check.weights(0, w=(4, 4, 1, 1), u=(4, 4, 1, 1)), **parameters})
    check(model, feeds=feeds).gone("Conv", "Conv", "Where")


def test_a_bias_that_the_next_layer_could_take_is_not_dead(check: Any) -> None:
    body = "a = Conv (x, w, b) y = Conv (a, v)"
    assert fold(check, body, w=(4, 4, 1, 1), v=(4, 4, 1, 1), b=(4,)).folded.changed is False


def test_a_pool_that_rounds_its_size_up_is_no_branch(check: Any) -> None:
    """Of 3×3 it makes 2×2, to which the convolution's one number is broadcast."""
    text = """g (float[1, 4, 3, 3] x) => (float[1, 4, 2, 2] y) {
        a = Conv <strides = [2, 2]> (x, w)
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)
        y = Add (a, p)
    }"""
    assert check(check.model(text, check.weights(0, w=(4, 4, 2, 2)))).ops == ["Conv", "AveragePool", "Add"]


def test_an_inner_sum_that_is_read_elsewhere_is_not_taken_apart(check: Any) -> None:
    """The branches lie on both sides of it; its own value has another reader."""
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y, float[1, 4, 6, 6] z) {
        a = Conv (x, w) h = Tanh (x) t = Add (a, h) b = Conv (x, v) u = Add (t, b)
        y = Sigmoid (u) z = Sigmoid (t)
    }"""
    outcome = check(check.model(text, check.weights(0, w=(4, 4, 1, 1), v=(4, 4, 1, 1))))
    assert outcome.counts["Conv"] == 2


def test_a_sum_of_another_domain_is_no_sum_of_branches(check: Any) -> None:
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
        a = Conv (x, w) b = Conv (x, v) t = custom.Add (a, b) y = Sigmoid (t)
    }"""
    model = check.model(text, check.weights(0, w=(4, 4, 1, 1), v=(4, 4, 1, 1)), also=', "custom" : 1')
    assert not check.fold_only(model).changed
