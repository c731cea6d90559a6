"""What looks like a normalisation and is none is refused with a code, each time for one difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from models.export import quiet
from normfold.folding import fold_model
from normfold.options import FoldOptions
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import LookAlike, Norm, find_norms
from tests.checker import Checker

GROUPED = (
    "r = Reshape (x, rows) mu = ReduceMean (r, last) c = Sub (r, mu) sq = Mul (c, c) "
    "v = ReduceMean (sq, last) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) y = Reshape (n, back)"
)
BY_CHANNEL = (
    "mu = ReduceMean (x, spatial) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean (sq, spatial) "
    "ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)"
)
UNBIASED = (
    "s = Shape (x) r = Reshape (x, rows) mu = ReduceMean (r, last) c = Sub (r, mu) sq = Mul (c, c) "
    "sum = ReduceSum (sq, last) rs = Shape <start=2> (r) k = Cast <to=1> (rs) less = Sub (k, one) "
    "v = Div (sum, less) ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) y = Reshape (n, s)"
)
CONSTANTS = {
    "rows": np.array([0, 3, -1]),
    "back": np.array([0, 12, 4, 5]),
    "five": np.array([0, 3, 4, 4, 5]),
    "rest": np.array([2, 3, 4]),
    "strided": np.array([0, 4, 3, 20]),
    "last": np.array([2]),
    "spatial": np.array([2, 3]),
    "everything": np.array([1, 2, 3]),
    "samples": np.array([0, 2, 3]),
    "mixed": np.array([1, 3]),
    "channels": np.array([1]),
    "width": np.array([3]),
    "eps": np.array(1e-3, np.float32),
    "one": np.array(1, np.float32),
    "zero": np.array(0, np.float32),
    "two": np.array(2, np.float32),
    "three": np.array(3, np.float32),
    "wide": np.array([2, 12, 4, 5]),
    "row": np.array([3, 1, 4, 1, 5], np.float32),
    "seven": np.ones(7, np.float32),
    "third": np.array([3]),
}


def model(check: Checker, body: str, shape: str = "[2, 12, 4, 5]", *, opset: int = 20) -> onnx.ModelProto:
    text = f"g (float{shape} x, float{shape} z) => (float{shape} y) {{ {body} }}"
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    constants = {name: array for name, array in CONSTANTS.items() if name in words}
    return check.model(text, constants, opset=opset, also=', "com.microsoft": 1')


def found_in(proto: onnx.ModelProto) -> list[Norm | LookAlike]:
    return list(find_norms(Workspace(ir.from_proto(proto))))


CHANGES = {
    "epsilon outside": (
        GROUPED,
        "ve = Add (v, eps) sd = Sqrt (ve)",
        "q = Sqrt (v) sd = Add (q, eps)",
        "NF401",
    ),
    "epsilon inside and outside": (GROUPED, "sd = Sqrt (ve)", "q = Sqrt (ve) sd = Add (q, eps)", "NF401"),
    "over samples": (BY_CHANNEL, "spatial", "samples", "NF406"),
    "mean over more axes": (BY_CHANNEL, "ReduceMean (x, spatial)", "ReduceMean (x, everything)", "NF406"),
    "variance over more axes": (
        BY_CHANNEL,
        "ReduceMean (sq, spatial)",
        "ReduceMean (sq, everything)",
        "NF406",
    ),
    "mean of another value": (BY_CHANNEL, "ReduceMean (x, spatial)", "ReduceMean (z, spatial)", "NF406"),
    "another value is divided": (BY_CHANNEL, "y = Div (c, sd)", "d = Sub (z, mu) y = Div (d, sd)", "NF406"),
    "twice the mean": (BY_CHANNEL, "y = Div (c, sd)", "d = Sub (c, mu) y = Div (d, sd)", "NF406"),
    "no mean": (BY_CHANNEL, "y = Div (c, sd)", "y = Div (x, sd)", "NF406"),
    "no mean in the variance": (BY_CHANNEL, "Mul (c, c)", "Mul (x, x)", "NF406"),
    "root mean square of an image": (BY_CHANNEL, "c = Sub (x, mu)", "c = Mul (x, one)", "NF406"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_thing_differs(check: Checker, change: str) -> None:
    body, was, becomes, code = CHANGES[change]
    assert was in body
    kept = [one for one in found_in(model(check, body)) if isinstance(one, Norm)]
    assert [norm.y.name for norm in kept] == ["y"]
    found = found_in(model(check, body.replace(was, becomes)))
    assert [one.code if isinstance(one, LookAlike) else one for one in found] == [code]


VARIANCE = "ve = Add (v, eps)"
NO_VARIANCE = {
    "third moment": ("sq = Mul (c, c)", "sq = Pow (c, three)"),
    "the larger one": (VARIANCE, "ve = Max (v, eps)"),
    "clipped above": (VARIANCE, "w = Clip (v, zero, two) ve = Add (w, eps)"),
    "clipped below at one": (VARIANCE, "w = Clip (v, one) ve = Add (w, eps)"),
    # max(var, ε), not var.
    "it may be negative": (VARIANCE, "w = Sub (v, eps) p = Relu (w) ve = Add (p, eps)"),
    "epsilon is subtracted": (VARIANCE, "ve = Sub (v, eps)"),
    "the mean is added to it": (VARIANCE, "m = ReduceMean (x, spatial) w = Add (v, m) ve = Add (w, eps)"),
    "fourth root": ("y = Div (c, sd)", "i = Reciprocal (sd) h = Sqrt (i) y = Mul (c, h)"),
    "root of twice the reciprocal": ("sd = Sqrt (ve) y = Div (c, sd)", "d = Div (two, ve) i = Sqrt (d) "
                                     "y = Mul (c, i)"),
}  # fmt: skip


@pytest.mark.parametrize("change", NO_VARIANCE)
def test_what_it_is_divided_by_is_no_deviation(check: Checker, change: str) -> None:
    was, becomes = NO_VARIANCE[change]
    assert was in BY_CHANNEL
    found = found_in(model(check, BY_CHANNEL.replace(was, becomes)))
    assert [one for one in found if isinstance(one, Norm)] == []


BEHIND = {
    "the mean is added back": "m = ReduceMean (x, spatial) y = Add (n, m)",
    "divided by the mean": "m = ReduceMean (x, spatial) y = Div (n, m)",
    "a third moment is added": "x2 = Mul (x, x) x3 = Mul (x2, x) m3 = ReduceMean (x3, spatial) "
    "y = Add (n, m3)",
    "rounded": "i = Cast <to=6> (n) y = Cast <to=1> (i)",
    "a scale behind the gate": "s = Sigmoid (n) y = Mul (s, two)",
    "a scale along the width": "y = Mul (n, row)",
    "a scale that does not fit": "y = Mul (n, seven)",
}


@pytest.mark.parametrize("behind", BEHIND)
def test_what_is_behind_it_is_no_part_of_it(check: Checker, behind: str) -> None:
    norms = found_in(model(check, f"{BY_CHANNEL.replace('y =', 'n =')} {BEHIND[behind]}"))
    assert [(norm.y.name, norm.activation) for norm in norms if isinstance(norm, Norm)] == [("n", None)]


def test_a_scale_along_the_width_is_none_of_the_channels(check: Checker) -> None:
    norms = found_in(model(check, f"{GROUPED.replace('y =', 'w =')} y = Mul (w, row)"))
    assert [norm.y.name for norm in norms if isinstance(norm, Norm)] == ["w"]


def test_a_scale_behind_silu_is_no_part_of_it(check: Checker) -> None:
    body = BY_CHANNEL.replace("y = Div", "n = Div") + " s = Sigmoid (n) a = Mul (n, s) y = Mul (a, two)"
    (norm,) = found_in(model(check, body))
    assert isinstance(norm, Norm)
    assert (norm.y.name, norm.activation) == ("a", "silu")


@pytest.mark.parametrize(("slope", "end"), [("", "n"), ("<alpha=1.0>", "y")], ids=["1.702", "1"])
def test_only_a_slope_of_one_is_silu(check: Checker, slope: str, end: str) -> None:
    body = BY_CHANNEL.replace("y = Div", "n = Div") + f" y = com.microsoft.QuickGelu {slope} (n)"
    (norm,) = found_in(model(check, body))
    assert isinstance(norm, Norm)
    assert (norm.y.name, norm.activation) == (end, "silu" if end == "y" else None)


def test_the_deviation_of_another_position(check: Checker) -> None:
    """Rows and columns are as many, and the deviation has its own in the other order."""
    over_channels = BY_CHANNEL.replace("spatial", "channels")
    proto = model(check, over_channels, "[2, 12, 4, 4]")
    assert [norm.y.name for norm in found_in(proto) if isinstance(norm, Norm)] == ["y"]
    turned = over_channels.replace("y = Div (c, sd)", "t = Transpose <perm=[0, 1, 3, 2]> (sd) y = Div (c, t)")
    proto = model(check, turned, "[2, 12, 4, 4]")
    assert [one for one in found_in(proto) if isinstance(one, Norm)] == []


BY_ROW = (
    "mu = ReduceMean (x, channels) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean (sq, channels) "
    "ve = Add (v, eps) sd = Sqrt (ve) n = Div (c, sd) a = Unsqueeze (x, second) b = Unsqueeze (x, channels) "
)


@pytest.mark.parametrize(
    "pairs",
    [
        "d = Sub (a, b) e = ReduceMean <keepdims=0> (d, second) y = Add (n, e)",
        "w = Mul (a, ones) d = Sub (w, b) e = ReduceMean <keepdims=0> (d, second) y = Add (n, e)",
    ],
    ids=["directly", "where a constant has made room"],
)
def test_every_element_with_every_other(check: Checker, pairs: str) -> None:
    """The mean of ``x_i − x_j`` over j is ``x_i − μ``, not that of ``x_i − x_i``."""
    proto = check.model(
        f"g (float[2, 12] x) => (float[2, 12] y) {{ {BY_ROW} {pairs} }}",
        {
            "channels": np.array([1]),
            "second": np.array([2]),
            "eps": np.array(1e-3, np.float32),
            **({"ones": np.ones(12, np.float32)} if "ones" in pairs else {}),
        },
    )
    (norm,) = found_in(proto)
    assert isinstance(norm, Norm)
    assert norm.y.name == "n"


def test_a_mean_over_what_only_a_constant_spans(check: Checker) -> None:
    """Each element is divided by its own size; later the constant's axis turns out to be the channels."""
    body = (
        "m = ReduceMean (x, second) w = Mul (m, ones) sq = Mul (w, w) v = ReduceMean (sq, second) "
        "t = Transpose <perm=[0, 2, 1]> (x) z = Add (w, t) ve = Add (v, eps) sd = Sqrt (ve) y = Div (x, sd)"
    )
    proto = check.model(
        f"g (float[2, 12, 1] x) => (float[2, 12, 1] y, float[2, 12, 12] z) {{ {body} }}",
        {"ones": np.ones(12, np.float32), "second": np.array([2]), "eps": np.array(1e-3, np.float32)},
    )
    assert [one for one in found_in(proto) if isinstance(one, Norm)] == []


