"""The float64 proof accepts right folds and rejects each kind of wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from normfold.evaluation import DeadlineExceeded
from normfold.reporting.report import Site
from normfold.verification import VerifyOptions, prove_fold
from normfold.verification.proof.region_proof import Proof, RegionProver
from normfold.verification.proof.regions import Region
from tests.verification.conftest import ConvBatchNorm, Exact, Pair, model_of, no_refold

Edit = Callable[[np.ndarray, np.ndarray], None]


def prove(
    pair: Pair,
    refold: Callable[[ir.Model], tuple[ir.Model, Exact]] = no_refold,
    options: VerifyOptions | None = None,
) -> dict[str, object]:
    options = options or VerifyOptions()
    return prove_fold(pair.original, pair.folded, pair.exact, pair.sites, refold, options)


def test_right_fold_is_proven() -> None:
    result = prove(ConvBatchNorm().pair())
    assert (result["regions"], result["proven"]) == (1, 1)
    assert result["failed"] == [] and result["unproven"] == []
    assert 0 < result["max_ratio_to_bound"] < 0.1  # type: ignore[operator]


@pytest.mark.parametrize("size", ["2, {inputs}, 224, 224", "N, {inputs}, H, W", "N, {inputs}, 7, W"])
def test_cost_does_not_depend_on_image_size(size: str) -> None:
    result = prove(ConvBatchNorm(channels=32, inputs=32, sizes=size).pair())
    assert result["proven"] == 1
    assert result["seconds"] < 2  # type: ignore[operator]


def swap(weight: np.ndarray, bias: np.ndarray) -> None:
    weight[[1, 2]] = weight[[2, 1]]


def drop_bias(weight: np.ndarray, bias: np.ndarray) -> None:
    bias[:] = 0


def flip_one_sign(weight: np.ndarray, bias: np.ndarray) -> None:
    weight[3] *= -1


def one_nan(weight: np.ndarray, bias: np.ndarray) -> None:
    bias[2] = np.nan


def round_to_half(weight: np.ndarray, bias: np.ndarray) -> None:
    weight[:] = weight.astype(np.float16)


@pytest.mark.parametrize("edit", [swap, drop_bias, flip_one_sign, one_nan, round_to_half])
def test_planted_error_in_the_weights_fails(edit: Edit) -> None:
    result = prove(ConvBatchNorm().pair(edit))
    assert result["proven"] == 0
    (failure,) = result["failed"]  # type: ignore[misc]
    assert failure["value"] == "y" and failure["sites"] == ["y"]


@pytest.mark.parametrize("epsilon", [1e-3, 1.01e-5])
def test_wrong_epsilon_fails(epsilon: float) -> None:
    assert prove(ConvBatchNorm().pair(epsilon=epsilon))["failed"]


def test_default_epsilon_is_a_float32() -> None:
    """A fold that takes 1e-5 for a double is off by 4e-12 of the scale, and is rejected."""
    case = ConvBatchNorm()
    case.variance[:] = 1e-7
    weight, _ = case.folded_constants()
    exact = weight * np.sqrt(case.variance[0].astype(np.float64) + np.float64(np.float32(1e-5)))
    wrong = exact / np.sqrt(case.variance[0].astype(np.float64) + 1e-5)
    pair = case.pair()
    pair.exact["w_folded"] = lambda: wrong
    assert prove(pair)["failed"]


def test_wrong_region_is_named_among_right_ones() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {{
        {first}
        r = Relu(a)
        {second}
        y = Relu(b)
    }}"""
    one, two = ConvBatchNorm(4, kernel=1, seed=1), ConvBatchNorm(4, kernel=1, seed=2)
    arrays = {}
    for case, label in ((one, "1"), (two, "2")):
        for name in ("weight", "gamma", "beta", "mean", "variance"):
            arrays[name + label] = getattr(case, name)
    norm = "{out} = BatchNormalization<epsilon = 1e-5>(c{n}, gamma{n}, beta{n}, mean{n}, variance{n})"
    original = model_of(
        text.format(
            first="c1 = Conv(x, weight1)\n" + norm.format(out="a", n=1),
            second="c2 = Conv(r, weight2)\n" + norm.format(out="b", n=2),
        ),
        arrays,
    )
    exact = {}
    for case, label in ((one, "1"), (two, "2")):
        weight, bias = case.folded_constants(epsilon=1e-5 if label == "1" else 2e-5)
        exact["w" + label] = weight
        exact["b" + label] = bias
    folded = model_of(
        text.format(first="a = Conv(x, w1, b1)", second="b = Conv(r, w2, b2)"),
        {name: array.astype(np.float32) for name, array in exact.items()},
    )
    sites = [Site(name, "batchnorm", "folded", nodes=("BatchNormalization",)) for name in ("a", "b")]
    makers = {name: (lambda array=array: array) for name, array in exact.items()}
    result = prove(Pair(original, folded, makers, sites))
    assert (result["regions"], result["proven"]) == (2, 1)
    assert [failure["region"] for failure in result["failed"]] == ["b"]  # type: ignore[attr-defined]


