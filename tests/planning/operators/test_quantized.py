"""Weights and biases that come through DequantizeLinear."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.evaluation import evaluate_node
from normfold.planning.crossing import Crossing
from normfold.planning.operators import TABLE

_SHAPE = (4, 3, 2)


def _integers(seed, shape, dtype=np.int8, lowest=-127, highest=127):
    return np.random.default_rng(seed).integers(lowest, highest + 1, shape).astype(dtype)


def _steps(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).uniform(0.01, 0.1, shape).astype(dtype)


def _node(harness, constants, attributes="", opset=21):
    call = f"DequantizeLinear {attributes and f'<{attributes}>'} (q, d{', z' if 'z' in constants else ''})"
    return harness.one(
        f"g (float[1] unused) => (float[P, Q, R] y) {{ y = {call} }}", constants, opset=opset
    ).view


def _asked(view, affine: Affine) -> Crossing:
    """The entry's answer, held to the definition of the operator in float64."""
    crossing = TABLE["DequantizeLinear"].backward(view, {0: affine})
    before = [view.array(slot) for slot in range(len(view.node.inputs))]
    after = [
        crossing.constants[slot].compute() if slot in crossing.constants else old
        for slot, old in enumerate(before)
    ]
    axis = crossing.attributes.get("axis", view.int_attribute("axis", 1))
    expected = affine.apply(_dequantised(before, view.int_attribute("axis", 1), view))
    np.testing.assert_allclose(_dequantised(after, axis, view), expected, rtol=1e-12, atol=1e-12)
    return crossing


def _dequantised(operands, axis, view):
    q, d, z = [None if v is None else np.asarray(v, dtype=np.float64) for v in [*operands, None][:3]]
    block = view.int_attribute("block_size", 0)

    def spread(p):
        if p.ndim == q.ndim and block:
            return np.repeat(p, block, axis=axis)[: q.shape[0], : q.shape[1], : q.shape[2]]
        return p.reshape(-1, *[1] * (q.ndim - axis - 1)) if p.size > 1 else p.reshape(())

    return (q - (0 if z is None else spread(z))) * spread(d)


@settings(max_examples=25, deadline=None)
@given(
    axis=st.integers(0, 2),
    zero=st.booleans(),
    per_axis=st.booleans(),
    uniform=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_scale_of_any_sign(harness, axis, zero, per_axis, uniform, seed):
    """Per axis stays per axis; one number becomes one per index."""
    shape = (_SHAPE[axis],) if per_axis else ()
    constants = {"q": _integers(seed, _SHAPE), "d": _steps(seed, shape)}
    if zero:
        constants["q"] = _integers(seed, _SHAPE, lowest=-100, highest=100)
        constants["z"] = _integers(seed, shape, lowest=-13, highest=13)
    view = _node(harness, constants, f"axis = {axis}")
    affine = harness.affine(seed, _SHAPE, () if uniform else (axis,), shift=False)
    crossing = _asked(view, affine)
    assert crossing.constants[1].shape == (shape if uniform else (_SHAPE[axis],))
    if (affine.scale > 0).all():
        assert 0 not in crossing.constants


def test_one_number_becomes_one_per_index_of_another_axis(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, (1,)), "z": np.array([3], np.int8)})
    crossing = _asked(view, harness.affine(1, _SHAPE, (0,), shift=False, positive=True))
    assert crossing.attributes == {"axis": 0}
    assert crossing.constants[2].rounded().dtype == np.int8


def test_per_axis_does_not_take_another_axis(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, (4,))}, "axis = 0")
    with harness.refused("NF124"):
        _asked(view, harness.affine(1, _SHAPE, (1,), shift=False))


def test_two_axes(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, ())})
    with harness.refused("NF124"):
        _asked(view, harness.affine(1, _SHAPE, (0, 1), shift=False))


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, np.int8])
def test_blocks_take_every_axis_but_their_own(harness, dtype):
    constants = {
        "q": _integers(1, (4, 5, 2), lowest=-7, highest=7).astype(dtype),
        "d": _steps(1, (4, 3, 2)),
        "z": np.zeros((4, 3, 2)).astype(dtype),
    }
    view = _node(harness, constants, "axis = 1, block_size = 2")
    _asked(view, harness.affine(1, (4, 5, 2), (0, 2), shift=False))
    _asked(view, Affine.of(-2.0, rank=3))
    with harness.refused("NF124"):
        _asked(view, harness.affine(1, (4, 5, 2), (1,), shift=False))