@pytest.mark.parametrize(("width", "norms"), [("5", ["y"]), ("W", [])])
def test_a_scale_of_positions_needs_as_many(check: Checker, width: str, norms: list[str]) -> None:
    body = BY_CHANNEL.replace("spatial", "width").replace(
        "y = Div (c, sd)", "a = Div (row, sd) y = Mul (c, a)"
    )
    found = found_in(model(check, body, f"[N, 12, 4, {width}]"))
    assert [norm.y.name for norm in found if isinstance(norm, Norm)] == norms


def test_the_mean_of_weighted_elements(check: Checker) -> None:
    """``w·x − mean(w·x)`` is not ``w·(x − mean(x))``."""
    body = (
        "mu = ReduceMean (x, width) c = Sub (x, mu) sq = Mul (c, c) v = ReduceMean (sq, width) "
        "ve = Add (v, eps) sd = Sqrt (ve) w = Mul (x, row) {} y = Div (d, sd)"
    )
    proto = model(check, body.format("k = Mul (mu, row) d = Sub (w, k)"))
    assert [norm.y.name for norm in found_in(proto) if isinstance(norm, Norm)] == ["y"]
    proto = model(check, body.format("k = ReduceMean (w, width) d = Sub (w, k)"))
    assert [one for one in found_in(proto) if isinstance(one, Norm)] == []


