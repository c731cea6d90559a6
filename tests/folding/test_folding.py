"""The fold of whole models in memory: control flow, local functions, many layers, options, reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.folding import fold_model
from normfold.options import FoldOptions

CHANNELS = 4


def weights(check: Any, **more: Any) -> dict[str, np.ndarray]:
    return check.weights(w=(CHANNELS, CHANNELS, 1, 1), **more) | check.batchnorm(CHANNELS)


X = "float[N, 4, H, W] x"
Y = "float[N, 4, H, W] y"


class TestControlFlow:
    @pytest.mark.parametrize("taken", [True, False])
    def test_folds_inside_both_branches(self, check: Any, taken: bool) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}) {{
                y = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{
                        c = Conv (x, w) a = BatchNormalization (c, s, b, m, v)
                    }},
                    else_branch = e () => (float[N, 4, H, W] d) {{
                        f = Conv (x, w) d = Mul (f, k)
                    }}
                >
            }}""",
            weights(check, k=(4, 1, 1)),
        )
        check(model, feeds={"p": np.array(taken)}).gone("If", "Conv", "Conv")

    @pytest.mark.parametrize("taken", [True, False])
    def test_the_same_names_in_both_branches(self, check: Any, taken: bool) -> None:
        """Two bodies are two scopes: their values and initializers may have the same names."""
        model = check.model(
            f"""g ({X}, bool p) => ({Y}) {{
                y = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{
                        u = Constant <value = float[4, 1, 1] {{1, 2, 3, 4}}> ()
                        c = Conv (x, w) a = Mul (c, u)
                    }},
                    else_branch = e () => (float[N, 4, H, W] a) {{
                        u = Constant <value = float[4, 1, 1] {{-1, 5, 2, 1}}> ()
                        c = Conv (x, w) a = Mul (c, u)
                    }}
                >
            }}""",
            {"w": weights(check)["w"]},
        )
        check(model, feeds={"p": np.array(taken)}).gone("If", "Conv", "Conv")

    def test_a_capture_is_a_reader_backward(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}, float[N, 4, H, W] o) {{
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
                o = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{ a = Neg (c) }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Identity (c) }}
                >
            }}""",
            weights(check),
        )
        assert check(model, feeds={"p": np.array(True)}).kept("NF104", "y")

    def test_a_capture_is_a_reader_forward(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}, float[N, 4, H, W] o) {{
                t = Sigmoid (x)
                n = BatchNormalization (t, s, b, m, v)
                y = Conv (n, w)
                o = If (p) <
                    then_branch = t1 () => (float[N, 4, H, W] a) {{ a = Sigmoid (n) }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Tanh (n) }}
                >
            }}""",
            weights(check),
        )
        assert check(model, feeds={"p": np.array(True)}).kept("NF104", "n")

    def test_a_capture_two_levels_down(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}, float[N, 4, H, W] o) {{
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
                o = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{
                        a = If (p) <
                            then_branch = t2 () => (float[N, 4, H, W] a2) {{ a2 = Neg (c) }},
                            else_branch = e2 () => (float[N, 4, H, W] d2) {{ d2 = Abs (x) }}
                        >
                    }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Identity (x) }}
                >
            }}""",
            weights(check),
        )
        assert check(model, feeds={"p": np.array(True)}).kept("NF104", "y")

    def test_a_value_from_outside_is_not_changed_from_inside(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}) {{
                c = Conv (x, w)
                y = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{
                        n = BatchNormalization (c, s, b, m, v) a = Sigmoid (n)
                    }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Sigmoid (x) }}
                >
            }}""",
            weights(check),
        )
        assert check(model, feeds={"p": np.array(True)}).kept("NF126", "n")

    def test_the_result_of_an_if_is_opaque(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}) {{
                o = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{ a = Conv (x, w) }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Conv (x, w) }}
                >
                y = BatchNormalization (o, s, b, m, v)
            }}""",
            weights(check),
        )
        outcome = check(model, feeds={"p": np.array(True)})
        assert "BatchNormalization" in outcome.ops and not outcome.folded.changed

    def test_a_loop_body_folds_what_it_makes_itself(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                n = Constant <value = int64 {{3}}> ()
                t = Constant <value = bool {{1}}> ()
                y = Loop (n, t, x) <
                    body = l (int64 i, bool go, float[N, 4, H, W] state)
                        => (bool on, float[N, 4, H, W] next) {{
                        on = Identity (go)
                        c = Conv (state, w)
                        a = BatchNormalization (c, s, b, m, v)
                        next = Tanh (a)
                    }}
                >
            }}""",
            weights(check),
        )
        outcome = check(model)
        assert "BatchNormalization" not in outcome.ops

    def test_a_loop_carried_value_is_opaque(self, check: Any) -> None:
        """The affine at the end of the body may go into the Conv in front, never around the loop."""
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                n = Constant <value = int64 {{3}}> ()
                t = Constant <value = bool {{1}}> ()
                y = Loop (n, t, x) <
                    body = l (int64 i, bool go, float[N, 4, H, W] state)
                        => (bool on, float[N, 4, H, W] next) {{
                        on = Identity (go)
                        a = Mul (state, k)
                        c = Conv (a, w)
                        f = Tanh (c)
                        next = BatchNormalization (f, s, b, m, v)
                    }}
                >
            }}""",
            weights(check, k=(4, 1, 1)),
        )
        outcome = check(model)
        assert outcome.counts["BatchNormalization"] == 1 and outcome.counts["Mul"] == 0

    def test_an_outer_weight_used_outside_and_inside(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}, bool p) => ({Y}, float[N, 4, H, W] o) {{
                c = Conv (x, w)
                y = BatchNormalization (c, s, b, m, v)
                o = If (p) <
                    then_branch = t () => (float[N, 4, H, W] a) {{ c1 = Conv (x, w) a = Mul (c1, k) }},
                    else_branch = e () => (float[N, 4, H, W] d) {{ d = Conv (x, w) }}
                >
            }}""",
            weights(check, k=(4, 1, 1)),
        )
        check(model, feeds={"p": np.array(True)}).gone("Conv", "If", "Conv", "Conv")
        check(model, feeds={"p": np.array(False)})

    def test_a_deposit_for_a_body_and_a_node_outside(self, check: Any) -> None:
        """What a fold leaves on a value that a body and the main graph read must be visible in both."""
        model = check.model(
            f"""g ({X}, bool p) => ({Y}, float[N, 4, A, B] u, float[N, 4, A, B] o) {{
                t = Sigmoid (x)
                n = BatchNormalization (t, s, b, m, v)
                r = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (n)
                o = If (p) <
                    then_branch = t1 () => (float[N, 4, A, B] a) {{ a = Sigmoid (r) }},
                    else_branch = e () => (float[N, 4, A, B] d) {{ d = Tanh (r) }}
                >
                u = Tanh (r)
                y = Conv (n, w)
            }}""",
            weights(check) | {"s": np.linspace(0.5, 2, 4, dtype=np.float32)},
        )
        feeds = {"p": np.array(True), "x": check.weights(x=(2, 4, 8, 8))["x"]}
        check(model, feeds=feeds)
        pooled = check.model(
            f"""g ({X}, bool p) => (float[N, 4, A, B] u, float[N, 4, A, B] o) {{
                t = Sigmoid (x)
                n = BatchNormalization (t, s, b, m, v)
                r = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (n)
                o = If (p) <
                    then_branch = t1 () => (float[N, 4, A, B] a) {{ a = Sigmoid (r) }},
                    else_branch = e () => (float[N, 4, A, B] d) {{ d = Tanh (r) }}
                >
                u = Tanh (r)
            }}""",
            {"s": np.linspace(0.5, 2, 4, dtype=np.float32)}
            | {k: a for k, a in check.batchnorm(4).items() if k != "s"},
        )
        check(pooled, feeds=feeds)


