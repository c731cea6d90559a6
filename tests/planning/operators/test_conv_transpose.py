"""Affines into a ConvTranspose: its weight is grouped along the input channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine


def transposed(
    check: Any,
    *,
    rank: int = 2,
    groups: int = 1,
    per_group: tuple[int, int] = (2, 3),
    kernel: int = 3,
    attributes: str = "",
    bias: bool = False,
    where: str = "behind",
    seed: int = 0,
    affine: str = "BatchNormalization ({v}, s, b, m, v)",
) -> Any:
    inputs, outputs = per_group[0] * groups, per_group[1] * groups
    spatial, symbolic = ", ".join(["4"] * rank), ", ".join(f"D{i}" for i in range(rank))
    more, last = f", {attributes}" if attributes else "", ", z" if bias else ""
    node = f"ConvTranspose <group = {groups}{more}> ({{v}}, w{last})"
    first, second = (node, affine) if where == "behind" else (affine, node)
    constants = check.weights(seed, w=(inputs, per_group[1], *[kernel] * rank))
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
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    extra=st.booleans(),
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
    pad: int,
    extra: bool,
    bias: bool,
    seed: int,
) -> None:
    """Output padding too: a bias stands there as well."""
    pads, more = [min(pad, kernel - 1)] * 2 * rank, [int(extra and stride > 1)] * rank
    attributes = f"strides = {[stride] * rank}, pads = {pads}, output_padding = {more}"
    model = transposed(
        check,
        rank=rank,
        groups=groups,
        per_group=per_group,
        kernel=kernel,
        attributes=attributes,
        bias=bias,
        seed=seed,
    )
    check(model).gone("Sigmoid", "ConvTranspose", "Sigmoid")


@settings(max_examples=30, deadline=None)
@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_scale_in_front_is_absorbed(
    check: Any,
    rank: int,
    groups: int,
    per_group: tuple[int, int],
    kernel: int,
    stride: int,
    bias: bool,
    seed: int,
) -> None:
    model = transposed(
        check,
        rank=rank,
        groups=groups,
        per_group=per_group,
        kernel=kernel,
        attributes=f"strides = {[stride] * rank}",
        bias=bias,
        where="front",
        seed=seed,
        affine="Mul ({v}, k)",
    )
    channels = per_group[0] * groups
    scale = check.batchnorm(channels, seed)["s"].reshape(channels, *[1] * rank)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "k"))
    check(model).gone("Sigmoid", "ConvTranspose", "Sigmoid")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_a_shift_in_front_of_a_pointwise_one(check: Any, rank: int, groups: int, bias: bool) -> None:
    model = transposed(check, rank=rank, groups=groups, kernel=1, bias=bias, where="front")
    check(model).gone("Sigmoid", "ConvTranspose", "Sigmoid")


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (3, ""),
        (2, "strides = [2, 2]"),
        (1, "strides = [2, 2]"),
        (1, "strides = [2, 2], output_padding = [1, 1]"),
        (1, "dilations = [2, 2], output_padding = [1, 1]"),
        (1, "pads = [1, 0, 0, 0]"),
    ],
)
def test_a_shift_in_front_is_refused_where_positions_differ(check: Any, kernel: int, attributes: str) -> None:
    """Kernel equal to stride would be uniform too, but is no plain bias: each tap adds its own sum."""
    model = transposed(check, kernel=kernel, attributes=attributes, where="front")
    outcome = check(model)
    assert any(op in outcome.ops for op in ("BatchNormalization", "Add"))


def test_torch_agrees_on_groups(check: Any, interpreter: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for rank, groups in ((1, 1), (2, 3), (3, 2)):
        attributes = f"strides = {[2] * rank}, output_padding = {[1] * rank}, pads = {[1] * 2 * rank}"
        model = transposed(check, rank=rank, groups=groups, bias=True, attributes=attributes)
        x = rng.standard_normal([2, 2 * groups, *[4] * rank])
        tensors = {
            t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer
        }
        seen = getattr(torch.nn.functional, f"conv_transpose{rank}d")(
            torch.tensor(x).sigmoid(),
            tensors["w"],
            tensors["z"],
            stride=2,
            padding=1,
            output_padding=1,
            groups=groups,
        )
        normed = torch.nn.functional.batch_norm(
            seen, tensors["m"], tensors["v"], tensors["s"], tensors["b"], eps=float(np.float32(1e-5))
        )
        np.testing.assert_allclose(
            interpreter(model).run({"x": x})["y"], normed.sigmoid().numpy(), atol=1e-12
        )


def test_a_constant_along_the_width(check: Any) -> None:
    model = transposed(check, per_group=(2, 6), affine="Mul ({v}, k)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(check.weights(k=6)["k"], "k"))
    check(model).kept("NF110")


def test_a_bias_that_brings_an_affine_of_its_own(harness: Any) -> None:
    node = harness.one(
        "g (double[N, 2, H] x, double[3] b) => (double[N, 3, A] y) { y = ConvTranspose (x, w, b) }",
        harness.weights(0, w=(2, 3, 1)),
    )
    with harness.refused("NF115"):
        node.forward({0: harness.affine(0, (1, 2, 1), (1,), shift=False), 2: Affine.of(2.0, rank=1)})
