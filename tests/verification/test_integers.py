"""Integers that select one row of a table, or one case among many."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from normfold.verification import verify_models
from normfold.verification.endtoend.integers import telling_integers
from normfold.verification.graph_index import GraphIndex
from tests.verification.conftest import model_of

pytest.importorskip("onnxruntime")

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((5000, 4)).astype(np.float32)
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)


def embedding(table: np.ndarray, path: str = "i = Identity(ids)") -> ir.Model:
    text = f"""{HEADER} g (int64[N, L] ids) => (float[N, L, 3] y) {{
        {path} e = Gather(table, i) y = MatMul(e, w)
    }}"""
    return model_of(text, {"table": table, "w": WEIGHT})


def changed(row: int) -> np.ndarray:
    table = TABLE.copy()
    table[row, 2] += np.float32(0.01)
    return table


@pytest.mark.parametrize("row", [0, 3, 4711, 4999])
@pytest.mark.parametrize("path", ["i = Identity(ids)", "c = Cast<to = 6>(ids) i = Cast<to = 7>(c)"])
def test_one_element_of_a_large_table(row: int, path: str) -> None:
    found = verify_models(embedding(TABLE, path), embedding(changed(row), path))
    assert found.verdict == "fail", found.messages


def test_the_same_table_passes_without_another_run() -> None:
    """A table that is scaled, with the weight behind it unscaled, is the same model."""
    model = embedding(TABLE)
    assert verify_models(model, model.clone()).verdict == "pass"
    batch = {"ids": np.zeros((2, 3), np.int64)}
    assert telling_integers(GraphIndex(model), GraphIndex(model.clone()), batch) is None
    other = embedding(TABLE * np.float32(4))
    other.graph.initializers["w"].const_value = ir.tensor(WEIGHT / np.float32(4), name="w")
    assert verify_models(model, other).verdict == "pass"


@pytest.mark.parametrize("number", [778, -1])
def test_a_number_that_an_input_is_compared_with(number: int) -> None:
    def model(special: int) -> ir.Model:
        text = f"""{HEADER} g (int64[N] ids, float[N] x) => (float[N] y) {{
            c = Equal(ids, special) f = Where(c, one, two) y = Mul(f, x)
        }}"""
        values = {"special": np.int64(special), "one": np.float32(1), "two": np.float32(2)}
        return model_of(text, values)

    assert verify_models(model(777), model(number)).verdict == "fail"
    assert verify_models(model(777), model(777)).verdict == "pass"


def test_one_hot_codes_reach_every_row() -> None:
    def model(weight: np.ndarray) -> ir.Model:
        text = f"""{HEADER} g (int64[4, 16] ids) => (float[4, 16, 4] y) {{
            o = OneHot(ids, depth, values) y = MatMul(o, w)
        }}"""
        values = np.array([0, 1], np.float32)
        return model_of(text, {"depth": np.int64(50), "values": values, "w": weight})

    wrong = TABLE[:50].copy()
    wrong[41, 0] += np.float32(0.01)
    assert verify_models(model(TABLE[:50]), model(wrong)).verdict == "fail"
    assert verify_models(model(TABLE[:50]), model(TABLE[:50])).verdict == "pass"


def test_integers_stay_within_the_smallest_table() -> None:
    text = f"""{HEADER} g (int64[2, 8] ids) => (float[2, 8, 4] y) {{
        a = Gather(large, ids) b = Gather(small, ids) y = Add(a, b)
    }}"""

    def model(large: np.ndarray) -> GraphIndex:
        return GraphIndex(model_of(text, {"large": large, "small": TABLE[:10]}))

    told = telling_integers(model(TABLE), model(changed(7)), {"ids": np.zeros((2, 8), np.int64)})
    assert told is not None
    assert told["ids"].flat[0] == 7
    assert set(told["ids"].flat) <= set(range(10))
