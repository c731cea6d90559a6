"""Folds that other tools get wrong. Each test names the tool that was seen to be wrong in its docstring."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest


class TestMatMulBehindALayoutChange:
    """onnxruntime's MatMul–BatchNormalization fusion looks through Transpose and Reshape, by size alone."""

    @pytest.mark.parametrize("perm", [[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    def test_transpose_with_coinciding_sizes(self, check: Any, perm: list[int]) -> None:
        """Everything is 4 long; only the permutation says where the channel comes from."""
        model = check.model(
            f"""g (float[4, 4, 4] x) => (float[4, 4, 4] y) {{
                t = MatMul (x, w)
                p = Transpose <perm = {perm}> (t)
                y = BatchNormalization (p, s, b, m, v)
            }}""",
            check.weights(w=(4, 4)) | check.batchnorm(4),
        )
        outcome = check(model)
        # Only perm [0, 2, 1] brings the weight's columns to axis 1.
        if perm[1] != 2:
            assert {"BatchNormalization", "Mul"} & set(outcome.ops)

    @pytest.mark.parametrize("shape", ["4, 4", "16", "2, 2, 4", "4, 2, 2"])
    def test_reshape_with_coinciding_sizes(self, check: Any, shape: str) -> None:
        model = check.model(
            f"""g (float[4, 4] x) => (float[A, B] y) {{
                t = MatMul (x, w)
                sh = Constant <value = int64[{shape.count(",") + 2}] {{1, {shape}}}> ()
                r = Reshape (t, sh)
                n = BatchNormalization (r, s, b, m, v)
                y = Flatten (n)
            }}""",
            check.weights(w=(4, 4)) | check.batchnorm(int(shape.split(",")[0])),
        )
        check(model)

    def test_reshape_that_swaps_rows_and_columns_by_size(self, check: Any) -> None:
        """[6, 4] to [4, 6]: the second axis of both has parameters to give, and they are not the same."""
        model = check.model(
            """g (float[6, 3] x) => (float[4, 6] y) {
                t = MatMul (x, w)
                sh = Constant <value = int64[2] {4, 6}> ()
                r = Reshape (t, sh)
                y = BatchNormalization (r, s, b, m, v)
            }""",
            check.weights(w=(3, 4)) | check.batchnorm(6),
        )
        assert "MatMul" in check(model).ops

    @pytest.mark.parametrize("length", ["7", "L"])
    def test_batchnorm_on_tokens_is_folded(self, check: Any, length: str) -> None:
        """The true pattern: N and L merge, the channel is kept."""
        model = check.model(
            f"""g (float[2, {length}, 4] x) => (float[A, B, C] y) {{
                t = MatMul (x, w)
                flat = Constant <value = int64[2] {{-1, 6}}> ()
                back = Constant <value = int64[3] {{2, -1, 6}}> ()
                r = Reshape (t, flat)
                n = BatchNormalization (r, s, b, m, v)
                y = Reshape (n, back)
            }}""",
            check.weights(w=(4, 6)) | check.batchnorm(6),
        )
        outcome = check(model)
        assert outcome.counts["BatchNormalization"] == 0 and outcome.counts["Mul"] == 0


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 1, 6), (1, 1, 6, 1)])
def test_a_constant_along_the_width_or_height(check: Any, op: str, shape: tuple[int, ...]) -> None:
    """OnnxSlim folds a ``[W]``-shaped constant into a Conv whose channels are as many."""
    model = check.model(
        f"g (float[N, 3, 6, 6] x) => (float[N, 6, 6, 6] y) {{ c = Conv (x, w) y = {op} (c, k) }}",
        check.weights(w=(6, 3, 1, 1), k=shape),
    )
    outcome = check(model)
    assert outcome.kept("NF110").site == "y"
    assert outcome.ops == ["Conv", op]


@pytest.mark.parametrize("opset", [14, 15, 20])
def test_a_training_batchnorm(check: Any, opset: int) -> None:
    """The onnxscript rewriter folds it with its running statistics."""
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w) y, rm, rv = BatchNormalization <training_mode = 1> (c, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6),
        opset=opset,
    )
    folded = check.fold_only(model)
    assert [s.code for s in folded.sites] == ["NF107"] and not folded.changed


