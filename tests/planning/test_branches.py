"""Sums of parallel linear branches, and biases that a normalisation takes out again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.options import FoldOptions

CHANNELS = 4


def multiply_adds(model: onnx.ModelProto, feeds: dict[str, np.ndarray], interpreter: Any) -> int:
    """Of Conv, pools and elementwise operators, by the shapes that the interpreter sees."""
    values = interpreter(model).run(feeds)
    total = 0
    for node in model.graph.node:
        size = values[node.output[0]].size
        if node.op_type == "Conv":
            total += size * math.prod(values[node.input[1]].shape[1:])
        elif node.op_type == "AveragePool":
            kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            total += size * math.prod(kernel)
        elif node.op_type == "Sum":
            total += size * (len(node.input) - 1)
        elif node.op_type != "Constant":
            total += size
    return total


@dataclass
class Text:
    """The body of a model that is being drawn: nodes and their constants."""

    nodes: list[str] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    names: int = 0

    def value(self, node: str) -> str:
        self.names += 1
        self.nodes.append(f"v{self.names} = {node}")
        return f"v{self.names}"

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name


def numbers(values: Any) -> str:
    return f"[{', '.join(map(str, values))}]"


@st.composite
def sums(draw: st.DrawFn) -> tuple[str, dict[str, np.ndarray], int]:
    """A sum of branches that line up: ``(body, constants, rank)``. The body reads x and the foreign z."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rank = draw(st.integers(1, 3))
    stride = draw(st.sampled_from([1, 1, 2]))
    text = Text()

    def weight(*shape: int) -> str:
        return text.constant(rng.standard_normal(shape).astype(np.float32))

    def window() -> tuple[list[int], list[int], str, list[int]]:
        """Kernel, dilations, and padding with ``begin + end − extent = −1``: as text, and as numbers."""
        kernel = [draw(st.integers(1, 3 if rank > 1 else 5)) for _ in range(rank)]
        dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        if stride == 1 and max(dilations) == 1 and draw(st.booleans()):
            return (
                kernel,
                dilations,
                f'auto_pad = "{draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))}"',
                [],
            )
        begin = [draw(st.integers(0, r)) for r in reach]
        pads = [*begin, *(r - b for r, b in zip(reach, begin, strict=True))]
        return kernel, dilations, f"pads = {numbers(pads)}", pads

    def conv(x: str) -> str:
        kernel, dilations, pads, amounts = window()
        groups = draw(st.sampled_from([1, 2, CHANNELS]))
        if amounts and draw(st.booleans()):
            every = [0, 0, *amounts[:rank], 0, 0, *amounts[rank:]]
            x, pads = text.value(f"Pad ({x}, {text.constant(np.array(every, np.int64))})"), ""
        inputs = f"{x}, {weight(CHANNELS, CHANNELS // groups, *kernel)}"
        if draw(st.booleans()):
            inputs += f", {weight(CHANNELS)}"
        attributes = [
            f"group = {groups}",
            f"dilations = {numbers(dilations)}",
            f"strides = {numbers([stride] * rank)}",
            *([pads] if pads else []),
        ]
        return text.value(f"Conv <{', '.join(attributes)}> ({inputs})")

    def pool(x: str) -> str:
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        begin = [draw(st.integers(0, k - 1)) for k in kernel]
        pads = [*begin, *(k - 1 - b for k, b in zip(kernel, begin, strict=True))]
        counted = "count_include_pad = 1, " if any(pads) or draw(st.booleans()) else ""
        return text.value(
            f"AveragePool <{counted}kernel_shape = {numbers(kernel)}, pads = {numbers(pads)}, "
            f"strides = {numbers([stride] * rank)}> ({x})"
        )

    def serial(x: str) -> str:
        """A 1×1 Conv and a branch over what it makes."""
        groups = draw(st.sampled_from([1, 2, CHANNELS]))
        inputs = f"{x}, {weight(CHANNELS, CHANNELS // groups, *[1] * rank)}"
        if draw(st.booleans()):
            inputs += f", {weight(CHANNELS)}"
        inner = text.value(f"Conv <group = {groups}> ({inputs})")
        return draw(st.sampled_from([conv, pool]))(inner)

    def batchnorm(x: str) -> str:
        statistics = [weight(CHANNELS) for _ in range(3)]
        variance = text.constant(rng.uniform(0.1, 1.0, CHANNELS).astype(np.float32))
        return text.value(f"BatchNormalization ({x}, {', '.join(statistics)}, {variance})")

    def scaled(x: str) -> str:
        factor = rng.uniform(0.5, 2.0, draw(st.sampled_from([(), (CHANNELS, *[1] * rank)])))
        return text.value(f"Mul ({x}, {text.constant(factor.astype(np.float32))})")

    kinds = [conv, conv, pool, serial] if stride > 1 else [conv, conv, pool, serial, lambda x: x, batchnorm]
    operands = [conv("x")]
    for _ in range(draw(st.integers(1, 3))):
        branch = draw(st.sampled_from(kinds))("x")
        if branch == "x":
            branch = draw(st.sampled_from([lambda v: v, scaled]))("x")
        else:
            branch = draw(st.sampled_from([lambda v: v, scaled, batchnorm]))(branch)
        operands.append(branch)
    if stride == 1 and draw(st.booleans()):
        operands.append("z")
    operands = draw(st.permutations(operands))
    if draw(st.booleans()):
        total = text.value(f"Sum ({', '.join(operands)})")
    else:
        total = operands[0]
        for operand in operands[1:]:
            pair = draw(st.permutations([total, operand]))
            total = text.value(f"{draw(st.sampled_from(['Add', 'Sub']))} ({', '.join(pair)})")
    return "\n".join([*text.nodes, f"y = Sigmoid ({total})"]), text.constants, rank