def test_zero_padded_border_fails() -> None:
    """BN in front of a padded Conv: the shift is not constant at the border."""
    case = ConvBatchNorm()
    scale = case.gamma[:4].astype(np.float64) / np.sqrt(case.variance[:4] + np.float64(np.float32(1e-5)))
    shift = case.beta[:4] - case.mean[:4] * scale
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 9, 9] x) => (float[1, 6, N, M] y) {{
        {body}
    }}"""
    weight = case.weight.astype(np.float64) * scale[None, :, None, None]
    bias = (case.weight.astype(np.float64) * shift[None, :, None, None]).sum((1, 2, 3))
    stats = {name: getattr(case, name)[:4] for name in ("gamma", "beta", "mean", "variance")}
    exact = {"w2": lambda: weight, "b2": lambda: bias}
    for pads, failures in (("0, 0, 0, 0", 0), ("1, 1, 1, 1", 1)):
        before = model_of(
            text.format(
                body="b = BatchNormalization<epsilon = 1e-5>(x, gamma, beta, mean, variance)\n"
                f"y = Conv<pads = [{pads}]>(b, w)"
            ),
            {**stats, "w": case.weight},
        )
        after = model_of(
            text.format(body=f"y = Conv<pads = [{pads}]>(x, w2, b2)"),
            {"w2": weight.astype(np.float32), "b2": bias.astype(np.float32)},
        )
        site = Site("b", "batchnorm", "folded", nodes=("BatchNormalization",))
        result = prove(Pair(before, after, exact, [site]))
        assert len(result["failed"]) == failures  # type: ignore[arg-type]
        assert result["proven"] == 1 - failures


def test_training_mode_is_not_inference() -> None:
    case = ConvBatchNorm()
    pair = case.pair()
    for node in pair.original.graph:
        if node.op_type == "BatchNormalization":
            node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
            node.resize_outputs(3)
            node.outputs[1].name, node.outputs[2].name = "running_mean", "running_variance"
    assert prove(pair)["failed"]


def test_renamed_output_fails() -> None:
    pair = ConvBatchNorm().pair()
    pair.folded.graph.outputs[0].name = "z"
    assert any(f["detail"] == "output is missing" for f in prove(pair)["failed"])  # type: ignore[attr-defined]


def test_value_that_changed_and_kept_its_name_fails() -> None:
    """``c`` means the convolution before and the normalised value after: names are the contract."""
    case = ConvBatchNorm(tail="Relu")
    weight, bias = case.folded_constants()
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 9, 9] x) => (float[N, C, H, W] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, w_folded, b_folded)
        y = Relu(c)
    }"""
    folded = model_of(text, {"w_folded": weight.astype("f"), "b_folded": bias.astype("f")})
    pair = case.pair()
    pair.folded = folded
    assert "c" in [failure["value"] for failure in prove(pair)["failed"]]  # type: ignore[attr-defined]


class Refolder:
    """Folds ``Conv → BatchNormalization`` of any constants, rightly or with a wrong epsilon."""

    def __init__(self, epsilon: float | None = None) -> None:
        self.epsilon, self.calls = epsilon, 0

    def __call__(self, model: ir.Model) -> tuple[ir.Model, Exact]:
        self.calls += 1
        case = ConvBatchNorm()
        held = {name: value.const_value for name, value in model.graph.initializers.items()}
        case.weight = held["w"].numpy()
        for name in ("gamma", "beta", "mean", "variance"):
            setattr(case, name, held[name].numpy())
        pair = case.pair(**({"epsilon": self.epsilon} if self.epsilon else {}))
        return pair.folded, pair.exact


