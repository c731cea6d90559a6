"""For each NF1xx code a model that folds, and the one change that makes it be refused for that reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest

from normfold.codes import CODES
from normfold.options import FoldOptions


def constants() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal((6, 3, 3, 3)),
        "u": rng.standard_normal((6, 6, 3, 3)),
        "s": rng.uniform(0.5, 2, 6),
        "b": rng.standard_normal(6),
        "m": rng.standard_normal(6),
        "v": rng.uniform(0.5, 2, 6),
        "k": rng.uniform(0.5, 2, (6, 1, 1)),
    }


SAME = "float[N, 3, 8, 8] x"
OUT = "float[N, 6, A, B] y"
CONV_BN = f"({SAME}) => ({OUT}) {{ c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n) }}"


@dataclass(frozen=True)
class Case:
    """``good`` folds; ``bad`` does not, for the reason named by the table's key.

    Attributes:
        good, bad: ONNX text, without the graph's name.
        edit: changes the constants of the bad model in place.
        options: of the bad fold.
        overridable: initializers of the bad model that are listed as inputs.
        site: the site that is refused, where it is not the only one.
    """

    bad: str = CONV_BN
    good: str = CONV_BN
    edit: Callable[[dict[str, np.ndarray]], None] = lambda values: None
    options: FoldOptions = field(default_factory=FoldOptions)
    overridable: tuple[str, ...] = ()
    site: str = "n"


def put(name: str, value: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def edit(values: dict[str, np.ndarray]) -> None:
        values[name] = np.asarray(value, dtype=np.float64)

    return edit


def put_at(name: str, index: int, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def edit(values: dict[str, np.ndarray]) -> None:
        values[name][index] = value

    return edit


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


MUL = replaced(CONV_BN, ("BatchNormalization (c, s, b, m, v)", "Mul (c, k)"))
FORWARD = (
    "(float[N, 6, 8, 8] x) => (float[N, 6, A, B] y) "
    "{ r = Sigmoid (x) n = BatchNormalization (r, s, b, m, v) y = Conv (n, u) }"
)
FLOAT4 = "float[N, 6, A, B]"
NORM = "BatchNormalization ({}, s, b, m, v)"
TWO = f"({SAME}) => ({OUT}, {OUT.replace(' y', ' z')}) "


def capture(value: str) -> str:
    then, otherwise = f"a = Sigmoid ({value})", f"d = Tanh ({value})"
    return (
        f"If (p) <then_branch = t () => ({FLOAT4} a) {{ {then} }},"
        f" else_branch = e () => ({FLOAT4} d) {{ {otherwise} }}>"
    )


def captured(value: str) -> str:
    return (
        f"({SAME}, bool p) => ({OUT}, {OUT.replace(' y', ' z')}) {{ c = Conv (x, w)"
        f" n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n) z = {capture(value)} }}"
    )


def inside(producer: str) -> str:
    outer, inner = ("c = Conv (x, w)", "") if producer == "outside" else ("", "c = Conv (x, w)")
    return (
        f"({SAME}, bool p) => ({OUT}) {{ {outer} y = If (p) <"
        f"then_branch = t () => ({FLOAT4} a) {{ {inner} n = {NORM.format('c')} a = Sigmoid (n) }},"
        f" else_branch = e () => ({FLOAT4} d) {{ g = Conv (x, w) d = Sigmoid (g) }}> }}"
    )


def far(nodes: int) -> str:
    steps = " ".join(f"t{i + 1} = Relu (t{i})" for i in range(nodes))
    return f"({SAME}) => ({OUT}) {{ t0 = Conv (x, w) {steps} n = Mul (t{nodes}, k) y = Sigmoid (n) }}"


CASES: dict[str, Case] = {
    "NF101": Case(
        replaced(
            CONV_BN, (f"({SAME})", f"({SAME}, float[6] r)"), ("n = ", "g = Abs (r) n = "), ("m, v)", "m, g)")
        )
    ),
    "NF102": Case(overridable=("m",)),
    "NF103": Case(
        f"{TWO} {{ c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n) z = Sigmoid (c) }}",
        f"{TWO} {{ c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n) z = Sigmoid (n) }}",
    ),
    "NF104": Case(captured("c"), captured("n")),
    "NF105": Case(
        f"{TWO.replace(' z', ' c')} {{ c = Conv (x, w) n = {NORM.format('c')} y = Sigmoid (n) }}",
        f"{TWO.replace(' z', ' n')} {{ c = Conv (x, w) n = {NORM.format('c')} y = Sigmoid (n) }}",
    ),
    "NF106": Case(
        f"(float[N, 6, 8, 8] x) => (float[N, 6, 8, 8] y) {{ n = {NORM.format('x')} y = Sigmoid (n) }}",
        f"(float[N, 6, 8, 8] x) => (float[N, 6, A, B] y) {{ n = {NORM.format('x')} y = Conv (n, u) }}",
    ),
    "NF107": Case(
        replaced(CONV_BN, ("n = Batch", "n, rm, rv = Batch"), ("zation (", "zation <training_mode = 1> ("))
    ),
    "NF108": Case(edit=put_at("b", 2, np.inf)),
    "NF109": Case(edit=put_at("v", 2, -0.25)),
    "NF110": Case(MUL, MUL, edit=put("k", np.linspace(1, 2, 6))),
    "NF111": Case(edit=put_at("s", 1, 3e38)),
    "NF113": Case(
        replaced(MUL, ("(float[N, 6, A, B] y)", "(float[A, B, C, D] y)")),
        MUL,
        edit=put("k", np.arange(1.0, 13.0).reshape(2, 6, 1, 1)),
    ),
    "NF112": Case(
        replaced(CONV_BN, ("n = Batch", "h = custom.Unknown (c) n = Batch"), ("zation (c,", "zation (h,"))
    ),
    "NF114": Case(
        replaced(CONV_BN, ("n = Batch", "h = Sigmoid (c) n = Batch"), ("zation (c,", "zation (h,"))
    ),
    "NF115": Case(
        replaced(
            CONV_BN,
            (f"({SAME})", f"({SAME}, float[6, 3, 3, 3] r)"),
            ("c = ", "g = Abs (r) c = "),
            ("x, w", "x, g"),
        )
    ),
    "NF116": Case(
        replaced(FORWARD, ("Conv (n, u)", "Conv <pads = [1, 1, 1, 1]> (n, u)")).replace("8, 8]", "H, W]"),
        FORWARD,
    ),
    "NF117": Case(
        replaced(MUL, ("n = Mul (c, k)", "h = MaxPool <kernel_shape = [2, 2]> (c) n = Mul (h, k)")),
        replaced(MUL, ("n = Mul (c, k)", "h = MaxPool <kernel_shape = [2, 2]> (c) n = Mul (h, k)")),
        edit=put_at("k", 2, -1.0),
    ),
    "NF120": Case(options=FoldOptions(keep=frozenset({"n"}))),
    "NF123": Case(far(300), far(30)),
    "NF125": Case(options=FoldOptions(skip=frozenset({"conv"}))),
    "NF126": Case(inside("outside"), inside("inside")),
    "NF129": Case(options=FoldOptions(spare=frozenset({"n"}))),
}

# Said of a site only together with something else, or where a test of its own says it better.
ELSEWHERE = {
    "NF100": "tests/cli/test_ci.py",
    "NF118": "tests/planning/test_routes.py",
    "NF119": "tests/planning/test_walk.py",
    "NF121": "tests/folding/test_folding.py",
    "NF122": "tests/planning/test_walk.py",
    "NF124": "tests/planning/test_walk.py",
    "NF127": "tests/planning/test_routes.py",
    "NF128": "tests/recognition/test_idioms.py",
}


def build(text: str, values: dict[str, np.ndarray], overridable: tuple[str, ...] = ()) -> onnx.ModelProto:
    header = '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> g '
    model = onnx.parser.parse_model(header + text)
    read = {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    for name in sorted(read & values.keys()):
        array = values[name]
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        tensor = onnx.numpy_helper.from_array(array, name)
        model.graph.initializer.append(tensor)
        if name in overridable:
            info = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            model.graph.input.append(info)
    return model


def graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, *(g for body in inner for g in graphs(body))]


@pytest.mark.parametrize("code", CASES)
def test_the_precondition_holds_and_it_folds(check: Any, code: str) -> None:
    case = CASES[code]
    folded = check.fold_only(build(case.good, constants()))
    site = next(s for s in folded.sites if s.site == case.site)
    assert site.action == "folded", (site.action, site.code, site.reason)


@pytest.mark.parametrize("code", CASES)
def test_one_precondition_is_broken_and_it_is_refused(check: Any, code: str) -> None:
    case = CASES[code]
    values = constants()
    case.edit(values)
    folded = check.fold_only(build(case.bad, values, case.overridable), case.options)
    site = next(s for s in folded.sites if s.site == case.site)
    assert (site.action, site.code) == ("kept", code), site.reason
    assert site.reason and "\n" not in site.reason


def test_every_fold_code_has_a_test() -> None:
    wanted = {code for code in CODES if code.startswith("NF1")}
    assert wanted == CASES.keys() | ELSEWHERE.keys()
    assert not CASES.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("code", ELSEWHERE)
def test_what_is_tested_elsewhere_is_tested_there(code: str, pytestconfig: pytest.Config) -> None:
    assert code in (pytestconfig.rootpath / ELSEWHERE[code]).read_text("utf-8")