def model_of(check: Any, body: str, constants: dict[str, np.ndarray], rank: int) -> onnx.ModelProto:
    axes = ", ".join(str(7 + i) for i in range(rank))
    opened = ", ".join(f"D{i}" for i in range(rank))
    return check.model(
        f"""g (float[N, {CHANNELS}, {axes}] x, float[N, {CHANNELS}, {axes}] z) =>
            (float[N, {CHANNELS}, {opened}] y) {{ {body} }}""",
        constants,
    )


class TestRandomSums:
    @settings(max_examples=40, deadline=None)
    @given(drawn=sums())
    def test_cost_never_rises(self, check: Any, interpreter: Any, drawn: Any) -> None:
        """Equality with the original, of every value that keeps its name, is ``check``'s."""
        model = model_of(check, *drawn)
        outcome = check(model)
        feeds = check.inputs(model, 0, {})
        assert multiply_adds(outcome.proto, feeds, interpreter) <= multiply_adds(model, feeds, interpreter)

    @settings(max_examples=15, deadline=None)
    @given(drawn=sums())
    def test_names_have_their_old_values_in_onnxruntime(self, check: Any, drawn: Any) -> None:
        """The attributes that are written mean to a runtime what they mean to the interpreter."""
        ort = pytest.importorskip("onnxruntime")
        model = model_of(check, *drawn)
        folded = check(model).proto
        feeds = check.inputs(model, 0, {})
        results = []
        for proto in (model, folded):
            session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
            results.append(session.run(["y"], feeds)[0])
        np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-4)

    @settings(max_examples=20, deadline=None)
    @given(
        rank=st.integers(1, 3),
        shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=2, max_size=3),
        seed=st.integers(0, 2**32),
    )
    def test_branches_inside_one_window_become_one_conv(
        self, check: Any, rank: int, shapes: list[tuple[int, int]], seed: int
    ) -> None:
        """A dense kernel that covers all others costs what it did."""
        widest = max((k - 1) * d for k, d in shapes) + 1
        rng = np.random.default_rng(seed)
        constants = {"w": (CHANNELS, CHANNELS, *[widest] * rank)}
        body = [f"t0 = Conv <pads = {numbers([0] * rank + [widest - 1] * rank)}> (x, w)"]
        for i, (kernel, dilation) in enumerate(shapes):
            slack = (kernel - 1) * dilation
            constants[f"u{i}"] = (CHANNELS, CHANNELS, *[kernel] * rank)
            pads = numbers([0] * rank + [slack] * rank)
            body.append(f"b{i} = Conv <dilations = {numbers([dilation] * rank)}, pads = {pads}> (x, u{i})")
            body.append(f"t{i + 1} = {rng.choice(['Add', 'Sub'])} (t{i}, b{i})")
        body.append(f"y = Sigmoid (t{len(shapes)})")
        arrays = check.weights(seed % 1000, **constants)
        check(model_of(check, "\n".join(body), arrays, rank)).gone("Conv", "Sigmoid")