def hidden() -> Pair:
    """A fold whose zero gamma hides everything, a wrong weight included."""
    case = ConvBatchNorm()
    case.gamma[:] = 0
    return case.pair(epsilon=1e-3)


def test_site_that_shows_nothing_is_unproven() -> None:
    result = prove(hidden())
    assert result["unproven"] == ["y"] and result["proven"] == 0


def test_site_that_shows_nothing_is_folded_again_with_random_weights() -> None:
    refold = Refolder()
    result = prove(hidden(), refold)
    assert result["proven"] == 1 and refold.calls == 1


def test_random_weights_uncover_a_wrong_rule() -> None:
    result = prove(hidden(), Refolder(epsilon=1e-3))
    assert result["proven"] == 0
    assert "random constants" in result["failed"][0]["detail"]  # type: ignore[index]


def test_unread_statistics_hide_nothing_behind_a_dead_relu() -> None:
    """The region ends in front of the Relu, whose input keeps its name."""
    case = ConvBatchNorm(tail="Relu")
    case.beta[:] = -1e3
    assert prove(case.pair(epsilon=1e-3))["failed"]


HANDWRITTEN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4, 6, 6] x) => (float[N, 6, K, L] y) {
    c = Conv(x, w)
    d = Sub(c, mean)
    v = Add(variance, eps)
    s = Sqrt(v)
    n = Div(d, s)
    m = Mul(n, gamma)
    y = Add(m, beta)
}"""


@pytest.mark.parametrize(("epsilon", "failures"), [(1e-5, 0), (1e-3, 1)])
def test_handwritten_normalisation(epsilon: float, failures: int) -> None:
    case = ConvBatchNorm()
    stats = {name: getattr(case, name).reshape(1, -1, 1, 1) for name in ("gamma", "beta", "mean", "variance")}
    original = model_of(HANDWRITTEN, {**stats, "w": case.weight, "eps": np.float32(1e-5)})
    weight, bias = case.folded_constants(epsilon=epsilon)
    folded = model_of(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4, 6, 6] x) => (float[N, 6, K, L] y) { y = Conv(x, w2, b2) }""",
        {"w2": weight.astype("f"), "b2": bias.astype("f")},
    )
    site = Site("y", "affine", "folded", nodes=("Sub", "Add", "Sqrt", "Div", "Mul", "Add"))
    result = prove(Pair(original, folded, {"w2": lambda: weight, "b2": lambda: bias}, [site]))
    assert len(result["failed"]) == failures  # type: ignore[arg-type]
    assert result["proven"] == 1 - failures


BRANCH = """<ir_version: 8, opset_import: ["" : 17]>
g (bool p, float[1, 4, 6, 6] x) => (float[N, C, H, W] y) {{
    y = If(p) <
        then_branch = t () => (float[N, C, H, W] u) {{ {then} }},
        else_branch = e () => (float[N, C, H, W] z) {{ z = Neg(x) }}
    >
}}"""


@pytest.mark.parametrize(("epsilon", "failures"), [(1e-5, 0), (1e-3, 1)])
def test_region_in_an_untaken_branch(epsilon: float, failures: int) -> None:
    case = ConvBatchNorm(4, kernel=1)
    names = ("gamma", "beta", "mean", "variance")
    original = model_of(
        BRANCH.format(
            then="c = Conv(x, w)\nu = BatchNormalization<epsilon = 1e-5>(c, gamma, beta, mean, variance)"
        ),
        {"w": case.weight, **{name: getattr(case, name) for name in names}},
    )
    weight, bias = case.folded_constants(epsilon=epsilon)
    folded = model_of(
        BRANCH.format(then="u = Conv(x, w2, b2)"), {"w2": weight.astype("f"), "b2": bias.astype("f")}
    )
    site = Site("u", "batchnorm", "folded", nodes=("BatchNormalization",))
    result = prove(Pair(original, folded, {"w2": lambda: weight, "b2": lambda: bias}, [site]))
    assert (result["regions"], len(result["failed"])) == (1, failures)  # type: ignore[arg-type]
    assert result["proven"] == 1 - failures


def test_common_subexpression_is_found_equal_by_widening() -> None:
    """The fold reads one of two equal values; only a region that holds both producers can tell."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3] x) => (float[2, 3] y) {{
        a = Exp(x)
        {second}
        y = Add(a, {operand})
    }}"""
    original = model_of(text.format(second="b = Exp(x)", operand="b"), {})
    folded = model_of(text.format(second="", operand="a"), {})
    assert prove(Pair(original, folded))["failed"] == []


