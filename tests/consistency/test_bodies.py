"""Layers in the bodies of If, Loop and Scan: held against data where a body runs, and calibrated."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from normfold.consistency.calibration import calibrate
from normfold.consistency.drift import data_findings
from normfold.consistency.layers import batchnorm_layers
from normfold.consistency.measurement import measure_layers
from normfold.consistency.oracle import measure_gap
from normfold.consistency.order import first_layers, independent_groups
from normfold.consistency.training import running_layers, with_batch_statistics
from normfold.evaluation import Evaluator

MEAN, DEVIATION = np.array([0.5, -2.0, 3.0]), np.array([1.0, 0.3, 2.0])
EPSILON = float(np.float32(1e-5))


def built(inputs: str, outputs: str, nodes: str, **constants: np.ndarray) -> ir.Model:
    """A model whose initializers stand in the main graph, where bodies may capture them."""
    constants = {"g": np.array([1.2, 0.8, -1.0]), "b": np.array([0.1, 0.0, -0.3]), **constants}
    listed = ", ".join(
        f"float{list(a.shape) or ''} {name} = {{{', '.join(repr(float(v)) for v in a.ravel())}}}"
        for name, a in constants.items()
    )
    text = f'<ir_version: 8, opset_import: ["": 17]> main ({inputs}) => ({outputs}) <{listed}> {{ {nodes} }}'
    return ir.from_onnx_text(text)


def if_model(mean: np.ndarray = MEAN, var: np.ndarray = DEVIATION**2) -> ir.Model:
    """A layer on a captured value, in the branch that runs where the largest input is above ``h``."""
    return built(
        "float[N,3,6,6] x",
        "float[N,3,6,6] y",
        "s = ReduceMax<keepdims = 0>(x) p = Greater(s, h) y = If(p) "
        "<then_branch = t () => (float[N,3,6,6] a) { a = BatchNormalization(x, g, b, m, v) }, "
        "else_branch = e () => (float[N,3,6,6] o) { o = Identity(x) }>",
        h=np.array(0.0),
        m=mean,
        v=var,
    )


def scan_model(mean: np.ndarray = MEAN, var: np.ndarray = DEVIATION**2) -> ir.Model:
    """A layer on every step of ``[T, N, 3]``, without state."""
    return built(
        "float[N,5,3] x",
        "float[T,N,3] y",
        "s = Transpose<perm = [1, 0, 2]>(x) y = Scan<num_scan_inputs = 1, "
        "body = step (float[N,3] i) => (float[N,3] o) { o = BatchNormalization(i, g, b, m, v) }>(s)",
        m=mean,
        v=var,
    )


def loop_model(steps: int, scale: float, var: np.ndarray) -> ir.Model:
    """A layer whose output is its input in the next of ``steps`` iterations."""
    ones = np.ones(3)
    return built(
        "float[N,3] x",
        "float[N,3] y",
        f"n = Constant<value_int = {steps}>() "
        "y = Loop<body = step (int64 i, bool c, float[N,3] s) => (bool k, float[N,3] o) "
        "{ k = Identity(c) o = BatchNormalization(s, g, b, m, v) }>(n, , x)",
        g=ones * scale,
        b=ones * 0,
        m=ones * 0,
        v=var,
    )


def images(count: int = 128, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shift, factor = MEAN[:, None, None], DEVIATION[:, None, None]
    return (shift + factor * rng.normal(size=(count, 3, 6, 6))).astype(np.float32)


def steps_of(count: int = 128, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (MEAN + DEVIATION * rng.normal(size=(count, 5, 3))).astype(np.float32)


def batches(x: np.ndarray, size: int = 16) -> list[dict[str, np.ndarray]]:
    return [{"x": x[start : start + size]} for start in range(0, len(x), size)]


CASES = [(if_model, images), (scan_model, steps_of)]


@pytest.mark.parametrize(("make", "draw"), CASES)
def test_moments_are_those_of_what_the_body_was_given(make, draw) -> None:  # type: ignore[no-untyped-def]
    x = draw()
    (data,) = measure_layers(make(), batches(x)).layers
    axes = (0, 2, 3) if x.ndim == 4 else (0, 1)
    for moments in (data.deployment, data.training):
        assert moments.images == len(x)
        np.testing.assert_allclose(moments.mean, x.mean(axes, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(moments.variance, x.var(axes, dtype=np.float64), rtol=1e-12)
    per_image = x.astype(np.float64).mean(tuple(axis for axis in axes if axis))
    np.testing.assert_allclose(data.deployment.between, per_image.var(0), rtol=1e-10)


@pytest.mark.parametrize(("make", "draw"), CASES)
def test_healthy_and_damaged(make, draw) -> None:  # type: ignore[no-untyped-def]
    assert data_findings(make(), batches(draw())).findings == []
    report = data_findings(make(var=1000 * DEVIATION**2), batches(draw()), oracle=False)
    assert [c.code for c in report.causes] == ["NF354"]
    assert report.first == batchnorm_layers(make())[0].site


@pytest.mark.parametrize(("make", "draw"), CASES)
def test_calibration_puts_in_the_statistics_of_the_data(make, draw) -> None:  # type: ignore[no-untyped-def]
    x = draw()
    done = calibrate(make(MEAN + 1, 50 * DEVIATION**2), batches(x))
    (layer,) = batchnorm_layers(done.model)
    axes = (0, 2, 3) if x.ndim == 4 else (0, 1)
    np.testing.assert_allclose(layer.mean, x.mean(axes), rtol=0, atol=1e-5)
    np.testing.assert_allclose(layer.var, x.var(axes), rtol=2e-5)
    assert not {f.code for f in done.findings} & {"NF353", "NF352"}
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x.transpose(1, 0, 2)
    expected = (last - layer.mean) / np.sqrt(layer.var + EPSILON) * layer.gamma + layer.beta
    got = Evaluator(ir.from_proto(ir.to_proto(done.model))).run({"x": x})["y"]
    np.testing.assert_allclose(np.moveaxis(got, 1, -1) if x.ndim == 4 else got, expected, atol=1e-9)


def test_branch_that_does_not_run_is_named() -> None:
    report = data_findings(if_model(), batches(images() - 100))
    assert [(f.code, f.site) for f in report.findings] == [("NF353", "a")]
    done = calibrate(if_model(), batches(images() - 100))
    assert [(f.code, f.site) for f in done.findings if f.code == "NF353"] == [("NF353", "a")]
    np.testing.assert_array_equal(batchnorm_layers(done.model)[0].mean, MEAN)


def test_branch_that_only_some_batches_take() -> None:
    """Judged on the images that went through it."""
    x = np.concatenate([images(64, 1), images(64, 2) - 100])
    (data,) = measure_layers(if_model(), batches(x, 64)).layers
    assert data.deployment.images == 64
    np.testing.assert_allclose(data.deployment.mean, x[:64].mean((0, 2, 3)), rtol=1e-6)


def test_training_mode_normalises_every_iteration_by_itself() -> None:
    x = steps_of(64)
    y = Evaluator(with_batch_statistics(scan_model())).run({"x": x})["y"]
    step = x.astype(np.float64).transpose(1, 0, 2)
    (layer,) = batchnorm_layers(scan_model())
    normal = (step - step.mean(1, keepdims=True)) / np.sqrt(step.var(1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(y, normal * layer.gamma + layer.beta, rtol=0, atol=1e-12)


def test_oracle_swaps_layers_in_bodies() -> None:
    gap = measure_gap(scan_model(var=50 * DEVIATION**2), batches(steps_of()))
    assert [share.site for share in gap.layers] == ["o"] and gap.layers[0].largest > 0.5
    assert all(change < 1e-9 for change in gap.batch_dependence.values())


def test_scan_over_the_images_counts_them() -> None:
    """Each iteration is given one image."""
    model = built(
        "float[N,4,3] x",
        "float[N,4,3] y",
        "y = Scan<num_scan_inputs = 1, body = step (float[4,3] i) => (float[4,3] o) "
        "{ o = BatchNormalization(i, g, b, m, v) }>(x)",
        m=MEAN,
        v=DEVIATION**2,
    )
    x = steps_of(32)[:, :4]
    (data,) = measure_layers(model, batches(x, 8)).layers
    assert data.deployment.images == 32
    np.testing.assert_allclose(data.deployment.variance, x.var((0, 1), dtype=np.float64), rtol=1e-12)


def test_loop_that_feeds_a_layer_its_own_output_settles() -> None:
    x = np.random.default_rng(3).normal(0, 2, (128, 3)).astype(np.float32)
    done = calibrate(loop_model(2, 0.3, np.ones(3)), batches(x))
    (layer,) = batchnorm_layers(done.model)
    given, state = [], x.astype(np.float64)
    for _ in range(2):
        given.append(state)
        state = (state - layer.mean) / np.sqrt(layer.var + EPSILON) * 0.3
    np.testing.assert_allclose(layer.var, np.concatenate(given).var(0), rtol=2e-3)
    assert "NF352" not in {f.code for f in done.findings if f.severity == "warn"}
    assert done.passes > 1


def test_loop_that_does_not_settle_is_said() -> None:
    """With six iterations a variance too large gives one too small, and so on."""
    x = np.random.default_rng(3).normal(0, 2, (128, 3)).astype(np.float32)
    done = calibrate(loop_model(6, 2.0, np.ones(3) * 5), batches(x), diagnosis=False)
    assert [(f.code, f.severity) for f in done.findings if "loop" in f.message] == [("NF352", "warn")]


def test_order_goes_into_bodies() -> None:
    model = built(
        "float[N,3] x",
        "float[N,3] y",
        "f = BatchNormalization(x, g, b, m, v) s = ReduceMax<keepdims = 0>(x) p = Greater(s, h) "
        "k = If(p) <then_branch = t () => (float[N,3] a2) "
        "{ a1 = BatchNormalization(f, g, b, m, v) a2 = BatchNormalization(a1, g, b, m, v) }, "
        "else_branch = e () => (float[N,3] e1) { e1 = BatchNormalization(x, g, b, m, v) }> "
        "y = BatchNormalization(k, g, b, m, v)",
        h=np.array(0.0),
        m=MEAN,
        v=DEVIATION**2,
    )
    layers = running_layers(model)
    assert [layer.site for layer in layers] == ["f", "a1", "a2", "e1", "y"]
    groups = [{layer.site for layer in group} for group in independent_groups(model, layers)]
    assert groups == [{"f", "e1"}, {"a1"}, {"a2"}, {"y"}]
    assert {layer.site for layer in first_layers(model, layers)} == {"f", "e1"}