def net(
    check: Any, body: str, more: dict[str, Any] | None = None, outputs: str = "y", **shapes: Any
) -> onnx.ModelProto:
    """Over x [N, 4, 8, 8]; w is dense 3×3, u dense 1×1, d depthwise 3×3; s, b, m, v are statistics."""
    known = check.weights(w=(4, 4, 3, 3), u=(4, 4, 1, 1), d=(4, 1, 3, 3), **shapes) | check.batchnorm(4)
    constants = {
        n: a for n, a in known.items() if any(f"{lead}{n}{end}" in body for lead in " (" for end in ",)")
    }
    header = ", ".join(f"float[N, C{i}, H{i}, W{i}] {name}" for i, name in enumerate(outputs.split()))
    return check.model(f"g (float[N, 4, 8, 8] x) => ({header}) {{ {body} }}", constants | (more or {}))


CONV = "a = Conv <pads = [1, 1, 1, 1]> (x, w) "


class TestMerges:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param("c = Conv (x, u) t = Add (a, c)", id="1×1"),
            pytest.param("t = Add (a, x)", id="identity"),
            pytest.param("t = Add (x, a)", id="identity first"),
            pytest.param("t = Sub (x, a)", id="from the identity"),
            pytest.param("q = Identity (x) t = Add (a, q)", id="through Identity"),
            pytest.param("c = BatchNormalization (x, s, b, m, v) t = Add (a, c)", id="BatchNormalization"),
            pytest.param("c = BatchNormalization (x, s, b, m, v) t = Sub (c, a)", id="minus"),
            pytest.param("c = Conv (x, u) t = Sum (a, x, c)", id="Sum"),
            pytest.param("c = Conv (x, u) q = Sum (c) t = Sum (a, q)", id="Sum of one"),
            pytest.param("c = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d) t = Add (a, c)", id="depthwise"),
            pytest.param(
                "c = AveragePool <kernel_shape = [3, 3], count_include_pad = 1, pads = [1, 1, 1, 1]> (x)"
                "t = Add (a, c)",
                id="pool",
            ),
            pytest.param(
                "n = Conv (x, n6) c = Conv <pads = [1, 1, 1, 1]> (n, w6) t = Add (a, c)", id="behind a 1×1"
            ),
            pytest.param(
                "n = Conv (x, u) c = AveragePool <kernel_shape = [3, 3], count_include_pad = 1, "
                "pads = [1, 1, 1, 1]> (n) t = Add (a, c)",
                id="pool behind a 1×1",
            ),
            pytest.param(
                "n = Conv <group = 2> (x, g2) c = Conv <group = 4, pads = [1, 1, 1, 1]> (n, d) "
                "t = Add (a, c)",
                id="depthwise behind a grouped 1×1",
            ),
            pytest.param('c = Conv <auto_pad = "SAME_LOWER"> (x, w) t = Add (a, c)', id="auto_pad"),
            pytest.param("q = Add (a, x) t = Add (x, q)", id="x twice"),
        ],
    )
    def test_two_branches(self, check: Any, body: str) -> None:
        more = {"n6": (6, 4, 1, 1), "w6": (4, 6, 3, 3), "g2": (4, 2, 1, 1)}
        check(net(check, f"{CONV} {body} y = Sigmoid (t)", **more)).gone("Conv", "Sigmoid")

    def test_a_bias_between_two_convs_without_padding(self, check: Any) -> None:
        body = "a = Conv (x, w) n = Conv (x, u, h) c = Conv (n, k) t = Add (a, c) y = Sigmoid (t)"
        check(net(check, body, h=(4,), k=(4, 4, 3, 3))).gone("Conv", "Sigmoid")

    def test_a_bias_in_front_of_padding_keeps_the_two_apart(self, check: Any) -> None:
        body = (
            f"{CONV} n = Conv (x, u, h) c = Conv <pads = [1, 1, 1, 1]> (n, k) t = Add (a, c) y = Sigmoid (t)"
        )
        assert check(net(check, body, h=(4,), k=(4, 4, 3, 3))).counts["Conv"] == 3

    def test_what_is_read_between_the_two_stays(self, check: Any) -> None:
        body = f"{CONV} n = Conv (x, u) c = Conv <pads = [1, 1, 1, 1]> (n, k) t = Add (a, c) y = Sigmoid (t)"
        model = net(check, f"{body} z = Tanh (n)", outputs="y z", k=(4, 4, 3, 3))
        assert check(model).counts["Conv"] == 3

    def test_every_record_of_a_merged_normalisation_names_the_conv(self, check: Any) -> None:
        body = f"{CONV} c = BatchNormalization (x, s, b, m, v) t = Add (a, c) y = Sigmoid (t)"
        outcome = check(net(check, body))
        site, total = outcome.sites["c"], outcome.sites["t"]
        assert (site.action, site.rule, site.into, site.code) == ("folded", "branches", ("t",), None)
        assert (total.kind, total.action, total.nodes) == ("branches", "merged", ("Add", "Conv"))

    def test_a_mixer(self, check: Any) -> None:
        """``x + ls · (conv(x) − BN(x))``: two sums, one inside the other."""
        body = """a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d) c = BatchNormalization (x, s, b, m, v)
            q = Sub (a, c) k = Mul (q, ls) t = Add (x, k) y = Sigmoid (t)"""
        scale = {"ls": np.linspace(-1, 2, 4, dtype=np.float32).reshape(4, 1, 1)}
        check(net(check, body, scale)).gone("Conv", "Sigmoid")

    def test_convs_over_a_pad_that_both_read(self, check: Any) -> None:
        """The Pad goes with the second merge, that with the identity."""
        amounts = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
        body = """q = Pad (x, p) a = Conv (q, w) c = Conv <group = 4> (q, d)
            t = Add (a, c) k = Add (t, x) y = Sigmoid (k)"""
        check(net(check, body, amounts)).gone("Conv", "Sigmoid")

    def test_operands_of_the_sum_that_are_no_branches_stay(self, check: Any) -> None:
        body = f"{CONV} f = Tanh (x) q = Sub (a, f) t = Add (q, x) y = Sigmoid (t)"
        check(net(check, body)).gone("Conv", "Tanh", "Sub", "Sigmoid")

    def test_a_foreign_sum_is_not_taken_apart(self, check: Any) -> None:
        """It has one element per channel: its operands one by one would touch all positions twice."""
        body = f"""{CONV} p = GlobalAveragePool (x) e = Tanh (p) f = Sigmoid (p) r = Sub (e, f)
            q = Sub (a, r) t = Add (q, x) y = Sigmoid (t)"""
        outcome = check(net(check, body))
        outcome.gone("Conv", "GlobalAveragePool", "Tanh", "Sigmoid", "Sub", "Sub", "Sigmoid")

    def test_a_foreign_operand_may_enlarge_the_sum(self, check: Any) -> None:
        """What is merged has the branches' shape, not the sum's."""
        body = """p = GlobalAveragePool (x) a = Conv (p, u) c = BatchNormalization (p, s, b, m, v)
            f = Tanh (p) g = Tanh (x)
            q = Add (a, c) r = Add (q, f) t = Add (r, g) y = Sigmoid (t)"""
        outcome = check(net(check, body))
        outcome.gone("GlobalAveragePool", "Conv", "Tanh", "Tanh", "Add", "Add", "Sigmoid")

    @pytest.mark.parametrize(
        ("k", "other", "adds"),
        [((5,), (4, 1, 5), 1), ((5,), (5,), 1), ((4, 1, 5), (), 1), ((5,), (5, 1), 2)],
        ids=["one is larger", "the same axis", "a number", "an outer product"],
    )
    def test_constants_that_may_enlarge_the_sum_are_one(
        self, check: Any, k: tuple[int, ...], other: tuple[int, ...], adds: int
    ) -> None:
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                a = Conv (x, w) c = Conv (x, u) f = Add (a, k) r = Sub (o, c) t = Sub (f, r) y = Sigmoid (t)
            }""",
            check.weights(w=(4, 4, 1, 1), u=(4, 4, 1, 1), k=k, o=other),
        )
        outcome = check(model, feeds={"x": check.weights(x=(2, 4, 5, 5))["x"]})
        counts = outcome.counts
        assert (counts["Conv"], counts["Sigmoid"], sum(counts.values())) == (1, 1, 2 + adds)
        assert counts["Add"] + counts["Sub"] == adds

    def test_a_constant_that_both_branches_add_counts_twice(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
                a = Conv (x, w) c = Conv (x, u) f = Add (a, k) r = Add (c, k) t = Add (f, r) y = Sigmoid (t)
            }""",
            check.weights(w=(4, 4, 1, 1), u=(4, 4, 1, 1), k=5),
        )
        outcome = check(model, feeds={"x": check.weights(x=(2, 4, 5, 5))["x"]})
        assert outcome.counts == {"Conv": 1, "Add": 1, "Sigmoid": 1}

    def test_those_that_line_up_merge_and_the_others_stay(self, check: Any) -> None:
        """Depthwise 3×3 and 5×5 merge; a dense 1×1 beside them would make all of it dense."""
        body = """a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d)
            c = Conv <group = 4, pads = [2, 2, 2, 2]> (x, e)
            f = Conv (x, u) q = Add (a, f) t = Add (q, c) y = Sigmoid (t)"""
        outcome = check(net(check, body, e=(4, 1, 5, 5)))
        assert outcome.counts == {"Conv": 2, "Add": 1, "Sigmoid": 1}

    def test_sums_over_two_inputs(self, check: Any) -> None:
        body = f"""{CONV} z = Tanh (x) c = Conv (x, u) f = Conv <group = 4, pads = [1, 1, 1, 1]> (z, d)
            q = Add (a, f) r = Sub (c, z) t = Add (q, r) y = Sigmoid (t)"""
        assert check(net(check, body)).counts == {"Conv": 2, "Tanh": 1, "Add": 1, "Sigmoid": 1}

    def test_tensorflow_padding_at_stride_two(self, check: Any) -> None:
        """SAME for a static even size: 3×3 pads behind only, 1×1 not at all; the output sizes agree."""
        body = """a = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)
            c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, u) t = Add (a, c) y = Sigmoid (t)"""
        check(net(check, body)).gone("Conv", "Sigmoid")

    def test_inside_a_branch_of_an_if(self, check: Any) -> None:
        model = check.model(
            """g (bool p, float[N, 4, 8, 8] x) => (float[N, 4, H, W] y) {
                y = If (p) <
                    then_branch = h () => (float[N, 4, H, W] r) {
                        a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) r = Sigmoid (t)
                    },
                    else_branch = k () => (float[N, 4, H, W] e) { e = Tanh (x) }>
            }""",
            check.weights(w=(4, 4, 3, 3)),
        )
        outcome = check(model, feeds={"p": np.array(True)})
        assert sorted(outcome.ops) == ["Conv", "If", "Sigmoid", "Tanh"]

    def test_float16(self, check: Any) -> None:
        model = check.model(
            """g (float16[N, 4, 8, 8] x) => (float16[N, 4, H, W] y) {
                a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) y = Sigmoid (t)
            }""",
            check.weights(w=(4, 4, 3, 3), dtype=np.float16),
        )
        assert check(model).gone("Conv", "Sigmoid").tensor("t_merged_weight").dtype == np.float16

    def test_the_merged_value_has_the_name_of_the_sum(self, check: Any) -> None:
        """A graph output; what meant something else is gone by name too."""
        outcome = check(net(check, f"{CONV} y = Add (a, x)"))
        assert [list(node.output) for node in outcome.proto.graph.node] == [["y"]]