def test_an_expand_that_enlarges_is_no_part_of_it(check: Checker) -> None:
    body = BY_CHANNEL.replace("y = Div", "n = Div") + " y = Expand (n, wide)"
    proto = model(check, body, "[2, 12, 4, 1]")
    proto.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 5
    (norm,) = found_in(proto)
    assert isinstance(norm, Norm)
    assert norm.y.name == "n"


def test_a_constant_is_no_other_value(check: Checker) -> None:
    """γ/σ where nothing says that γ fits: it is not read, and nothing else is wrong with it."""
    body = BY_CHANNEL.replace("y = Div (c, sd)", "q = Div (gamma, sd) y = Mul (c, q)")
    proto = model(check, body)
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((2, 2, 12, 4, 5), np.float32), "gamma")
    )
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    assert found_in(proto) == []


def test_strided_channels_are_no_group(check: Checker) -> None:
    body = GROUPED.replace("Reshape (x, rows)", "Reshape (x, strided)").replace("last", "mixed")
    (found,) = found_in(model(check, body))
    assert isinstance(found, LookAlike)
    assert (found.code, found.reason) == ("NF406", "it averages over axes that no normalisation has")


def test_a_group_is_normalised_over_every_position(check: Checker) -> None:
    parts = GROUPED.replace("Reshape (x, rows)", "Reshape (x, five)")
    (norm,) = found_in(model(check, parts.replace("last", "rest")))
    assert isinstance(norm, Norm)
    (found,) = found_in(model(check, parts.replace("last", "spatial")))
    assert isinstance(found, LookAlike)
    assert (found.code, found.reason) == ("NF406", "it averages over axes that no normalisation has")


