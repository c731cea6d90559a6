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


class TestBlindReaders:
    """Queries, keys and values of one projection: a scale on one of them is none of the others' business."""

    HEAD = "a = int64[1] {0} b = int64[1] {4} c = int64[1] {8} d = int64[1] {12} one = int64[1] {1}"
    PARTS = """p = Conv (x, w)
        q = Slice (p, a, b, one) k = Slice (p, b, c, one) v = Slice (p, c, d, one)"""

    def model(self, check: Any, body: str, outputs: str, *, parts: str = PARTS) -> onnx.ModelProto:
        bounds = {n: np.array([i], np.int64) for n, i in {"a": 0, "b": 4, "c": 8, "d": 12, "one": 1}.items()}
        weights = check.weights(w=(12, 4, 3, 3), e=(1, 8, 1, 1))
        names = {"o": np.array(0.125, np.float32), "u": np.array(3.0, np.float32)}
        text = parts + body
        constants = {**weights, **names, **bounds}
        used = {n: v for n, v in constants.items() if f" {n})" in text or f" {n}," in text}
        return check.model(f"g (float[N, 4, 8, 8] x) => ({outputs}) {{ {parts} {body} }}", used)

    def outputs(self, *names: str) -> str:
        return ", ".join(f"float[N, 4, A, B] {name}" for name in names)

    def test_slices_of_other_channels(self, check: Any) -> None:
        body = "m = Mul (q, o) y = Sigmoid (m) z = Tanh (k) t = Softsign (v)"
        outcome = check(self.model(check, body, self.outputs("y", "z", "t")))
        assert outcome.counts["Mul"] == 0

    def test_two_parts_that_ask_for_different_things(self, check: Any) -> None:
        body = "m = Mul (q, o) n = Mul (k, u) y = Sigmoid (m) z = Tanh (n) t = Softsign (v)"
        outcome = check(self.model(check, body, self.outputs("y", "z", "t")))
        assert outcome.counts["Mul"] == 0

    def test_elements_of_the_channel_axis(self, check: Any) -> None:
        """Gather with constant indices reads its own elements only."""
        parts = """p = Conv (x, w) f = Reshape <allowzero = 0> (p, shape)
            q = Gather <axis = 1> (f, zero) k = Gather <axis = 1> (f, first)"""
        model = check.model(
            f"""g (float[1, 4, 8, 8] x) => (float[1, 4, 6, 6] y, float[1, 4, 6, 6] z) {{ {parts}
                m = Mul (q, o) y = Sigmoid (m) z = Tanh (k) }}""",
            check.weights(w=(12, 4, 3, 3))
            | {
                "o": np.array(0.125, np.float32),
                "shape": np.array([0, 3, 4, 6, 6], np.int64),
                "zero": np.array(0, np.int64),
                "first": np.array(-1, np.int64),
            },
        )
        assert check(model).counts["Mul"] == 0

    def test_a_reader_that_overlaps_sees_the_change(self, check: Any) -> None:
        parts = "p = Conv (x, w) q = Slice (p, a, c, one) k = Slice (p, b, d, one)"
        body = "m = Mul (q, o) y = Sigmoid (m) z = Tanh (k)"
        outputs = "float[N, 8, A, B] y, float[N, 8, A, B] z"
        assert check(self.model(check, body, outputs, parts=parts)).kept("NF103").site == "m"

    def test_overlapping_parts_that_ask_the_same(self, check: Any) -> None:
        """Narrowed to what each reads they would disagree where they overlap; asking for all, they do not."""
        parts = "p = Conv (x, w) q = Slice (p, a, c, one) k = Slice (p, b, d, one)"
        body = "t = Concat <axis = 2> (q, k) m = Mul (t, o) y = Sigmoid (m)"
        assert check(self.model(check, body, "float[N, 8, A, B] y", parts=parts)).counts["Mul"] == 0

    def test_disjoint_parts_that_ask_differently_in_one_walk(self, check: Any) -> None:
        parts = "p = Conv (x, w) q = Slice (p, a, b, one) k = Slice (p, b, c, one) v = Slice (p, c, d, one)"
        body = "t = Concat <axis = 1> (q, k) m = Mul (t, e) y = Sigmoid (m) z = Tanh (v)"
        outputs = "float[N, 8, A, B] y, float[N, 4, A, B] z"
        assert check(self.model(check, body, outputs, parts=parts)).counts["Mul"] == 0

    def test_a_softmax_does_not_see_a_shift_along_its_axis(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, 8, 8] x) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z) {
                p = Conv (x, w) y = Softmax <axis = 3> (p) m = Add (p, s) z = Tanh (m) }""",
            check.weights(w=(4, 4, 3, 3), s=(1, 4, 1, 1)),
        )
        assert check(model).counts["Add"] == 0

    @pytest.mark.parametrize(("call", "blind"), [("CastLike (t, p)", True), ("CastLike (p, t)", False)])
    def test_a_cast_like_reads_the_type_of_its_second_operand(
        self, check: Any, call: str, blind: bool
    ) -> None:
        model = check.model(
            f"""g (float[N, 4, 8, 8] x) => (float[N, 4, 6, 6] y, float[N, 4, A, B] z) {{
                p = Conv (x, w) t = Sigmoid (x) q = {call} z = Tanh (q) m = Mul (p, s) y = Tanh (m) }}""",
            check.weights(w=(4, 4, 3, 3), s=(1, 4, 1, 1)),
        )
        outcome = check(model)
        if blind:
            assert outcome.counts["Mul"] == 0
        else:
            assert outcome.kept("NF103").site == "m"

    def test_a_softmax_sees_a_scale(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, 8, 8] x) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z) {
                p = Conv (x, w) y = Softmax <axis = 3> (p) m = Mul (p, s) z = Tanh (m) }""",
            check.weights(w=(4, 4, 3, 3), s=(1, 4, 1, 1)),
        )
        assert check(model).kept("NF103").site == "m"


