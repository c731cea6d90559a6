"""Affines into a DeformConv, which reads its input where another one says."""

from __future__ import annotations

from typing import Any

import onnx
import pytest


def deformable(
    check: Any,
    *,
    where: str = "behind",
    groups: int = 1,
    bias: bool = False,
    mask: bool = False,
    affine: str = "BatchNormalization ({v}, s, b, m, v)",
    offset: str = "o",
) -> Any:
    inputs, outputs = 4, 6
    operands = ["{v}", "w", offset, *(["z" if bias else ""] if bias or mask else []), *["k"] * mask]
    node = (
        f"DeformConv <group = {groups}, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({', '.join(operands)})"
    )
    first, second = (node, affine) if where == "behind" else (affine, node)
    constants = check.weights(0, w=(outputs, inputs // groups, 3, 3)) | (
        check.weights(1, z=outputs) if bias else {}
    )
    masked = ", float[N, 9, 5, 5] k" if mask else ""
    return check.model(
        f"""g (float[N, {inputs}, 5, 5] x, float[N, 18, 5, 5] o{masked}) => (float[N, {outputs}, 5, 5] y) {{
            r = Sigmoid (x)
            t = {first.format(v="r")}
            q = {second.format(v="t")}
            y = Sigmoid (q)
        }}""",
        constants | check.batchnorm(outputs if where == "behind" else inputs),
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_behind_is_absorbed(check: Any, groups: int, bias: bool, mask: bool) -> None:
    check(deformable(check, groups=groups, bias=bias, mask=mask)).gone("Sigmoid", "DeformConv", "Sigmoid")


@pytest.mark.parametrize("groups", [1, 2])
def test_a_scale_in_front_is_absorbed(check: Any, groups: int) -> None:
    model = deformable(check, where="front", groups=groups, affine="Mul ({v}, c)")
    factor = check.weights(2, c=(4, 1, 1))["c"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(factor, "c"))
    check(model).gone("Sigmoid", "DeformConv", "Sigmoid")


def test_a_shift_in_front_meets_zeros_outside(check: Any) -> None:
    check(deformable(check, where="front")).kept("NF116")


def test_offsets_take_no_affine(check: Any) -> None:
    """The scale of the operand that is read goes into the weight; one of the offsets has nowhere to go."""
    model = deformable(check, where="front", affine="Identity ({v})", offset="f")
    factor = check.weights(2, c=(18, 1, 1))["c"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(factor, "c"))
    for node in [("Mul", ["p", "c"], ["f"]), ("Sigmoid", ["o"], ["p"])]:
        model.graph.node.insert(0, onnx.helper.make_node(*node))
    check(model, settled=False).kept("NF115")