def test_an_open_variance_divides_by_one_less(check: Checker) -> None:
    shape = "[N, 12, H, W]"
    (norm,) = found_in(model(check, UNBIASED, shape))
    assert isinstance(norm, Norm)
    assert norm.unbiased
    (found,) = found_in(model(check, UNBIASED.replace("Sub (k, one)", "Sub (k, two)"), shape))
    assert isinstance(found, LookAlike)
    assert (found.code, found.reason) == ("NF406", "its variance is multiplied by an open size")


def test_a_count_that_is_cut_off_is_no_count(check: Checker) -> None:
    """A third of K is ``⌊K/3⌋`` in integers, and no fixed share of K."""
    shape, whole = "[N, 12, H, W]", UNBIASED.replace("less = Sub (k, one)", "less = Div (k, three)")
    (norm,) = found_in(model(check, whole, shape))
    assert isinstance(norm, Norm)
    np.testing.assert_allclose(norm.scale, np.sqrt(1 / 3), rtol=1e-7)
    cut = whole.replace(
        "k = Cast <to=1> (rs) less = Div (k, three)", "k = Div (rs, third) less = Cast <to=1> (k)"
    )
    assert found_in(model(check, cut, shape)) == []


@pytest.mark.parametrize(
    ("body", "operator", "code"),
    [
        ("y = MeanVarianceNormalization <axes=[2, 3]> (x)", "MeanVarianceNormalization", "NF401"),
        ("y = com.microsoft.SkipGroupNorm <groups=3, activation=0> (x, g, g, z)", "SkipGroupNorm", "NF406"),
    ],
    ids=["MeanVarianceNormalization", "SkipGroupNorm"],
)
def test_operators_that_are_none_of_these(check: Checker, body: str, operator: str, code: str) -> None:
    proto = model(check, body)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(5, np.float32), "g"))
    folded = fold_model(ir.from_proto(proto), FoldOptions(target="ort-cpu"))
    assert not folded.changed
    assert [(s.site, s.code, s.nodes) for s in folded.sites] == [("y", code, (operator,))]


def test_an_operator_is_what_it_is(check: Checker) -> None:
    """LayerNormalization over several axes has a scale for each element, and no other form."""
    proto = model(check, "y = LayerNormalization <axis=2> (x, w)")
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(4, 5), "w")
    )
    assert found_in(proto) == []


class OverDeviation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(x.shape[0], 3, -1)
        deviation = rows.std(-1, keepdim=True, unbiased=False)
        return ((rows - rows.mean(-1, keepdim=True)) / (deviation + 1e-3)).reshape(x.shape)


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 13), (True, 20)])
def test_as_exporters_write_it(tmp_path: Path, dynamo: bool, opset: int) -> None:
    path = tmp_path / "model.onnx"
    with quiet():
        torch.onnx.export(
            OverDeviation(), (torch.ones(2, 12, 4, 5),), path, dynamo=dynamo, opset_version=opset
        )
    (found,) = find_norms(Workspace(ir.load(path)))
    assert isinstance(found, LookAlike)
    assert found.code == "NF401"
