"""Affines into a Conv, from behind and from the front."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine

SPATIAL = "HWD"


def conv_model(
    check: Any,
    *,
    rank: int = 2,
    groups: int = 1,
    per_group: tuple[int, int] = (2, 3),
    kernel: int = 3,
    attributes: str = "",
    bias: bool = False,
    where: str = "behind",
    size: int = 7,
    seed: int = 0,
    affine: str = "BatchNormalization ({v}, s, b, m, v)",
) -> Any:
    """A Conv of ``rank`` spatial axes with an affine behind it or in front of it."""
    inputs, outputs = per_group[0] * groups, per_group[1] * groups
    spatial = ", ".join(str(size + i) for i in range(rank))
    node = "Conv <group = {}{}> ({}, w{})".format(
        groups, f", {attributes}" if attributes else "", "{v}", ", z" if bias else ""
    )
    first, second = (node, affine) if where == "behind" else (affine, node)
    symbolic = ", ".join(f"D{i}" for i in range(rank))
    constants = check.weights(seed, w=(outputs, per_group[0], *[kernel] * rank))
    if bias:
        constants |= check.weights(seed + 1, z=outputs)
    return check.model(
        f"""g (float[N, {inputs}, {spatial}] x) => (float[N, {outputs}, {symbolic}] y) {{
            r = Sigmoid (x)
            t = {first.format(v="r")}
            q = {second.format(v="t")}
            y = Sigmoid (q)
        }}""",
        constants | check.batchnorm(outputs if where == "behind" else inputs, seed),
    )


@settings(max_examples=30, deadline=None)
@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 4),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_behind_is_absorbed(
    check: Any,
    rank: int,
    groups: int,
    per_group: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    pad: tuple[int, int],
    bias: bool,
    seed: int,
) -> None:
    pads = [pad[0]] * rank + [pad[1]] * rank
    attributes = f"strides = {[stride] * rank}, dilations = {[dilation] * rank}, pads = {pads}"
    model = conv_model(
        check,
        rank=rank,
        groups=groups,
        per_group=per_group,
        kernel=kernel,
        attributes=attributes,
        bias=bias,
        seed=seed,
    )
    check(model).gone("Sigmoid", "Conv", "Sigmoid")


@settings(max_examples=30, deadline=None)
@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 4),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_in_front_of_an_unpadded_one_is_absorbed(
    check: Any,
    rank: int,
    groups: int,
    per_group: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    bias: bool,
    seed: int,
) -> None:
    model = conv_model(
        check,
        rank=rank,
        groups=groups,
        per_group=per_group,
        kernel=kernel,
        attributes=f"strides = {[stride] * rank}, dilations = {[dilation] * rank}",
        bias=bias,
        where="front",
        seed=seed,
    )
    check(model).gone("Sigmoid", "Conv", "Sigmoid")


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("where", ["behind", "front"])
def test_auto_pad_is_exact(check: Any, mode: str, kernel: int, stride: int, where: str) -> None:
    attributes = f'auto_pad = "{mode}", strides = [{stride}, {stride}]'
    check(conv_model(check, kernel=kernel, attributes=attributes, where=where))


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ('auto_pad = "SAME_UPPER"', 1),
        ('auto_pad = "SAME_LOWER", strides = [2, 2]', 1),
        ('auto_pad = "VALID"', 3),
        ("pads = [0, 0, 0, 0]", 3),
    ],
)
def test_a_shift_in_front_goes_in_where_nothing_is_padded(check: Any, attributes: str, kernel: int) -> None:
    check(conv_model(check, attributes=attributes, kernel=kernel, where="front")).gone(
        "Sigmoid", "Conv", "Sigmoid"
    )


def test_same_padding_that_the_size_makes_zero(check: Any) -> None:
    """Size 8, kernel 2, stride 2: SAME pads nothing."""
    model = conv_model(
        check, kernel=2, attributes='auto_pad = "SAME_UPPER", strides = [2, 2]', where="front", rank=2, size=8
    )
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 8
    check(model).gone("Sigmoid", "Conv", "Sigmoid")


@pytest.mark.parametrize(
    "attributes",
    [
        "pads = [1, 1, 1, 1]",
        "pads = [0, 0, 0, 1]",
        'auto_pad = "SAME_UPPER"',
        'auto_pad = "SAME_LOWER", strides = [2, 2]',
    ],
)
def test_a_shift_in_front_of_padding_is_no_bias(check: Any, attributes: str) -> None:
    outcome = check(conv_model(check, attributes=attributes, where="front"))
    assert outcome.counts["BatchNormalization"] + outcome.counts["Add"] > 0
    # The shift cannot be a bias; the scale may go.
    assert not any(s.action == "folded" for s in outcome.folded.sites)


@pytest.mark.parametrize("attributes", ["pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"', ""])
def test_a_scale_in_front_goes_in_whatever_is_padded(check: Any, attributes: str) -> None:
    model = conv_model(check, attributes=attributes, where="front", affine="Mul ({v}, k)")
    scale = np.array([0.5, -2.0], np.float32).reshape(2, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "k"))
    check(model).gone("Sigmoid", "Conv", "Sigmoid")


def test_dilation_reaches_over_same_padding(check: Any) -> None:
    """Kernel 2 with dilation 2 reaches 3: SAME with stride 3 on 9 pads nothing, with dilation 3 it pads."""
    for dilation, padded in ((2, False), (3, True)):
        model = conv_model(
            check,
            rank=1,
            kernel=2,
            size=9,
            attributes=f'auto_pad = "SAME_UPPER", strides = [3], dilations = [{dilation}]',
            where="front",
        )
        outcome = check(model)
        assert (sorted(outcome.ops) == ["Conv", "Sigmoid", "Sigmoid"]) is not padded


def test_same_with_a_dynamic_size_is_not_trusted(check: Any) -> None:
    model = conv_model(
        check, kernel=2, attributes='auto_pad = "SAME_UPPER", strides = [2, 2]', where="front", size=8
    )
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "S"
    check(model).kept("NF116")


@pytest.mark.parametrize("where", ["behind", "front"])
@pytest.mark.parametrize("shape", [(9,), (9, 1), (1, 1, 9)])
def test_a_constant_along_the_width(check: Any, where: str, shape: tuple[int, ...]) -> None:
    """The width equals the number of channels; the constant varies along the width all the same."""
    affine = "Mul ({v}, k)"
    model = conv_model(
        check,
        per_group=(9, 9),
        kernel=1,
        size=8,
        affine=affine,
        where=where,
        attributes="pads = [0, 0, 1, 0]",
    )
    if shape == (9, 1):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9 - (where == "behind")
    constant = check.weights(3, k=shape)["k"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(constant, "k"))
    outcome = check(model)
    assert outcome.kept("NF110").site


@pytest.mark.parametrize("where", ["behind", "front"])
@pytest.mark.parametrize("missing", ["w", "z"])
def test_a_weight_computed_at_run_time(check: Any, where: str, missing: str) -> None:
    model = conv_model(check, kernel=1, bias=True, where=where)
    (index,) = [i for i, t in enumerate(model.graph.initializer) if t.name == missing]
    tensor = model.graph.initializer[index]
    model.graph.input.append(onnx.helper.make_tensor_value_info("raw", tensor.data_type, list(tensor.dims)))
    del model.graph.initializer[index]
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["raw"], [missing]))
    check(model, settled=False).kept("NF115")


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("bias", [False, True])
def test_every_float_type_is_rounded_once(check: Any, dtype: str, bias: bool) -> None:
    """``check`` compares stored weights bit for bit with the nearest numbers of the type."""
    kind = getattr(onnx.TensorProto, dtype)
    values = check.weights(w=(6, 3, 3, 3), z=6) | check.batchnorm(6)
    used = [name for name in values if bias or name != "z"]
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(kind)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w", "z"][: 3 if bias else 2], ["c"]),
            onnx.helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
            onnx.helper.make_node("Mul", ["n", "s1"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, [1, 3, 5, 5])],
        [onnx.helper.make_tensor_value_info("y", kind, [1, 6, 3, 3])],
        [onnx.numpy_helper.from_array(values[n].astype(numpy_type), n) for n in used]
        + [onnx.numpy_helper.from_array(values["s"].reshape(6, 1, 1).astype(numpy_type), "s1")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    outcome = check(model)
    outcome.gone("Conv")
    assert len(outcome.folded.exact) == 2


@pytest.mark.parametrize("where", ["behind", "in front"])
def test_a_bias_that_is_no_vector(check: Any, where: str) -> None:
    """The checker lets it pass; runtimes do not, so nothing is said of what it means."""
    body = {
        "behind": "c = Conv (x, w, bias) y = BatchNormalization (c, s, b, m, v)",
        "in front": "n = BatchNormalization (x, s, b, m, v) y = Conv (n, w, bias)",
    }[where]
    text = f"g (float[N, 4, 5, 5] x) => (float[N, 4, A, B] y) {{ {body} }}"
    constants = check.weights(w=(4, 4, 3, 3), bias=(4, 2)) | check.batchnorm(4)
    folded = check.fold_only(check.model(text, constants))
    assert [(site.action, site.code) for site in folded.sites] == [("kept", "NF113")]


def test_two_folds_are_rounded_once(check: Any) -> None:
    """A weight that takes an affine from each side is not rounded in between."""
    half = {"w": check.weights(w=(4, 3, 1, 1))["w"].astype(np.float16)}
    front = check.batchnorm(3, 1, prefix="f", dtype=np.float16)
    behind = check.batchnorm(4, 2, prefix="h", dtype=np.float16)
    model = check.model(
        """g (float16[N, 3, H, W] x) => (float16[N, 4, H, W] y) {
            a = BatchNormalization (x, fs, fb, fm, fv)
            c = Conv (a, w)
            y = BatchNormalization (c, hs, hb, hm, hv)
        }""",
        half | front | behind,
    )
    outcome = check(model).gone("Conv")
    parameters = {n: v.astype(np.float64) for n, v in {**half, **front, **behind}.items()}
    epsilon = np.float64(np.float32(1e-5))
    inner = parameters["fs"] / np.sqrt(parameters["fv"] + epsilon)
    outer = parameters["hs"] / np.sqrt(parameters["hv"] + epsilon)
    weight = parameters["w"] * inner[None, :, None, None] * outer[:, None, None, None]
    name = outcome.proto.graph.node[0].input[1]
    np.testing.assert_allclose(outcome.folded.exact[name](), weight, rtol=1e-14)
    np.testing.assert_array_equal(outcome.tensor(name), weight.astype(np.float16))


def test_torch_agrees(check: Any, interpreter: Any) -> None:
    """The interpreter behind these tests, against torch."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for rank, groups in ((1, 1), (2, 3), (3, 2)):
        model = conv_model(
            check,
            rank=rank,
            groups=groups,
            bias=True,
            attributes=f"pads = {[1, 2, 0][:rank] + [1, 2, 0][:rank]}, strides = {[2, 1, 1][:rank]}",
        )
        x = rng.standard_normal([2, 2 * groups, *(7 + i for i in range(rank))])
        tensors = {
            t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer
        }
        conv = getattr(torch.nn.functional, f"conv{rank}d")
        seen = conv(
            torch.tensor(x).sigmoid(),
            tensors["w"],
            tensors["z"],
            stride=[2, 1, 1][:rank],
            padding=[1, 2, 0][:rank],
            groups=groups,
        )
        normed = torch.nn.functional.batch_norm(
            seen, tensors["m"], tensors["v"], tensors["s"], tensors["b"], eps=float(np.float32(1e-5))
        )
        np.testing.assert_allclose(
            interpreter(model).run({"x": x})["y"], normed.sigmoid().numpy(), atol=1e-12
        )


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    same=st.sampled_from([None, "SAME_UPPER", "SAME_LOWER"]),
    seed=st.integers(0, 1 << 16),
)
def test_zero_padding_leaves_a_map(
    harness: Any,
    rank: int,
    groups: int,
    per_group: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    pads: list[int],
    same: str | None,
    seed: int,
) -> None:
    """Taps on padding do not see the shift, so near the border less of it arrives."""
    channels, outputs = per_group[0] * groups, per_group[1] * groups
    sizes = [5 + axis for axis in range(rank)]
    # The reference cannot dilate with auto_pad.
    spelled = f'auto_pad = "{same}"' if same else f"pads = {pads[:rank] + pads[3 : 3 + rank]}"
    dilations = [1 if same else dilation] * rank
    spelled += f", group = {groups}, strides = {[stride] * rank}, dilations = {dilations}"
    node = harness.one(
        f"""g (double[2, {channels}, {", ".join(map(str, sizes))}] x) => (double[A, B] y) {{
            y = Conv <{spelled}> (x, w) }}""",
        harness.weights(seed, w=(outputs, per_group[0], *[kernel] * rank)),
    )
    node.forward(harness.affine(seed, (1, channels, *[1] * rank), (1,)))


