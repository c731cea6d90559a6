"""Resize and Upsample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normfold.affine import Affine
from normfold.evaluation import evaluate_node
from normfold.planning.operators import TABLE

_WAYS = pytest.mark.parametrize("way", ["backward", "forward"])
_DOUBLED = np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32)


def _resize(harness, attributes, call="x, , scales", dims="N, 3, 4, 5", opset=20, **constants):
    constants = constants or {"scales": _DOUBLED}
    text = f"g (double[{dims}] x) => (double[P, C, Q, R] y) {{ y = Resize <{attributes}> ({call}) }}"
    return harness.one(text, constants, opset=opset)


def _crosses(node, way, affine):
    """The entry's answer, proven with our float64 kernel, which tests/evaluation holds to torch."""
    crossing = getattr(TABLE["Resize"], way)(node.view, {0: affine})
    assert crossing.affines[0].same_as(affine) and not crossing.edits_node
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    operands = [None, *(node.view.array(slot) for slot in range(1, len(node.view.node.inputs)))]
    native = [None if v is None else v.astype(np.float32) if v.dtype == np.float64 else v for v in operands]

    def run(array):
        opsets = {"": node.view.opset}
        return evaluate_node(node.view.node, [array, *native[1:]], opsets)[0]

    np.testing.assert_allclose(run(affine.apply(x)), affine.apply(run(x)), rtol=0, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    attributes=st.sampled_from(
        [
            'mode = "nearest"',
            'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
            'mode = "linear"',
            'mode = "linear", coordinate_transformation_mode = "align_corners"',
            'mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"',
            'mode = "cubic"',
            'mode = "cubic", cubic_coeff_a = -0.5',
            'mode = "cubic", exclude_outside = 1',
        ]
    ),
    scales=st.sampled_from([(2.0, 2.0), (3.0, 1.0), (1.5, 0.5), (0.75, 2.0)]),
    way=st.sampled_from(["backward", "forward"]),
    seed=st.integers(0, 99),
)
def test_every_mode_has_weights_that_sum_to_one(harness, attributes, scales, way, seed):
    if "align_corners" in attributes:
        scales = (2.0, 2.0)
    if "nearest" in attributes:
        scales = tuple(max(s, 1.0) for s in scales)
    node = _resize(harness, attributes, scales=np.array([1.0, 1.0, *scales], dtype=np.float32))
    _crosses(node, way, harness.affine(seed, (1, 3, 1, 1), (1,)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_torch_agrees_that_a_shift_crosses(mode, antialias):
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, 6, 7)))

    def resize(value):
        return torch.nn.functional.interpolate(
            value, size=(4, 11), mode=mode, align_corners=False, antialias=antialias
        )

    torch.testing.assert_close(resize(2 * x + 5), 2 * resize(x) + 5, rtol=0, atol=1e-13)


@_WAYS
@pytest.mark.parametrize(
    ("call", "constants"),
    [
        ("x, , , sizes", {"sizes": np.array([2, 3, 8, 7])}),
        ("x, , scales", {"scales": _DOUBLED}),
    ],
)
def test_an_axis_that_keeps_its_size(harness, call, constants, way):
    node = _resize(harness, 'mode = "linear"', call, dims="2, 3, 4, 5", **constants)
    getattr(TABLE["Resize"], way)(node.view, {0: harness.affine(1, (2, 3, 1, 1), (0, 1))})


@_WAYS
def test_sizes_computed_at_run_time(harness, way):
    """The channel axis is static on both sides, so it keeps its size whatever is computed."""
    text = "g (double[N, 3, H, W] x, int64[4] sizes) => (double[N, %s, P, Q] y) { y = Resize (x, , , sizes) }"
    affine = harness.affine(1, (1, 3, 1, 1), (1,))
    getattr(TABLE["Resize"], way)(harness.one(text % "3").view, {0: affine})
    with harness.refused("NF110"):
        getattr(TABLE["Resize"], way)(harness.one(text % "C").view, {0: affine})


@_WAYS
def test_scales_computed_at_run_time(harness, way):
    text = "g (double[N, 3, H, W] x, float[4] scales) => (double[N, 3, P, Q] y) { y = Resize (x, , scales) }"
    view = harness.one(text).view
    getattr(TABLE["Resize"], way)(view, {0: Affine.of(2.0, 1.0, rank=4)})
    with harness.refused("NF110"):
        getattr(TABLE["Resize"], way)(view, {0: harness.affine(1, (1, 3, 1, 1), (1,))})


