"""The walk: requests per use, diamonds, what bars the way, and what has to stay where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

K = {"k": np.linspace(0.5, 2, 4, dtype=np.float32).reshape(4, 1, 1)}


def net(check: Any, body: str, *, outputs: str = "float[N, 4, A, B] y", **more: Any) -> onnx.ModelProto:
    """``body`` reads ``x`` with 4 channels and may use w, u (Conv weights), k (positive) and s, b, m, v."""
    constants = check.weights(w=(4, 4, 3, 3), u=(4, 4, 1, 1), **more) | K | check.batchnorm(4)
    used = {n: a for n, a in constants.items() if f", {n})" in body or f", {n}," in body or f"({n}," in body}
    return check.model(f"g (float[N, 4, 8, 8] x) => ({outputs}) {{ {body} }}", used)


class TestDiamonds:
    def test_two_uses_by_one_node_ask_alike(self, check: Any) -> None:
        check(net(check, "c = Conv (x, w) t = Add (c, c) n = Mul (t, k) y = Sigmoid (n)"))

    def test_a_product_with_itself_wants_the_root(self, check: Any) -> None:
        outcome = check(net(check, "c = Conv (x, w) t = Mul (c, c) n = Mul (t, k) y = Sigmoid (n)"))
        assert outcome.counts["Conv"] == 1

    def test_branches_that_meet_again(self, check: Any) -> None:
        """``x − pool(x)``: the scale arrives at the Conv from both readers, and they agree."""
        body = """c = Conv (x, u)
            p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c)
            t = Sub (p, c) n = Mul (t, k) y = Sigmoid (n)"""
        check(net(check, body)).gone("Conv", "AveragePool", "Sub", "Sigmoid")

    def test_a_third_reader_bars_the_diamond(self, check: Any) -> None:
        body = """c = Conv (x, u)
            p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c)
            t = Sub (p, c) n = Mul (t, k) y = Sigmoid (n) z = Tanh (c)"""
        outputs = "float[N, 4, A, B] y, float[N, 4, A, B] z"
        assert check(net(check, body, outputs=outputs)).kept("NF103").site == "n"

    def test_readers_that_ask_differently(self, check: Any) -> None:
        """NF119: the halves of a doubled value are scaled differently."""
        model = check.model(
            """g (float[N, 4, 8, 8] x) => (float[N, 8, A, B] y) {
                c = Conv (x, w) t = Concat <axis = 1> (c, c) n = Mul (t, k) y = Sigmoid (n)
            }""",
            check.weights(w=(4, 4, 3, 3)) | {"k": np.linspace(0.5, 2, 8, dtype=np.float32).reshape(8, 1, 1)},
        )
        check(model).kept("NF119")

    def test_readers_that_ask_the_same(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, 8, 8] x) => (float[N, 8, A, B] y) {
                c = Conv (x, w) t = Concat <axis = 1> (c, c) n = Mul (t, k) y = Sigmoid (n)
            }""",
            check.weights(w=(4, 4, 3, 3)) | {"k": np.tile(K["k"], (2, 1, 1))},
        )
        check(model).gone("Conv", "Concat", "Sigmoid")


class TestForward:
    def test_every_reader_takes_its_own_copy(self, check: Any) -> None:
        body = """r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v)
            c = Conv (n, w) d = Conv (n, w) t = Add (c, d) y = Sigmoid (t)"""
        outcome = check(net(check, body), settled=False)
        assert outcome.counts["BatchNormalization"] == 0

    def test_one_reader_that_cannot_bars_all(self, check: Any) -> None:
        body = """r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v)
            y = Conv (n, w) z = Tanh (n)"""
        outputs = "float[N, 4, A, B] y, float[N, 4, C, D] z"
        assert check(net(check, body, outputs=outputs)).kept("NF114").site == "n"

    def test_one_node_that_reads_it_as_weight_and_value(self, check: Any) -> None:
        model = check.model(
            """g (float[4, 4, 1, 1] x) => (float[4, 4, 1, 1] y) {
                r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v) y = Conv (n, n)
            }""",
            check.batchnorm(4),
        )
        assert check(model).kept("NF115").site == "n"

    def test_a_graph_output_bars_it(self, check: Any) -> None:
        body = "r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v) y = Conv (n, w)"
        outputs = "float[N, 4, A, B] y, float[N, 4, C, D] n"
        assert check(net(check, body, outputs=outputs)).kept("NF105").site == "n"


class TestNeighbours:
    def test_an_outer_product_is_not_made(self, check: Any) -> None:
        """NF122: a factor per channel and one per column are 4 + 8 numbers, together they would be 32."""
        body = "r = Sigmoid (x) a = Mul (r, k) n = Mul (a, h) y = Sigmoid (n)"
        outcome = check(net(check, body, h=8))
        assert outcome.sites["n"].code == "NF122" and not outcome.folded.changed

    def test_each_of_two_neighbours_goes_its_own_way(self, check: Any) -> None:
        """The factor per channel goes into the Conv, past the one per column, or stays behind it."""
        body = "c = Conv (x, u) a = Mul (c, h) n = Mul (a, k) y = Sigmoid (n)"
        check(net(check, body, h=8))


class TestWeights:
    @pytest.mark.parametrize(("least", "folds"), [(-127, True), (-128, False)])
    def test_a_quantised_weight_that_changes_sign(self, check: Any, least: int, folds: bool) -> None:
        """NF124: −(−128) is not a number of int8."""
        stored = np.arange(64, dtype=np.int8).reshape(4, 4, 2, 2)
        stored[1, 0, 0, 0] = least
        model = check.model(
            """g (float[N, 4, 8, 8] x) => (float[N, 4, A, B] y) {
                f = DequantizeLinear <axis = 0> (w8, q) c = Conv (x, f) n = Mul (c, k) y = Sigmoid (n)
            }""",
            {"w8": stored, "q": np.linspace(0.1, 0.4, 4, dtype=np.float32)} | {"k": -K["k"]},
        )
        outcome = check(model)
        assert outcome.sites["n"].code == (None if folds else "NF124")
        assert outcome.counts["Mul"] == (0 if folds else 1)

    def test_a_weight_that_is_a_graph_input(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, 8, 8] x, float[4, 4, 3, 3] w) => (float[N, 4, A, B] y) {
                c = Conv (x, w) n = Mul (c, k) y = Sigmoid (n)
            }""",
            K,
        )
        assert check(model).kept("NF115").site == "n"


@pytest.mark.parametrize("depth", [1, 50, 60])
def test_a_long_way_to_a_weight(check: Any, depth: int) -> None:
    steps = " ".join(f"t{i + 1} = Relu (t{i})" for i in range(depth))
    outcome = check(net(check, f"t0 = Conv (x, w) {steps} n = Mul (t{depth}, k) y = Sigmoid (n)"))
    assert outcome.counts["Mul"] == 0