def test_a_map_stands_behind_a_conv_with_fewer_outputs(check: Any) -> None:
    """8 channels of 12×13 in front, 2 of 6×7 behind."""
    model = conv_model(
        check, per_group=(8, 2), size=12, attributes="strides = [2, 2], pads = [1, 1, 1, 1]", where="front"
    )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    outcome = check(model)
    (site,) = outcome.folded.sites
    assert (site.action, site.elements) == ("moved", (8 * 12 * 13, 2 * 6 * 7))
    assert sorted(outcome.ops) == ["Add", "Conv", "Sigmoid", "Sigmoid"]


def test_a_map_that_would_cost_as_much_is_not_made(check: Any) -> None:
    """With the constants that it reads, a map of half the elements costs the same."""
    model = conv_model(check, per_group=(4, 2), size=12, attributes="pads = [1, 1, 1, 1]", where="front")
    assert check(model).kept("NF122").kind == "batchnorm"


def test_a_map_goes_through_a_global_pool_into_a_bias(check: Any) -> None:
    model = check.model(
        """g (float[N, 4, 8, 8] x) => (float[N, 3] y) {
            r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v)
            c = Conv <pads = [1, 1, 1, 1]> (n, w)
            p = GlobalAveragePool (c) f = Flatten (p) y = Gemm (f, u) }""",
        check.weights(w=(6, 4, 3, 3), u=(6, 3)) | check.batchnorm(4),
    )
    check(model).gone("Sigmoid", "Conv", "GlobalAveragePool", "Flatten", "Gemm")