@_WAYS
def test_listed_axes_leave_the_others_alone(harness, way):
    node = harness.one(
        """g (double[N, 3, 4, 5] x, float[2] scales) => (double[N, 3, Q, R] y) {
            y = Resize <axes = [2, -1]> (x, , scales)
        }"""
    )
    getattr(TABLE["Resize"], way)(node.view, {0: harness.affine(1, (1, 3, 1, 1), (1,))})


@_WAYS
def test_an_axis_whose_size_is_only_rounded_to_itself(harness, way):
    scales = np.array([1.0, 1.1, 2.0, 2.0], dtype=np.float32)  # floor(3.3) is 3, and yet it is resampled
    with harness.refused("NF110"):
        getattr(_resize(harness, 'mode = "linear"', scales=scales), way)(
            harness.affine(1, (1, 3, 1, 1), (1,))
        )


@_WAYS
def test_a_resized_axis(harness, way):
    with harness.refused("NF110"):
        getattr(_resize(harness, 'mode = "nearest"'), way)(harness.affine(1, (1, 1, 4, 1), (2,)))


@_WAYS
def test_a_grid_that_moves_even_where_the_size_stays(harness, way):
    with harness.refused("NF110"):
        getattr(
            _resize(harness, 'mode = "nearest", coordinate_transformation_mode = "tf_half_pixel_for_nn"'), way
        )(harness.affine(1, (1, 3, 1, 1), (1,)))


@_WAYS
def test_crop_and_resize(harness, way):
    def node(roi, extra=""):
        return _resize(
            harness,
            'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"' + extra,
            "x, roi, , sizes",
            dims="2, 3, 4, 5",
            roi=np.array(roi, dtype=np.float32),
            sizes=np.array([2, 3, 8, 7]),
        ).view

    inside = [0, 0, 0.25, 0.0, 1, 1, 0.75, 1.0]
    outside, beyond = [0, 0, -0.25, 0.0, 1, 1, 0.75, 1.0], [0, 0, 0.25, 0.0, 1, 1, 0.75, 1.25]
    both, scale = Affine.of(2.0, 1.0, rank=4), Affine.of(2.0, rank=4)
    ask = getattr(TABLE["Resize"], way)
    ask(node(inside), {0: both})
    for region in (outside, beyond):
        ask(node(region), {0: scale})
        with harness.refused("NF116"):
            ask(node(region), {0: both})
    with harness.refused("NF116"):
        ask(node(outside, ", extrapolation_value = 1.0"), {0: scale})


@_WAYS
def test_upsample(harness, way):
    affine = harness.affine(1, (1, 3, 1, 1), (1,))
    nine = harness.one(
        "g (double[N, 3, 4, 5] x) => (double[N, 3, 8, 10] y) { y = Upsample (x, scales) }",
        {"scales": _DOUBLED},
        opset=9,
    )
    seven = harness.one(
        """g (double[N, 3, 4, 5] x) => (double[N, 3, 8, 10] y) {
            y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)
        }""",
        opset=7,
    )
    for node in (nine, seven):
        getattr(TABLE["Upsample"], way)(node.view, {0: affine})
        with harness.refused("NF110"):
            getattr(TABLE["Upsample"], way)(node.view, {0: harness.affine(1, (1, 1, 4, 1), (2,))})


def test_resize_of_opset_10(harness):
    node = _resize(harness, 'mode = "linear"', "x, scales", opset=10, scales=_DOUBLED)
    TABLE["Resize"].backward(node.view, {0: harness.affine(1, (1, 3, 1, 1), (1,))})


def test_fold_through_an_upsampling(harness):
    text = """g (float[N, 3, H, W] x) => (float[N, 4, P, Q] y) {
        a = Conv (x, w)
        b = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (a, , scales)
        y = BatchNormalization (b, scale, bias, mean, var)
    }"""
    constants = {
        **harness.weights(1, w=(4, 3, 1, 1), dtype=np.float32),
        **harness.batchnorm(2, 4, dtype=np.float32),
        "scales": _DOUBLED,
    }
    harness.fold(text, constants).gone()