def test_random_operator_is_not_proven() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3] x) => (float[2, 3] y) {{
        r = RandomNormalLike<scale = {scale}>(x)
        y = Add(x, r)
    }}"""
    original, folded = (model_of(text.format(scale=scale), {}) for scale in ("2.0", "3.0"))
    result = prove(Pair(original, folded))
    assert result["unproven"] == ["r"] and result["uncovered"] == ["r"]


def test_site_without_a_difference_is_unproven() -> None:
    pair = ConvBatchNorm().pair()
    pair.folded = pair.original.clone()
    pair.exact = {}
    assert prove(pair)["reasons"] == {"y": "the models do not differ there"}


def test_kept_sites_are_not_counted() -> None:
    pair = ConvBatchNorm().pair()
    pair.sites.append(Site("elsewhere", "batchnorm", "kept", code="NF101"))
    result = prove(pair)
    assert (result["sites"], result["proven"]) == (1, 1)


def test_same_seed_gives_the_same_numbers() -> None:
    first, second = prove(ConvBatchNorm().pair()), prove(ConvBatchNorm().pair())
    assert first["max_error"] == second["max_error"]


def test_constant_read_by_several_regions_is_exercised_where_its_value_counts() -> None:
    """A standardised weight is read by a Conv and by a Shape; only the Conv shows an error in it."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 6, 6] x) => (float[1, 6, N, M] y, float[A, B, C, D] z) {{
        {weight}
        s = Shape(standard)
        e = Expand(x, s0)
        z = ConstantOfShape(s)
        y = Conv(e, standard)
    }}"""
    case = ConvBatchNorm(kernel=1)
    rows = "standard = LayerNormalization<axis = 1, epsilon = 1e-5>(w, ones)"
    ones = np.ones((4, 1, 1), np.float32)
    shape = {"s0": np.array([1, 4, 6, 6])}
    original = model_of(text.format(weight=rows), {"w": case.weight, "ones": ones, **shape})
    weight = case.weight.astype(float)
    centred = weight - weight.mean((1, 2, 3), keepdims=True)
    scale = np.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + np.float64(np.float32(1e-5)))
    exact = centred / scale
    folded = model_of(text.format(weight=""), {"standard": exact.astype("f"), **shape})
    site = Site("standard", "layernorm", "folded", nodes=("LayerNormalization",))
    result = prove(Pair(original, folded, {"standard": lambda: exact}, [site]))
    assert result["regions"] == 2 and result["proven"] == 1 and result["failed"] == []


def test_dead_shift_is_proven_although_no_error_in_it_can_show() -> None:
    """A shift along Softmax's axis; no value of it matters, whatever the weights around it."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 5] x) => (float[2, 5] y) {{ {body} }}"""
    original = model_of(text.format(body="a = Add(x, shift) y = Softmax(a)"), {"shift": np.float32(3)})
    folded = model_of(text.format(body="y = Softmax(x)"), {})
    pair = Pair(original, folded, {}, [Site("a", "affine", "folded", nodes=("Add",))])
    assert prove(pair, lambda model: (folded, {}))["proven"] == 1
    assert prove(pair)["unproven"] == ["a"]


@pytest.mark.parametrize(("further", "proven"), [(0, ["a"]), (2, [])])
def test_a_value_without_elements_has_nothing_that_could_be_wrong(further: int, proven: list[str]) -> None:
    """The mask of classes that there are none of; with two of them, what it is multiplied by matters."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 5] x) => (float[N, C] y) {{
        s = Shape (x) n = Slice (s, zero, one) t = Concat <axis = 0> (n, more) mask = ConstantOfShape (t)
        {body} }}"""
    more = {"zero": np.array([0]), "one": np.array([1]), "more": np.array([further])}
    body = "a = Add (mask, low) y = Concat <axis = 1> (x, a)"
    original = model_of(text.format(body=body), more | {"low": np.float32(-1e9)})
    folded = model_of(text.format(body="y = Concat <axis = 1> (x, mask)"), more)
    result = prove(Pair(original, folded, {}, [Site("a", "affine", "folded", nodes=("Add",))]))
    assert result["proven"] == len(proven)
    assert bool(result["failed"]) == (not proven)