class TestStays:
    """Each breaks one precondition; but for it, one Conv would be left."""

    @pytest.mark.parametrize(
        ("body", "left"),
        [
            pytest.param(
                "a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) c = Conv (x, l) t = Add (a, c)",
                "Add Conv Conv",
                id="strides differ",
            ),
            pytest.param(
                "a = Conv (x, u) c = Conv (x, k) t = Add (a, c)",
                "Add Conv Conv",
                id="one is broadcast over the positions",
            ),
            pytest.param(
                f"{CONV} c = Conv <pads = [1, 1, 1, 1]> (x, o) t = Add (a, c)",
                "Add Conv Conv",
                id="one is broadcast over the channels",
            ),
            pytest.param(
                "a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d) c = Conv (x, u) t = Add (a, c)",
                "Add Conv Conv",
                id="dense 1×1 and depthwise 3×3 would be dense 3×3",
            ),
            pytest.param(
                """a = Conv <pads = [0, 1, 0, 1]> (x, q) c = Conv <pads = [1, 0, 1, 0]> (x, r)
                t = Add (a, c)""",
                "Add Conv Conv",
                id="a row and a column would be a square",
            ),
            pytest.param(
                f"{CONV} c = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) t = Add (a, c)",
                "Add AveragePool Conv",
                id="a pool that does not count padding",
            ),
            pytest.param(
                """a = Conv <strides = [2, 2], pads = [0, 0, 1, 1]> (x, w)
                c = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)
                t = Add (a, c)""",
                "Add AveragePool Conv",
                id="a pool that overhangs",
            ),
            pytest.param(
                """a = Conv (x, w) p = Pad (x, edges, one) c = Conv <group = 4> (p, d)
                z = Pad (a, edges) t = Add (z, c)""",
                "Add Conv Conv Pad Pad",
                id="a Pad with ones",
            ),
            pytest.param(
                """a = Conv <pads = [1, 1, 1, 1]> (x, w) p = Pad <mode = "edge"> (x, edges)
                c = Conv (p, w) t = Add (a, c)""",
                "Add Conv Conv Pad",
                id="a Pad with the edge",
            ),
            pytest.param(f"{CONV} z = Tanh (x) t = Add (a, z)", "Add Conv Tanh", id="another input"),
            pytest.param(
                "c = BatchNormalization (x, s, b, m, v) z = Tanh (c) t = Add (c, z)",
                "Add BatchNormalization Tanh",
                id="no Conv",
            ),
            pytest.param(f"{CONV} t = Mul (a, x)", "Conv Mul", id="a product"),
            pytest.param(
                "a = ConvTranspose <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x)",
                "Add ConvTranspose",
                id="ConvTranspose",
            ),
        ],
    )
    def test_the_sum_stays(self, check: Any, body: str, left: str) -> None:
        shapes = {
            "k": (4, 4, 8, 8),
            "o": (1, 4, 3, 3),
            "q": (4, 4, 1, 3),
            "r": (4, 4, 3, 1),
            "l": (4, 4, 5, 5),
        }
        edges = {"edges": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "one": np.array(1, np.float32)}
        given = {name: array for name, array in edges.items() if name in body}
        outcome = check(net(check, f"{body} y = Sigmoid (t)", given, **shapes))
        assert sorted(outcome.ops) == sorted([*left.split(), "Sigmoid"])
        assert not outcome.folded.changed

    @pytest.mark.parametrize(
        "body", [f"{CONV} t = Add (a, x)", f"{CONV} c = Conv (x, u) t = Add (a, c)"], ids=["identity", "1×1"]
    )
    def test_a_branch_that_is_read_elsewhere(self, check: Any, body: str) -> None:
        outcome = check(net(check, f"{body} y = Sigmoid (t) z = Tanh (a)", outputs="y z"))
        assert not outcome.folded.changed

    @pytest.mark.parametrize("output", ["a", "c"])
    def test_a_branch_that_is_a_graph_output(self, check: Any, output: str) -> None:
        body = f"{CONV} c = Conv <pads = [1, 1, 1, 1]> (x, l) t = Add (a, c) y = Sigmoid (t)"
        assert not check(net(check, body, outputs=f"y {output}", l=(4, 4, 3, 3))).folded.changed

    def test_a_branch_that_a_body_captures(self, check: Any) -> None:
        model = check.model(
            """g (bool p, float[N, 4, 8, 8] x) => (float[N, 4, H, W] y, float[N, 4, A, B] o) {
                a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) y = Sigmoid (t)
                o = If (p) <
                    then_branch = h () => (float[N, 4, A, B] r) { r = Sigmoid (a) },
                    else_branch = k () => (float[N, 4, A, B] e) { e = Tanh (x) }>
            }""",
            check.weights(w=(4, 4, 3, 3)),
        )
        assert not check(model, feeds={"p": np.array(True)}).folded.changed

    def test_a_sum_that_is_read_twice_is_an_end(self, check: Any) -> None:
        """The inner sum merges; the outer one has it as a foreign operand, since another node reads it."""
        body = f"{CONV} q = Add (a, x) t = Add (q, x) y = Sigmoid (t) z = Tanh (q)"
        assert check(net(check, body, outputs="y z")).counts == {"Conv": 1, "Add": 1, "Sigmoid": 1, "Tanh": 1}

    def test_a_weight_that_is_computed(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 4, 8, 8] x, float[4, 4, 3, 3] w) => (float[N, 4, H, W] y) {
                a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) y = Sigmoid (t)
            }"""
        )
        assert not check(model).folded.changed

    def test_a_weight_that_a_caller_may_override(self, check: Any) -> None:
        text = """g (float[N, 4, 8, 8] x, float[4, 4, 3, 3] w) => (float[N, 4, H, W] y) {
                a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) y = Sigmoid (t)
            }"""
        weights = check.weights(w=(4, 4, 3, 3))
        assert not check(check.model(text, weights, ir_version=8)).folded.changed
        assert check(check.model(text, weights, ir_version=3, opset=8)).counts == {"Conv": 1, "Sigmoid": 1}

    def test_channels_that_are_not_known(self, check: Any) -> None:
        """An identity of unknown width may be broadcast: one channel beside four."""
        model = check.model(
            """g (float[N, C, 8, 8] x) => (float[N, 4, H, W] y) {
                a = Conv <pads = [1, 1, 1, 1]> (x, w) t = Add (a, x) y = Sigmoid (t)
            }""",
            check.weights(w=(4, 1, 3, 3)),
        )
        assert not check(model, feeds={"x": np.ones((1, 1, 8, 8), np.float32)}).folded.changed

    @pytest.mark.parametrize("size", ["8", "H"])
    def test_sizes_that_agree_only_for_some_inputs(self, check: Any, size: str) -> None:
        """Stride two: 3×3 padded by one and 2×2 unpadded agree where the size of the input is even."""
        model = check.model(
            f"""g (float[N, 4, {size}, 8] x) => (float[N, 4, A, B] y) {{
                a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)
                c = Conv <strides = [2, 2]> (x, l)
                t = Add (a, c) y = Sigmoid (t)
            }}""",
            check.weights(w=(4, 4, 3, 3), l=(4, 4, 2, 2)),
        )
        fixed = {"x": np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}
        assert check(model, feeds=fixed).counts["Conv"] == (1 if size == "8" else 2)

    def test_auto_pad_at_stride_two_of_an_open_size(self, check: Any) -> None:
        """Which offset a tap reads depends on the size."""
        model = check.model(
            """g (float[N, 4, H, 8] x) => (float[N, 4, A, B] y) {
                a = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)
                c = Conv <strides = [2, 2]> (x, u)
                t = Add (a, c) y = Sigmoid (t)
            }""",
            check.weights(w=(4, 4, 3, 3), u=(4, 4, 1, 1)),
        )
        assert not check(model).folded.changed

    @pytest.mark.parametrize(
        "options",
        [
            FoldOptions(skip=frozenset({"branches"})),
            FoldOptions(keep=frozenset({"a"})),
            FoldOptions(keep=frozenset({"t"})),
        ],
        ids=["skip", "keep a branch", "keep the sum"],
    )
    def test_options(self, check: Any, options: FoldOptions) -> None:
        assert not check(net(check, f"{CONV} t = Add (a, x) y = Sigmoid (t)"), options).folded.changed


class TestDeadBiases:
    """``docs/decisions/0002``: what the bias was in keeps no name; what it vanishes in front of does."""

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(
                "a = Conv (x, w, z) y = InstanceNormalization (a, g, h)", id="InstanceNormalization"
            ),
            pytest.param(
                "a = Conv (x, w, z) p = AveragePool <kernel_shape = [2, 2]> (a)"
                "y = InstanceNormalization (p, g, h)",
                id="through a pool",
            ),
            pytest.param(
                "a = ConvTranspose (x, w, z) y = InstanceNormalization (a, g, h)", id="ConvTranspose"
            ),
            pytest.param("a = Conv (x, w, z) y = Softmax <axis = 3> (a)", id="Softmax over positions"),
            pytest.param(
                "a = Conv (x, w, z) y = LayerNormalization <axis = 3> (a, e)",
                id="LayerNormalization over positions",
            ),
        ],
    )
    def test_goes(self, check: Any, body: str) -> None:
        outcome = check(net(check, body, z=4, g=4, h=4, e=6))
        linear = next(node for node in outcome.proto.graph.node if node.op_type.startswith("Conv"))
        assert len(linear.input) == 2
        assert outcome.sites["a"].rule == "dead-shift"
        names = {name for node in outcome.proto.graph.node for name in node.output}
        assert "y" in names and not names & {"a", "p"}
        assert "z" not in {tensor.name for tensor in outcome.proto.graph.initializer}

    def test_of_a_gemm(self, check: Any) -> None:
        """[N, C] has no positions; a bias of one value all over is dead in front of a Softmax."""
        model = check.model(
            "g (float[N, 4] x) => (float[N, 3] y) { a = Gemm (x, w, z) y = Softmax <axis = 1> (a) }",
            check.weights(w=(4, 3)) | {"z": np.full(3, 0.7, np.float32)},
        )
        assert len(check(model).proto.graph.node[0].input) == 2

    @pytest.mark.parametrize(
        ("body", "outputs"),
        [
            pytest.param(
                "a = Conv (x, w, z) r = Relu (a) y = InstanceNormalization (r, g, h)", "y", id="behind a Relu"
            ),
            pytest.param(
                "a = Conv (x, w, z) y = InstanceNormalization (a, g, h) o = Tanh (a)",
                "y o",
                id="read elsewhere",
            ),
            pytest.param(
                "a = Conv (x, w, z) y = InstanceNormalization (a, g, h)", "y a", id="a graph output"
            ),
            pytest.param(
                "a = Conv (x, w, z) y = Softmax <axis = 1> (a)", "y", id="Softmax over the channels"
            ),
            pytest.param(
                """a = Conv (x, w, z) p = AveragePool <kernel_shape = [3, 3], count_include_pad = 1,
                pads = [1, 1, 1, 1]> (a) y = InstanceNormalization (p, g, h)""",
                "y",
                id="behind padding",
            ),
            pytest.param("a = Conv (x, w, z) y = Sigmoid (a)", "y", id="no normalisation"),
        ],
    )
    def test_stays(self, check: Any, body: str, outputs: str) -> None:
        assert not check(net(check, body, outputs=outputs, z=4, g=4, h=4)).folded.changed

    def test_a_bias_that_varies_over_what_is_normalised(self, check: Any) -> None:
        model = check.model(
            "g (float[N, 4] x) => (float[N, 3] y) { a = Gemm (x, w, z) y = Softmax <axis = 1> (a) }",
            check.weights(w=(4, 3), z=3),
        )
        assert not check(model).folded.changed

    @pytest.mark.parametrize("name", ["a", "p"])
    def test_keep(self, check: Any, name: str) -> None:
        body = (
            "a = Conv (x, w, z) p = Transpose <perm = [0, 1, 3, 2]> (a) y = InstanceNormalization (p, g, h)"
        )
        model = net(check, body, z=4, g=4, h=4)
        assert not check(model, FoldOptions(keep=frozenset({name}))).folded.changed
        assert check(model).folded.changed

    def test_a_bias_that_two_layers_share(self, check: Any) -> None:
        body = "a = Conv (x, w, z) n = InstanceNormalization (a, g, h) c = Conv (n, w, z) y = Sigmoid (c)"
        outcome = check(net(check, body, z=4, g=4, h=4))
        assert [len(n.input) for n in outcome.proto.graph.node if n.op_type == "Conv"] == [2, 3]
