"""Weights with several readers, dead nodes, and what a fold leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest


def names(model: onnx.ModelProto) -> set[str]:
    return {t.name for t in model.graph.initializer}


def test_a_weight_with_another_reader_is_cloned(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[N, 4, H, W] z) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
            z = Conv (x, w)
        }""",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    outcome = check(model).gone("Conv", "Conv")
    np.testing.assert_array_equal(outcome.tensor("w"), check.weights(w=(4, 4, 1, 1))["w"])


def test_two_folds_of_one_weight_do_not_meet(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[N, 4, H, W] z) {
            c = Conv (x, w, q)
            y = BatchNormalization (c, s, b, m, v)
            d = Conv (y, w, q)
            z = Mul (d, k)
        }""",
        check.weights(w=(4, 4, 1, 1), q=4, k=(4, 1, 1)) | check.batchnorm(4),
    )
    outcome = check(model).gone("Conv", "Conv")
    assert len(outcome.proto.graph.initializer) == 4


def test_a_weight_that_is_a_graph_output_stays_as_it_is(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[4, 4, 1, 1] o) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
            o = Identity (w)
        }""",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    check(model)


def test_an_initializer_that_is_itself_an_output(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[4, 4, 1, 1] w) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    outcome = check(model)
    np.testing.assert_array_equal(outcome.tensor("w"), check.weights(w=(4, 4, 1, 1))["w"])


def test_a_weight_read_inside_a_body(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x, bool p) => (float[N, 4, H, W] y, float[4, 4, 1, 1] o) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
            o = If (p) <
                then_branch = t () => (float[4, 4, 1, 1] a) { a = Identity (w) },
                else_branch = e () => (float[4, 4, 1, 1] d) { d = Neg (w) }
            >
        }""",
        check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
    )
    outcome = check(model, feeds={"p": np.array(False)})
    assert "BatchNormalization" not in outcome.ops
    np.testing.assert_array_equal(outcome.tensor("w"), check.weights(w=(4, 4, 1, 1))["w"])


def test_weight_as_an_expression_shared_with_another_reader(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y, float[N, 4, H, W] z) {
            t = Mul (w, g)
            c = Conv (x, t)
            y = BatchNormalization (c, s, b, m, v)
            z = Conv (x, t)
        }""",
        check.weights(w=(4, 4, 1, 1), g=(4, 1, 1, 1)) | check.batchnorm(4),
    )
    check(model).gone("Conv", "Conv")


class TestDead:
    def test_the_users_dead_nodes_stay(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
                u = Sigmoid (x)
                i = Identity (u)
            }""",
            check.weights(w=(4, 4, 1, 1)) | check.batchnorm(4),
        )
        assert sorted(check(model).ops) == ["Conv", "Identity", "Sigmoid"]

    def test_a_dead_affine_stays(self, check: Any) -> None:
        """Nobody reads it: what would absorb it could only become dead with it."""
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
                d = Conv (x, w)
                dead = BatchNormalization (d, s, b, m, v)
                e = Mul (x, k)
            }""",
            check.weights(w=(4, 4, 1, 1), k=(4, 1, 1)) | check.batchnorm(4),
        )
        outcome = check(model)
        assert sorted(outcome.ops) == ["BatchNormalization", "Conv", "Conv", "Mul"]
        assert set(outcome.sites) == {"y"}

    def test_unused_initializers_of_the_user_stay(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
            }""",
            check.weights(w=(4, 4, 1, 1), unused=3) | check.batchnorm(4),
        )
        proto = check(model).proto
        assert "unused" in names(proto) and not {"s", "b", "m", "v"} & names(proto)

    def test_what_a_fold_made_useless_goes(self, check: Any) -> None:
        """The expression behind the parameters goes with them."""
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                ax = Constant <value = int64[2] {1, 2}> ()
                q = Sqrt (v) r = Unsqueeze (q, ax)
                c = Conv (x, w)
                y = Div (c, r)
            }""",
            check.weights(w=(4, 4, 1, 1)) | {"v": np.linspace(0.5, 2, 4, dtype=np.float32)},
        )
        outcome = check(model).gone("Conv")
        assert len(outcome.proto.graph.initializer) == 1


class TestNothingToDo:
    @pytest.mark.parametrize(
        "body",
        [
            "r = Identity (x) y = Sigmoid (r)",
            "a = Sigmoid (x) n = BatchNormalization (a, s, b, m, v) y = Sigmoid (n)",
            "r = Relu (x) d = Dropout (r) y = Sigmoid (d)",
        ],
    )
    def test_a_model_without_a_fold_is_reported_unchanged(self, check: Any, body: str) -> None:
        """And comes back as it was, Identity and Dropout included."""
        constants = check.weights(k=(4, 1, 1)) | check.batchnorm(4)
        used = {n: a for n, a in constants.items() if f", {n}" in body}
        model = check.model(f"g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {{ {body} }}", used)
        outcome = check(model)
        assert not outcome.folded.changed
        came = ir.to_proto(ir.from_proto(model))
        assert list(outcome.proto.graph.node) == list(came.graph.node)
        assert list(outcome.proto.graph.initializer) == list(came.graph.initializer)

    def test_bytes_are_reproducible(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) d = Conv (n, w) y = Mul (d, k)
            }""",
            check.weights(w=(4, 4, 1, 1), k=(4, 1, 1)) | check.batchnorm(4),
        )
        first, second = (check(model).proto.SerializeToString(deterministic=True) for _ in range(2))
        assert first == second