class TestPastABias:
    """A linear layer on tokens is MatMul and Add; what its readers ask for goes into both."""

    def model(self, check: Any, outputs: str, more: str) -> onnx.ModelProto:
        return check.model(
            f"""g (float[N, 5, 6] x) => ({outputs}) {{
                m = MatMul (x, w) a = Add (m, b) k = Mul (a, s) y = Sigmoid (k) {more} }}""",
            check.weights(w=(6, 4), b=(4,), s=(4,)),
        )

    def test_weight_and_bias_take_the_scale(self, check: Any) -> None:
        outcome = check(self.model(check, "float[N, 5, 4] y", ""))
        outcome.gone("MatMul", "Add", "Sigmoid")

    def test_another_reader_of_the_product_bars_the_weight(self, check: Any) -> None:
        outputs = "float[N, 5, 4] y, float[N, 5, 4] z"
        outcome = check(self.model(check, outputs, "z = Tanh (m)"))
        assert outcome.counts["MatMul"] == 1
        assert outcome.counts["Add"] + outcome.counts["Mul"] == 2

    def test_a_scaled_score_in_attention(self, check: Any) -> None:
        """The scalar behind q·k goes through q to the projection's weight, past its bias."""
        model = check.model(
            """g (float[N, 5, 6] x) => (float[N, 5, 5] y) {
                q0 = MatMul (x, w) q = Add (q0, b) k = MatMul (x, u)
                kt = Transpose <perm = [0, 2, 1]> (k) s0 = MatMul (q, kt) s = Mul (s0, o)
                y = Softmax <axis = -1> (s) }""",
            check.weights(w=(6, 4), b=(4,), u=(6, 4)) | {"o": np.array(0.5, np.float32)},
        )
        assert check(model).counts["Mul"] == 0


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