@pytest.mark.parametrize("axis", [2, 3])
def test_padding_of_a_dynamic_axis_bars_the_shift(check: Any, axis: int) -> None:
    model = conv_model(
        check, per_group=(8, 1), size=12, attributes="strides = [2, 2], pads = [1, 1, 1, 1]", where="front"
    )
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "S"
    check(model).kept("NF116")


def test_an_axis_without_padding_may_be_dynamic(harness: Any) -> None:
    node = harness.one(
        "g (double[N, 2, 6, S] x) => (double[N, 3, A, B] y) { y = Conv <pads = [1, 0, 1, 0]> (x, w) }",
        harness.weights(0, w=(3, 2, 3, 3)),
    )
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 2, 6, 5))}
    left = node.forward(harness.affine(0, (1, 2, 1, 1), (1,)), inputs).affines[0]
    assert left.shift.shape == (1, 3, 6, 1)


def test_a_bias_that_brings_an_affine_of_its_own(harness: Any) -> None:
    """The weight would have to take the one, and nothing could take the other."""
    node = harness.one(
        "g (double[N, 2, H] x, double[3] b) => (double[N, 3, A] y) { y = Conv (x, w, b) }",
        harness.weights(0, w=(3, 2, 1)),
    )
    with harness.refused("NF115"):
        node.forward({0: harness.affine(0, (1, 2, 1), (1,), shift=False), 2: Affine.of(2.0, rank=1)})