class TestFunctions:
    def text(self, body: str) -> str:
        return f"""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
            g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {{ {body} }}
            <domain: "local", opset_import: ["" : 17]>
            block (a, k, s, b, m, v) => (z) {{
                c = Conv (a, k)
                n = BatchNormalization (c, s, b, m, v)
                z = Sigmoid (n)
            }}"""

    def model(self, check: Any, body: str) -> onnx.ModelProto:
        model = onnx.parser.parse_model(self.text(body))
        model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights(check).items())
        return model

    def test_folds_inside_a_local_function(self, check: Any) -> None:
        model = self.model(check, "y = local.block (x, w, s, b, m, v)")
        outcome = check(model)
        assert outcome.counts["BatchNormalization"] == 0 and not outcome.proto.functions

    def test_two_calls_with_the_same_weights(self, check: Any) -> None:
        model = self.model(check, "t = local.block (x, w, s, b, m, v) y = local.block (t, w, s, b, m, v)")
        assert check(model).counts == {"Conv": 2, "Sigmoid": 2}

    def test_an_affine_behind_a_call(self, check: Any) -> None:
        body = "t = local.block (x, w, s, b, m, v) f = Conv (t, w) y = BatchNormalization (f, s, b, m, v)"
        assert check(self.model(check, body)).counts["BatchNormalization"] == 0