def test_half_conv_with_single_batchnorm(check: Any) -> None:
    """OnnxSlim and onnxscript write float32 weights into a float16 Conv: an invalid model."""
    constants = {"w": check.weights(w=(6, 3, 3, 3))["w"].astype(np.float16)} | check.batchnorm(6)
    model = check.model(
        """g (float16[N, 3, 5, 5] x) => (float16[N, 6, 3, 3] y) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        constants,
        opset=15,
    )
    outcome = check(model).gone("Conv")
    onnx.checker.check_model(outcome.proto, full_check=True)
    assert {t.data_type for t in outcome.proto.graph.initializer} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_grouped_conv_transpose(check: Any, groups: int, bias: bool) -> None:
    """torch and coremltools scale the wrong axis of a grouped ConvTranspose weight."""
    model = check.model(
        f"""g (float[N, {2 * groups}, 4, 4] x) => (float[N, {3 * groups}, A, B] y) {{
            c = ConvTranspose <group = {groups}, strides = [2, 2]> (x, w{", z" if bias else ""})
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=(2 * groups, 3, 3, 3), **({"z": 3 * groups} if bias else {}))
        | check.batchnorm(3 * groups),
    )
    check(model).gone("ConvTranspose")


def test_groups_as_many_as_inputs_of_one(check: Any) -> None:
    """With as many inputs as outputs per group shapes agree whichever axis is scaled."""
    model = check.model(
        """g (float[N, 6, 4, 4] x) => (float[N, 6, A, B] y) {
            c = ConvTranspose <group = 2> (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6),
    )
    check(model).gone("ConvTranspose")


@pytest.mark.parametrize("beta", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_gemm_with_alpha_and_beta(check: Any, alpha: float, beta: float) -> None:
    """AIMET and older onnxscript ignore beta (and alpha)."""
    model = check.model(
        f"""g (float[N, 4] x) => (float[N, 6] y) {{
            c = Gemm <alpha = {alpha}, beta = {beta}> (x, w, z) y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=(4, 6), z=6) | check.batchnorm(6),
    )
    check(model).gone("Gemm")


def test_a_shared_weight_is_not_edited_in_place(check: Any) -> None:
    """torch's fuse_conv_bn edits a weight that another layer shares."""
    model = check.model(
        """g (float[N, 6, 5, 5] x) => (float[N, 6, 3, 3] y, float[N, 6, 3, 3] z) {
            c = Conv (x, w, q) y = BatchNormalization (c, s, b, m, v)
            z = Conv (x, w, q)
        }""",
        check.weights(w=(6, 6, 3, 3), q=6) | check.batchnorm(6),
    )
    outcome = check(model).gone("Conv", "Conv")
    last = next(n for n in outcome.proto.graph.node if n.output[0] == "z")
    assert list(last.input) == ["x", "w", "q"]
    np.testing.assert_array_equal(outcome.tensor("w"), check.weights(w=(6, 6, 3, 3))["w"])


@pytest.mark.parametrize(
    ("parameter", "value", "code"),
    [
        ("v", -1.0, "NF109"),
        ("v", -1e-5, "NF109"),
        ("v", np.nan, "NF108"),
        ("v", np.inf, "NF108"),
        ("m", np.nan, "NF108"),
        ("s", np.inf, "NF108"),
        ("b", -np.inf, "NF108"),
    ],
)
def test_broken_statistics_are_not_baked_in(check: Any, parameter: str, value: float, code: str) -> None:
    """All five tools that were tried write NaN into the weights."""
    constants = check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6)
    constants[parameter][3] = value
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        constants,
    )
    folded = check.fold_only(model)
    assert [(s.action, s.code) for s in folded.sites] == [("kept", code)]
    assert not folded.changed


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_broken_weights_are_not_spread(check: Any, weight: float) -> None:
    constants = check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6)
    constants["w"][2, 1, 0, 0] = weight
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        constants,
    )
    assert [s.code for s in check.fold_only(model).sites] == ["NF108"]


@pytest.mark.parametrize("inside", ["Neg (c)", "Sigmoid (c)"])
@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_a_reader_inside_a_body_counts(check: Any, inside: str, kind: str) -> None:
    """Tools that count readers in one graph only fold the BatchNormalization under the body's feet."""
    body = (
        f"""o = If (p) <
            then_branch = t () => (float[N, 6, 3, 3] a) {{ a = {inside} }},
            else_branch = e () => (float[N, 6, 3, 3] d) {{ d = Identity (c) }}
        >"""
        if kind == "If"
        else f"""trips = Constant <value = int64 {{2}}> ()
        zero = Sub (c, c)
        o = Loop (trips, p, zero) <
            body = l (int64 i, bool go, float[N, 6, 3, 3] before) => (bool on, float[N, 6, 3, 3] next) {{
                on = Identity (go) a = {inside} next = Add (before, a)
            }}
        >"""
    )
    model = check.model(
        f"""g (float[N, 3, 5, 5] x, bool p) => (float[N, 6, 3, 3] y, float[N, 6, 3, 3] o) {{
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
            {body}
        }}""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6),
    )
    outcome = check(model, feeds={"p": np.array(True)})
    assert outcome.sites["y"].action == "kept"
    if kind == "If":
        assert outcome.sites["y"].code == "NF104"


@pytest.mark.parametrize("taken", ["w_1", "c_bias", "n_bias", "y_bias", "w_folded", "c_weight"])
def test_a_new_initializer_gets_a_free_name(check: Any, taken: str) -> None:
    """Suffixes that tools append are names that a user may have."""
    model = check.model(
        f"""g (float[N, 6, 5, 5] x) => (float[N, 6, 5, 5] y, float[N, 6, 5, 5] z) {{
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
            {taken} = Conv (x, w)
            z = Sigmoid ({taken})
        }}""",
        check.weights(w=(6, 6, 1, 1)) | check.batchnorm(6),
    )
    check(model).gone("Conv", "Conv", "Sigmoid")


def test_a_captured_output_is_a_reader(check: Any) -> None:
    """AIMET is wrong where the value in front of the BatchNormalization is an output of the model."""
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y, float[N, 6, 3, 3] c) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6),
    )
    check(model).kept("NF105")


@pytest.mark.parametrize("attributes", ['auto_pad = "SAME_UPPER"', "pads = [1, 1, 1, 1]"])
def test_a_shift_in_front_of_padding(check: Any, attributes: str) -> None:
    """AIMET forgets auto_pad: a BatchNormalization in front of a padded Conv is no bias at the border."""
    model = check.model(
        f"""g (float[N, 3, 5, 5] x) => (float[N, 6, 5, 5] y) {{
            r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v) y = Conv <{attributes}> (n, w)
        }}""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(3),
    )
    outcome = check(model)
    assert {"BatchNormalization", "Add", "Mul"} & set(outcome.ops)