def test_the_lowest_integer_has_no_opposite(harness):
    q = _integers(1, _SHAPE)
    q[2, 1, 0] = -128
    scale = np.array([-1.0, 1.0, 1.0, -1.0])
    view = _node(harness, {"q": q, "d": _steps(1, (4,))}, "axis = 0")
    _asked(view, Affine.on_axis(scale, 0.0, axis=0, rank=3))
    with harness.refused("NF124"):
        _asked(view, Affine.on_axis(-scale, 0.0, axis=0, rank=3))


def test_unsigned_integers_are_mirrored_at_their_zero_point(harness):
    q = _integers(1, _SHAPE, np.uint8, 1, 255)
    view = _node(harness, {"q": q, "d": _steps(1, ()), "z": np.array(128, np.uint8)})
    crossing = _asked(view, Affine.of(-2.0, rank=3))
    np.testing.assert_array_equal(crossing.constants[0].rounded(), 256 - q.astype(int))
    with harness.refused("NF124"):
        _asked(_node(harness, {"q": q, "d": _steps(1, ())}), Affine.of(-2.0, rank=3))


def test_a_zero_scale_empties_the_channel(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, (4,))}, "axis = 0")
    crossing = _asked(view, Affine.on_axis(np.array([1.0, 0.0, 2.0, 3.0]), 0.0, axis=0, rank=3))
    assert (crossing.constants[1].compute() > 0).all()


def test_per_tensor_only_before_opset_13(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, ())}, opset=12)
    _asked(view, Affine.of(2.0, rank=3))
    with harness.refused("NF124"):
        _asked(view, harness.affine(1, _SHAPE, (0,), shift=False))