class TestCustomOperators:
    def model(self, check: Any, body: str, **more: Any) -> onnx.ModelProto:
        used = {k: a for k, a in weights(check, k=(4, 1, 1)).items() if f", {k}" in body}
        return check.model(f"g ({X}) => ({Y}) {{ {body} }}", used, also=', "custom" : 1')

    def test_they_are_opaque(self, check: Any) -> None:
        body = "c = Conv (x, w) t = custom.Thing (c) y = BatchNormalization (t, s, b, m, v)"
        folded = check.fold_only(self.model(check, body))
        (site,) = folded.sites
        assert site.action == "kept"

    def test_a_custom_op_with_the_name_of_a_standard_one(self, check: Any) -> None:
        body = "c = custom.Conv (x, w) y = BatchNormalization (c, s, b, m, v)"
        assert not check.fold_only(self.model(check, body)).changed

    def test_a_custom_batchnorm_is_not_ours(self, check: Any) -> None:
        body = "c = Conv (x, w) y = custom.BatchNormalization (c, s, b, m, v)"
        assert not check.fold_only(self.model(check, body)).changed


class TestOptions:
    def model(self, check: Any) -> onnx.ModelProto:
        return check.model(
            f"g ({X}) => ({Y}) {{ c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n) }}",
            weights(check),
        )

    def test_keep_names_a_site(self, check: Any) -> None:
        outcome = check(self.model(check), FoldOptions(keep=frozenset({"n"})))
        assert outcome.kept("NF120").site == "n"
        assert not outcome.folded.changed

    def test_keep_one_of_two(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                c = Conv (x, w) n = BatchNormalization (c, s, b, m, v)
                r = Sigmoid (n)
                d = Conv (r, w) y = BatchNormalization (d, s, b, m, v)
            }}""",
            weights(check),
        )
        outcome = check(model, FoldOptions(keep=frozenset({"n"})))
        assert {s.site: s.action for s in outcome.folded.sites} == {"n": "kept", "y": "folded"}

    def test_a_kept_site_takes_nothing_over(self, check: Any) -> None:
        """The node named with keep stays as it is: another affine may not be merged into it."""
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                r = Sigmoid (x)
                n = BatchNormalization (r, s, b, m, v)
                t = Relu (n)
                y = Mul (t, k)
            }}""",
            weights(check, k=(4, 1, 1)) | {"k": np.full((4, 1, 1), 2.0, np.float32)},
        )
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "w"))
        outcome = check(model, FoldOptions(keep=frozenset({"n"})))
        (node,) = [n for n in outcome.proto.graph.node if n.op_type == "BatchNormalization"]
        assert list(node.output) == ["n"]
        np.testing.assert_array_equal(outcome.tensor(node.input[1]), check.batchnorm(4)["s"])

    @pytest.mark.parametrize("name", ["c", "n", "r"])
    def test_a_kept_producer_is_neither_edited_nor_renamed(self, check: Any, name: str) -> None:
        """Every node in the way counts: what would absorb, the affine itself, the Relu between."""
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) r = Relu (n) y = Mul (r, k)
            }}""",
            weights(check) | {"k": np.full((4, 1, 1), 2.0, np.float32)},
        )
        outcome = check(model, FoldOptions(keep=frozenset({name})))
        before, after = (
            {o: (n.op_type, list(n.input)) for n in m.graph.node for o in n.output}
            for m in (model, outcome.proto)
        )
        if name == "r":
            assert after["r"][0] == "Relu"
        else:
            assert after[name] == before[name]

    def test_skip_names_a_rule(self, check: Any) -> None:
        outcome = check(self.model(check), FoldOptions(skip=frozenset({"conv"})))
        assert outcome.kept("NF125").site == "n"


class TestReport:
    def test_each_site_once_with_what_became_of_it(self, check: Any) -> None:
        model = check.model(
            f"""g ({X}) => ({Y}) {{
                c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) a = Mul (n, k)
                r = Sigmoid (a)
                d = BatchNormalization (r, s, b, m, v)
                y = Sigmoid (d)
            }}""",
            weights(check, k=(4, 1, 1)),
        )
        outcome = check(model)
        first, second = (outcome.sites[n] for n in ("a", "d"))
        assert (first.kind, first.action, first.rule, first.into) == ("batchnorm", "folded", "conv", ("a",))
        assert first.nodes == ("BatchNormalization", "Mul") and first.code is None
        assert (second.action, second.code) == ("kept", "NF114")

    def test_provenance_holds_the_original_statistics(self, check: Any) -> None:
        import base64

        model = check.model(
            f"g ({X}) => ({Y}) {{ c = Conv (x, w) y = BatchNormalization (c, s, b, m, v) }}", weights(check)
        )
        (entry,) = check(model).folded.provenance
        assert entry["site"] == "y" and entry["rule"] == "conv"
        stored = np.frombuffer(base64.b64decode(entry["var"]), "<f4")
        np.testing.assert_array_equal(stored, weights(check)["v"])
        assert entry["epsilon"] == pytest.approx(1e-5)

    def test_normalisations_with_their_own_statistics_are_listed(self, check: Any) -> None:
        model = check.model(
            f"g ({X}) => ({Y}) {{ y = InstanceNormalization (x, s, b) }}",
            {k: a for k, a in weights(check).items() if k in "sb"},
        )
        outcome = check(model)
        assert [(s.kind, s.code) for s in outcome.folded.sites] == [("instancenorm", "NF121")]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_nets_stay_right(check: Any, data: st.DataObject) -> None:
    """Nets with fan-out, sums, affines in all places and outputs in the middle."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000), label="seed"))
    constants: dict[str, np.ndarray] = {}
    values, body = ["x"], []

    def constant(shape: tuple[int, ...]) -> str:
        name = f"k{len(constants)}"
        constants[name] = (rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)).astype(np.float32)
        return name

    for index in range(data.draw(st.integers(3, 12), label="length")):
        kind = data.draw(st.sampled_from(["conv", "bn", "mul", "add", "sub", "sum", "relu", "prod", "neg"]))
        v = values[data.draw(st.integers(max(0, len(values) - 3), len(values) - 1))]
        u = values[data.draw(st.integers(max(0, len(values) - 3), len(values) - 1))]
        if kind == "conv":
            groups, k = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.sampled_from([1, 3]))
            pads = [k // 2] * 4
            node = f"Conv <group = {groups}, pads = {pads}> ({v}, {constant((4, 4 // groups, k, k))})"
        elif kind == "bn":
            parameters = check.batchnorm(4, index, prefix=f"p{index}")
            parameters[f"p{index}v"] = parameters[f"p{index}v"] + np.float32(0.5)
            constants |= parameters
            node = f"BatchNormalization ({v}, p{index}s, p{index}b, p{index}m, p{index}v)"
        elif kind in ("mul", "add", "sub"):
            shape = data.draw(st.sampled_from([(4, 1, 1), (), (1, 4, 1, 1), (5,), (4, 1, 5)]))
            pair = [v, constant(shape)]
            if data.draw(st.booleans()):
                pair.reverse()
            node = f"{kind.capitalize()} ({', '.join(pair)})"
        elif kind in ("sum", "prod"):
            node = f"{'Add' if kind == 'sum' else 'Mul'} ({v}, {u})"
        else:
            node = f"{kind.capitalize()} ({v})"
        body.append(f"v{index} = {node}")
        values.append(f"v{index}")
    outputs = {values[-1], *data.draw(st.lists(st.sampled_from(values[1:]), max_size=2))}
    signature = ", ".join(f"float[N, 4, 5, 5] {name}" for name in sorted(outputs))
    model = check.model(f"g (float[N, 4, 5, 5] x) => ({signature}) {{ {' '.join(body)} }}", constants)
    # Products of products amplify rounding; an epsilon or a padding mistake is a million times larger.
    check(model, tolerance=1e-9, settled=False)


def test_planning_a_long_chain_takes_linear_time(check: Any) -> None:
    """Not a benchmark: a quadratic planner would need minutes."""
    layers = 300
    body = " ".join(
        f"c{i} = Conv (n{i}, w) n{i + 1} = BatchNormalization (c{i}, s, b, m, v)" for i in range(layers)
    )
    model = check.model(
        f"g (float[N, 4, H, W] n0) => (float[N, 4, H, W] n{layers}) {{ {body} }}", weights(check)
    )
    folded = fold_model(ir.from_proto(model))
    assert {node.op_type for node in folded.model.graph} == {"Conv"}


def test_sites_are_named_by_values_of_the_original(check: Any) -> None:
    """A scale behind a sum renames it; then the sum's branches merge: the site is the sum's first name."""
    model = check.model(
        "g (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) { a = Conv<pads = [1, 1, 1, 1]>(x, w) "
        "b = Conv(x, u) t = Add(a, b) r = Relu(t) n = Mul(r, k) y = Sigmoid(n) }",
        {**check.weights(w=(4, 3, 3, 3), u=(4, 3, 1, 1)), "k": np.full((4, 1, 1), 2.0, np.float32)},
    )
    outcome = check(model)
    assert outcome.counts["Conv"] == 1 and outcome.counts["Mul"] == 0
    values = {name for node in model.graph.node for name in node.output}
    assert {site.site for site in outcome.folded.sites} <= values
