"""Shifts that go forward to a sum and back from there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

HEAD = """c = Conv <pads = [1, 1, 1, 1]> (x, w)
    a = Conv (x, u) p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (a)
    n = BatchNormalization (p, s, b, m, v)"""


def net(check: Any, body: str, *, outputs: str = "float[N, 4, A, B] y") -> onnx.ModelProto:
    """A pooled branch with a BatchNormalization ``n`` behind it, whose shift the pool's padding bars."""
    constants = check.weights(w=(4, 4, 3, 3), u=(4, 4, 1, 1)) | check.batchnorm(4)
    return check.model(f"g (float[N, 4, H, W] x) => ({outputs}) {{ {HEAD} {body} }}", constants)


@pytest.mark.parametrize(
    "body",
    [
        "t = Add (c, n) y = Sigmoid (t)",
        "t = Add (n, c) y = Sigmoid (t)",
        "t = Sub (c, n) y = Sigmoid (t)",
        "t = Sub (n, c) y = Sigmoid (t)",
        "d = Tanh (x) t = Sum (d, n, c) y = Sigmoid (t)",
        "d = Tanh (x) r = Sub (d, n) t = Sub (c, r) y = Sigmoid (t)",
    ],
    ids=["add", "add from the left", "subtracted", "subtracted from", "of three", "through another sum"],
)
def test_the_other_branch_takes_it(check: Any, body: str) -> None:
    assert check(net(check, body)).counts["BatchNormalization"] == 0


def test_every_sum_that_reads_it_has_a_branch_of_its_own(check: Any) -> None:
    body = "d = Conv (x, u) t = Add (c, n) k = Sub (d, n) y = Sigmoid (t) z = Tanh (k)"
    outputs = "float[N, 4, A, B] y, float[N, 4, A, B] z"
    assert check(net(check, body, outputs=outputs)).counts["BatchNormalization"] == 0


def test_one_branch_cannot_take_it_for_two_sums(check: Any) -> None:
    body = "t = Add (c, n) k = Sub (c, n) y = Sigmoid (t) z = Tanh (k)"
    outputs = "float[N, 4, A, B] y, float[N, 4, A, B] z"
    check(net(check, body, outputs=outputs)).kept("NF116")


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("t = Add (c, n) y = Sigmoid (t) z = Tanh (n)", "float[N, 4, A, B] y, float[N, 4, A, B] z"),
        ("t = Add (c, n) y = Sigmoid (t)", "float[N, 4, A, B] y, float[N, 4, A, B] n"),
        ("t = Add (c, n) y = Sigmoid (t) z = Tanh (c)", "float[N, 4, A, B] y, float[N, 4, A, B] z"),
        ("d = Tanh (x) t = Add (d, n) y = Sigmoid (t)", "float[N, 4, A, B] y"),
        ("t = Add (n, n) y = Sigmoid (t)", "float[N, 4, A, B] y"),
    ],
    ids=["another reader", "a graph output", "a branch that is read elsewhere", "no bias", "no other branch"],
)
def test_where_it_stays(check: Any, body: str, outputs: str) -> None:
    outcome = check(net(check, body, outputs=outputs))
    assert outcome.counts["BatchNormalization"] + outcome.counts["Add"] > body.count("Add")


def test_a_branch_that_is_broadcast_over_the_channels_is_passed_over(check: Any) -> None:
    pool = "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>"
    model = check.model(
        f"""g (float[N, 4, H, W] x) => (float[N, 4, A, B] y) {{
            z = Sigmoid (x) a = Conv (z, u) p = {pool} (a) n = BatchNormalization (p, s, b, m, v)
            e = Conv (x, q) c = Conv (x, w) t = Sum (n, e, c) y = Sigmoid (t)
        }}""",
        check.weights(u=(4, 4, 1, 1), w=(4, 4, 1, 1), q=(1, 4, 1, 1)) | check.batchnorm(4),
    )
    check(model).gone("Sigmoid", "Conv", "AveragePool", "Conv", "Conv", "Sum", "Sigmoid")


def test_one_layer_cannot_take_the_scale_and_then_the_shift(check: Any) -> None:
    """Two parts of one Conv: the scale goes back to it by the one, the shift of the sum by the other."""
    pool = "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>"
    model = check.model(
        f"""g (float[N, 4, H, W] x) => (float[N, 4, A, B] y) {{
            c = Conv (x, w) k, o = Split <axis = 1, num_outputs = 2> (c)
            p = {pool} (k) n = BatchNormalization (p, s, b, m, v) t = Add (n, o) y = Sigmoid (t)
        }}""",
        check.weights(w=(8, 4, 1, 1)) | check.batchnorm(4),
    )
    outcome = check(model)
    assert outcome.counts["BatchNormalization"] + outcome.counts["Add"] == 2


def test_a_sum_in_a_body_takes_no_part(check: Any) -> None:
    """Each branch of the If has a Conv that could take the shift."""
    branches = ", ".join(
        f"{name}_branch = {name} () => (float[N, 4, A, B] {name}_y) {{"
        f" {name}_c = Conv <pads = [1, 1, 1, 1]> (x, w)"
        f" {name}_t = Add ({name}_c, n) {name}_y = {op} ({name}_t) }}"
        for name, op in (("then", "Sigmoid"), ("else", "Tanh"))
    )
    model = net(check, f"y = If (taken) <{branches}>")
    model.graph.input.append(onnx.helper.make_tensor_value_info("taken", onnx.TensorProto.BOOL, []))
    outcome = check(model, feeds={"taken": np.array(True)})
    assert outcome.counts["BatchNormalization"] == 1


def test_through_a_sum_whose_value_changes_its_name(check: Any) -> None:
    """No branches of one input, which would merge: r lacks the shift of n, and is not r any more."""
    pool = "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>"
    model = check.model(
        f"""g (float[N, 4, H, W] x) => (float[N, 4, A, B] y) {{
            z = Sigmoid (x) a = Conv (z, u) p = {pool} (a) n = BatchNormalization (p, s, b, m, v)
            d = Tanh (x) r = Sub (d, n) c = Conv (x, w) t = Sub (c, r) y = Sigmoid (t)
        }}""",
        check.weights(u=(4, 4, 1, 1), w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    check(model).gone("Sigmoid", "Conv", "AveragePool", "Tanh", "Sub", "Conv", "Sub", "Sigmoid")