def chain(length: int) -> Pair:
    """Folds of ``length`` convolutions one behind the other, each a region of its own."""
    original, folded, arrays, exact, sites = [], [], {}, {}, []
    last = "x"
    for number in range(length):
        case = ConvBatchNorm(4, kernel=1, seed=number)
        names = {name: f"{name}{number}" for name in ("gamma", "beta", "mean", "variance")}
        arrays |= {f"w{number}": case.weight}
        arrays |= {label: getattr(case, name) for name, label in names.items()}
        weight, bias = case.folded_constants()
        exact |= {f"v{number}": weight, f"b{number}": bias}
        original.append(
            f"c{number} = Conv({last}, w{number}) "
            f"y{number} = BatchNormalization<epsilon = 1e-5>(c{number}, {', '.join(names.values())})"
        )
        folded.append(f"y{number} = Conv({last}, v{number}, b{number})")
        last = f"y{number}"
        sites.append(Site(last, "batchnorm", "folded", nodes=("BatchNormalization",)))
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] {last}) {{ {body} }}"""
    before, after = (text.format(last=last, body=" ".join(body)) for body in (original, folded))
    stored = {name: array.astype(np.float32) for name, array in exact.items()}
    makers = {name: (lambda array=array: array) for name, array in exact.items()}
    return Pair(model_of(before, arrays), model_of(after, stored), makers, sites)


def test_what_a_time_limit_leaves_over_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = chain(4)
    assert prove(pair)["proven"] == 4
    real = RegionProver.prove

    def late(self: RegionProver, region: Region, number: int) -> Proof:
        if number == 2:
            raise DeadlineExceeded
        return real(self, region, number)

    monkeypatch.setattr(RegionProver, "prove", late)
    result = prove(pair)
    assert result["proven"] == 2 and result["failed"] == []
    assert result["out_of_time"] == result["unproven"] == ["y2", "y3"]


def test_time_limit_ends_the_proof() -> None:
    limit = VerifyOptions(proof_seconds=1e-9)
    result = prove(chain(4), options=limit)
    assert result["proven"] == 0 and result["out_of_time"] == ["y0", "y1", "y2", "y3"]
    assert prove(chain(4), options=replace(limit, thorough=True))["proven"] == 4


def test_other_families_are_tried_where_the_usual_ones_say_nothing() -> None:
    """Atanh is finite between -1 and 1 only."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4, 50] x) => (float[4, 50] y) {{ {body} y = Atanh({last}) }}"""
    original = model_of(text.format(body="a = Neg(x) b = Neg(a)", last="b"), {})
    for body, failures in (("c = Identity(x)", 0), ("c = Neg(x)", 1)):
        result = prove(Pair(original, model_of(text.format(body=body, last="c"), {})))
        assert len(result["failed"]) == failures  # type: ignore[arg-type]
        assert result["unproven"] == []


@pytest.mark.parametrize(("error", "failures"), [(0.0, 0), (1e-6, 1)])
def test_a_constant_channel_says_nothing_where_no_epsilon_covers_rounding(
    error: float, failures: int
) -> None:
    """An impulse leaves the other channels what their bias is, so their variance is rounding, and another one
    after the fold. Noise on inputs that are zero does not tell; on other inputs an error still shows."""
    rng = np.random.default_rng(1)
    weight, bias, scale, shift = rng.uniform(0.5, 1.5, (4, 4)).astype(np.float32)
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 5, 6] x) => (float[1, 4, 5, 6] y) {{
        {body} y = MeanVarianceNormalization <axes = [0, 2, 3]> ({last}) }}"""
    stored = {"w": weight.reshape(4, 1, 1, 1), "b": bias}
    affine = {"s": scale.reshape(4, 1, 1), "q": shift.reshape(4, 1, 1)}
    conv = "Conv <group = 4> (x, w, b)"
    original = model_of(
        text.format(body=f"c = {conv} l = LeakyRelu (c) m = Mul (l, s) t = Add (m, q)", last="t"),
        stored | affine,
    )
    folded = model_of(text.format(body=f"d = {conv} e = LeakyRelu (d)", last="e"), stored)
    exact = {
        "w": lambda: stored["w"].astype(np.float64) * scale.reshape(4, 1, 1, 1),
        "b": lambda: bias.astype(np.float64) * scale * (1 + error),
    }
    result = prove(Pair(original, folded, exact, [Site("t", "affine", "folded", nodes=("Mul", "Add"))]))
    assert len(result["failed"]) == failures  # type: ignore[arg-type]