def test_a_weight_takes_no_shift(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": np.array(0.5, np.float32)})
    with harness.refused("NF124"):
        _asked(view, Affine.of(1.0, 0.5, rank=3))


def test_a_bias_takes_whole_steps(harness):
    constants = {"q": _integers(1, _SHAPE, np.int32), "d": np.array(0.5, np.float32)}
    crossing = _asked(_node(harness, constants), Affine.of(-2.0, 3.0, rank=3))
    np.testing.assert_array_equal(crossing.constants[0].rounded(), 3 - constants["q"])
    with harness.refused("NF124"):
        _asked(_node(harness, constants), Affine.of(-2.0, 3.25, rank=3))


def test_integers_computed_at_run_time(harness):
    view = harness.one(
        "g (int8[4, 3] q, float d) => (float[4, 3] y) { y = DequantizeLinear (q, d) }", opset=21
    ).view
    with harness.refused("NF124"):
        TABLE["DequantizeLinear"].backward(view, {0: Affine.of(2.0, rank=2)})


_LAYERS = {
    "Conv": ("float[N, 3, H, W] x", "float[N, 4, H, W] y", "Conv (x, w%s)", (4, 3, 1, 1), 0),
    "ConvTranspose": (
        "float[N, 3, H, W] x",
        "float[N, 4, H, W] y",
        "ConvTranspose (x, w%s)",
        (3, 4, 1, 1),
        1,
    ),
    "Gemm": ("float[N, 3] x", "float[N, 4] y", "Gemm (x, w%s)", (3, 4), 1),
    "Gemm, transposed": ("float[N, 3] x", "float[N, 4] y", "Gemm <transB = 1> (x, w%s)", (4, 3), 0),
}


@pytest.mark.parametrize("layer", sorted(_LAYERS))
@pytest.mark.parametrize("bias", [None, "float", "int32"])
@pytest.mark.parametrize("per_axis", [False, True])
def test_fold_behind_a_layer(harness, layer, bias, per_axis):
    """The integers change only their sign; a float bias takes the shift, an int32 one would round."""
    source, result, call, shape, axis = _LAYERS[layer]
    text = f"""g ({source}) => ({result}) {{
        w = DequantizeLinear <axis = {axis}> (q, d)
        {"b = DequantizeLinear <axis = 0> (qb, db)" if bias == "int32" else ""}
        a = {call % ("" if bias is None else ", b")}
        y = BatchNormalization (a, scale, bias, mean, var)
    }}"""
    constants = {
        "q": _integers(1, shape),
        "d": _steps(1, (4,) if per_axis else ()),
        **harness.batchnorm(2, 4, dtype=np.float32),
    }
    if bias == "float":
        constants |= harness.weights(3, b=(4,), dtype=np.float32)
    elif bias == "int32":
        constants |= {"qb": _integers(3, (4,), np.int32, -999, 999), "db": _steps(3, (4,))}
    outcome = harness.fold(text, constants)
    if bias == "int32":
        assert "BatchNormalization" not in outcome.operators or outcome.sites[0].action == "kept"
        return
    outcome.gone()
    assert outcome.operators == ["DequantizeLinear", call.split()[0]]
    stored = next(v for v in outcome.result.model.graph.initializers.values() if v.dtype == ir.DataType.INT8)
    signs = np.sign(constants["scale"]).reshape([4 if i == axis else 1 for i in range(len(shape))])
    np.testing.assert_array_equal(stored.const_value.numpy(), (constants["q"] * signs).astype(np.int8))


def test_fold_a_scale_into_weight_and_int32_bias(harness):
    text = """g (float[N, 3, H, W] x) => (float[N, 4, H, W] y) {
        w = DequantizeLinear <axis = 0> (q, d)
        b = DequantizeLinear <axis = 0> (qb, db)
        a = Conv (x, w, b)
        y = Mul (a, s)
    }"""
    constants = {
        "q": _integers(1, (4, 3, 1, 1)),
        "d": _steps(1, (4,)),
        "qb": _integers(3, (4,), np.int32, -999, 999),
        "db": _steps(3, (4,)),
        **harness.weights(4, s=(4, 1, 1), dtype=np.float32),
    }
    harness.fold(text, constants).gone()


@pytest.mark.parametrize("swapped", [False, True])
def test_fold_into_a_matmul_leaves_its_bias(harness, swapped):
    """``x @ w`` and ``w @ x``, with the constant axis last and first."""
    if swapped:
        call, result, shape = "MatMul (w, x)", "float[N, 4, 5] y", (4, 3)
    else:
        call, result, shape = "MatMul (x, w)", "float[N, 3, 4] y", (5, 4)
    text = f"""g (float[N, 3, 5] x) => ({result}) {{
        w = DequantizeLinear <axis = {0 if swapped else 1}> (q, d)
        a = {call}
        y = Mul (a, s)
    }}"""
    constants = {
        "q": _integers(1, shape),
        "d": _steps(1, (4,)),
        **harness.weights(4, s=(4, 1) if swapped else (4,), dtype=np.float32),
    }
    outcome = harness.fold(text, constants)
    outcome.gone()
    assert outcome.operators == ["DequantizeLinear", "MatMul"]


def test_a_weight_that_cannot_take_it_is_left_alone(harness):
    q = _integers(1, (4, 3, 1, 1))
    q[1, 0, 0, 0] = -128
    text = """g (float[2, 3, 8, 8] x) => (float[2, 4, 8, 8] y) {
        w = DequantizeLinear <axis = 0> (q, d)
        a = Conv (x, w)
        y = BatchNormalization (a, scale, bias, mean, var)
    }"""
    outcome = harness.fold(text, {"q": q, "d": _steps(1, (4,)), **harness.batchnorm(2, 4, dtype=np.float32)})
    outcome.kept("NF124")


def test_our_kernel_agrees_with_the_definition(harness):
    view = _node(harness, {"q": _integers(1, _SHAPE), "d": _steps(1, (4,))}, "axis = 0")
    operands = [view.array(0), view.array(1).astype(np.float32)]
    (ours,) = evaluate_node(view.node, operands, {"": 21})
    np.testing.assert_allclose(ours, _dequantised(operands, 0, view), rtol=1e-15)


def test_a_dequantised_weight_that_another_layer_reads(harness):
    """It could be scaled for one of them by an operator on the weight only."""
    text = """g (float[2, 3, 8, 8] x) => (float[2, 4, 8, 8] y, float[2, 4, 8, 8] z) {
        w = DequantizeLinear <axis = 0> (q, d)
        z = Conv (x, w)
        a = Conv (x, w)
        y = Mul (a, s)
    }"""
    constants = {"q": _integers(1, (4, 3, 1, 1)), "d": _steps(1, (4,))}
    constants |= harness.weights(4, s=(4, 1, 1), dtype=np.float32)
    harness.fold(text, constants).kept("NF103")
