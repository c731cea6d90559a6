"""Conv and ConvTranspose against torch in float64; geometry that torch lacks against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normfold.evaluation import NotCovered

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def geometries(draw):
    rank = draw(st.integers(1, 3))
    sizes = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    return {
        "rank": rank,
        "groups": draw(st.integers(1, 3)),
        "per_in": draw(st.integers(1, 3)),
        "per_out": draw(st.integers(1, 3)),
        "kernel": sizes(1, 3),
        "strides": sizes(1, 3),
        "dilations": sizes(1, 2),
        "begin": sizes(0, 2),
        "end": sizes(0, 2),
        "spatial": sizes(5, 8),
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


@pytest.mark.torch
@SETTINGS
@given(geometry=geometries())
def test_conv_of_any_geometry_equals_torch(evaluate, geometry):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(geometry["seed"])
    g, rank = geometry["groups"], geometry["rank"]
    x = rng.standard_normal((2, g * geometry["per_in"], *geometry["spatial"]))
    w = rng.standard_normal((g * geometry["per_out"], geometry["per_in"], *geometry["kernel"]))
    b = rng.standard_normal(w.shape[0]) if geometry["bias"] else None
    (y,) = evaluate(
        "Conv",
        [x, w] if b is None else [x, w, b],
        group=g,
        strides=geometry["strides"],
        dilations=geometry["dilations"],
        pads=geometry["begin"] + geometry["end"],
    )
    pairs = zip(reversed(geometry["begin"]), reversed(geometry["end"]), strict=True)
    padded = torch.nn.functional.pad(torch.tensor(x), [v for pair in pairs for v in pair])
    conv = getattr(torch.nn.functional, f"conv{rank}d")
    expected = conv(
        padded,
        torch.tensor(w),
        None if b is None else torch.tensor(b),
        stride=geometry["strides"],
        dilation=geometry["dilations"],
        groups=g,
    ).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.torch
@SETTINGS
@given(geometry=geometries(), data=st.data())
def test_conv_transpose_of_any_geometry_equals_torch(evaluate, geometry, data):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(geometry["seed"])
    g, rank = geometry["groups"], geometry["rank"]
    limits = zip(geometry["strides"], geometry["dilations"], strict=True)
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in limits]
    pads = [min(p, 1) for p in geometry["begin"]]
    x = rng.standard_normal((2, g * geometry["per_in"], *geometry["spatial"]))
    w = rng.standard_normal((g * geometry["per_in"], geometry["per_out"], *geometry["kernel"]))
    b = rng.standard_normal(g * geometry["per_out"])
    (y,) = evaluate(
        "ConvTranspose",
        [x, w, b],
        group=g,
        strides=geometry["strides"],
        dilations=geometry["dilations"],
        pads=pads + pads,
        output_padding=extra,
    )
    transposed = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    expected = transposed(
        torch.tensor(x),
        torch.tensor(w),
        torch.tensor(b),
        stride=geometry["strides"],
        padding=pads,
        output_padding=extra,
        groups=g,
        dilation=geometry["dilations"],
    ).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_conv_in_chunks_equals_conv_at_once(evaluate, monkeypatch):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 4, 12, 10)), rng.standard_normal((6, 2, 3, 3))
    attributes = {"group": 2, "pads": [1, 1, 1, 1]}
    (whole,) = evaluate("Conv", [x, w], **attributes)
    monkeypatch.setattr("normfold.evaluation.kernels.convolution._CHUNK_ELEMENTS", 800)
    (chunked,) = evaluate("Conv", [x, w], **attributes)
    np.testing.assert_allclose(chunked, whole, rtol=1e-13)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 4, 2), (6, 3, 1), (5, 2, 3), (5, 1, 3)])
def test_conv_auto_pad_equals_onnxruntime(evaluate, runtime, auto_pad, size, kernel, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, size)).astype(np.float32)
    w = rng.standard_normal((3, 2, kernel)).astype(np.float32)
    attributes = {"auto_pad": auto_pad, "strides": [stride]}
    (y,) = evaluate("Conv", [x, w], **attributes)
    (expected,) = runtime("Conv", [x, w], **attributes)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("output", [7, 8, 10])
def test_conv_transpose_output_shape_equals_onnxruntime(evaluate, runtime, auto_pad, output):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 4)).astype(np.float32)
    w = rng.standard_normal((2, 3, 3)).astype(np.float32)
    attributes = {"auto_pad": auto_pad, "strides": [2], "output_shape": [output]}
    (y,) = evaluate("ConvTranspose", [x, w], **attributes)
    (expected,) = runtime("ConvTranspose", [x, w], **attributes)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_conv_transpose_same_with_gaps_is_not_covered(evaluate):
    with pytest.raises(NotCovered, match="leave gaps"):
        evaluate(
            "ConvTranspose", [np.ones((1, 1, 3)), np.ones((1, 1, 1))], strides=[2], auto_pad="SAME_UPPER"
        )


def test_conv_of_float16_accumulates_in_float32(evaluate):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 64, 5)).astype(np.float16)
    w = rng.standard_normal((2, 64, 3)).astype(np.float16)
    (y,) = evaluate("Conv", [x, w], precision="native")
    (exact,) = evaluate("Conv", [x, w])
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, exact, rtol=1e-3, atol=1e-3)


def test_conv_with_a_kernel_larger_than_the_input_is_refused(evaluate):
    with pytest.raises(NotCovered, match="larger than the padded input"):
        evaluate("Conv", [np.ones((1, 1, 2)), np.ones((1, 1, 3))])


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"pads": [1, 0, 2, 1], "strides": [2, 1]},
        {"dilations": [1, 2], "pads": [0, 2, 0, 2]},
    ],
)
def test_col2im_equals_torch(evaluate, geometry):
    torch = pytest.importorskip("torch")
    pads = geometry.get("pads", [0] * 4)
    strides, dilations = geometry.get("strides", [1, 1]), geometry.get("dilations", [1, 1])
    image, kernel = [5, 6], [3, 2]
    # torch pads both ends alike: fold a larger image, and cut it.
    padded = [size + pads[axis] + pads[axis + 2] for axis, size in enumerate(image)]
    length = np.prod([(padded[a] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(2)])
    columns = np.random.default_rng(0).standard_normal((2, 18, length))
    (y,) = evaluate("Col2Im", [columns, np.array(image), np.array(kernel)], **geometry)
    expected = torch.nn.functional.fold(
        torch.tensor(columns), padded, kernel, stride=strides, dilation=dilations
    ).numpy()
    expected = expected[:, :, pads[0] : pads[0] + image[0], pads[1] : pads[1] + image[1]]
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-14)
