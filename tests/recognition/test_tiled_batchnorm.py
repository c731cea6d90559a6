"""A BatchNormalization over channels that are tiled by an open batch is one over the channels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from normfold.options import FoldOptions
from tests.checker import Checker

C = 6
TILED = (
    "n = Shape <start=0, end=1> (x) r = Reshape (x, merged) ts = Tile (s, n) tb = Tile (b, n) "
    "tm = Tile (m, n) tv = Tile (v, n) z = BatchNormalization (r, ts, tb, tm, tv) y = Reshape (z, apart)"
)
HEAD = "g (float[N, 6, 4, 4] x) => (float[N, 6, 4, 4] y)"


def constants(check: Checker, body: str) -> dict[str, np.ndarray]:
    shapes = {"merged": [1, -1, 4, 4], "crossed": [4, -1, 4], "apart": [-1, C, 4, 4], "other": [-1, 4, C, 4]}
    arrays = {**check.batchnorm(C), **{name: np.array(shape) for name, shape in shapes.items()}}
    return {name: array for name, array in arrays.items() if re.search(rf"[(, ]{name}[,)]", body)}


def test_it_is_one_over_the_channels(check: Checker) -> None:
    result = check(check.model(f"{HEAD} {{ {TILED} }}", constants(check, TILED)))
    assert result.ops == ["BatchNormalization"]
    site = result.sites["y"]
    assert (site.kind, site.action, site.nodes) == (
        "batchnorm", "merged", ("Reshape", "BatchNormalization", "Reshape"),
    )  # fmt: skip


def test_it_folds(check: Checker) -> None:
    body = TILED.replace("(x)", "(c)").replace("(x,", "(c,")
    weights = {**constants(check, TILED), **check.weights(w=(C, 3, 3, 3))}
    text = f"g (float[N, 3, 6, 6] x) => (float[N, 6, 4, 4] y) {{ c = Conv (x, w) {body} }}"
    check(check.model(text, weights)).gone("Conv")


def test_open_height(check: Checker) -> None:
    body = TILED.replace("n =", "h = Shape <start=2, end=4> (x) merged = Concat <axis=0> (one, h) n =")
    body = body.replace("y =", "apart = Concat <axis=0> (channels, h) y =")
    arrays = {**check.batchnorm(C), "one": np.array([1, -1]), "channels": np.array([-1, C])}
    text = f"g (float[N, 6, H, W] x) => (float[N, 6, H, W] y) {{ {body} }}"
    assert check(check.model(text, arrays)).ops == ["BatchNormalization"]


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("n = Shape <start=0, end=1> (x)", "n = Shape <start=2, end=3> (x)"),
        ("tv = Tile (v, n)", "d = Add (n, n) tv = Tile (v, d)"),
        ("tm = Tile (m, n)", "k = Concat <axis=0> (m, m) tm = Tile (k, n)"),
        ("Reshape (z, apart)", "Reshape (z, other)"),
        ("Reshape (x, merged)", "Reshape (x, crossed)"),
        ("r = Reshape (x, merged)", "q = Transpose <perm=[1, 0, 2, 3]> (x) r = Reshape (q, merged)"),
    ],
    ids=[
        "another size",
        "twice as often",
        "more channels",
        "another shape",
        "rows in front",
        "channels in front",
    ],
)
def test_another_tiling_is_not(check: Checker, was: str, becomes: str) -> None:
    assert was in TILED
    body = TILED.replace(was, becomes)
    head = HEAD.replace("6, 4, 4] y", "4, 6, 4] y") if "other" in body else HEAD
    if "start=2" in body:
        # A size that is open too: a static one would make the parameters constants.
        head = HEAD.replace("6, 4, 4] x", "6, H, 4] x").replace("[N, 6, 4, 4] y", "[M, 6, 4, 4] y")
    result = check.fold_only(check.model(f"{head} {{ {body} }}", constants(check, body)))
    assert not result.changed
    assert [(s.site, s.code) for s in result.sites] == [("z", "NF101")]


def test_statistics_of_the_batch_are_no_parameters(check: Checker) -> None:
    """What stays is as it was, although another site changes the model."""
    body = TILED.replace("BatchNormalization (", "BatchNormalization <training_mode=1> (")
    weights = {**constants(check, TILED), **check.weights(w=(C, C, 1, 1), k=(C, 1, 1))}
    text = f"g (float[N, 6, 4, 4] x) => (float[N, 6, 4, 4] u) {{ {body} c = Conv (y, w) u = Mul (c, k) }}"
    result = check.fold_only(check.model(text, weights))
    assert result.changed
    operators = [node.op_type for node in result.model.graph]
    assert operators == ["Shape", "Reshape", *["Tile"] * 4, "BatchNormalization", "Reshape", "Conv"]


def test_a_tiled_result_that_is_read_elsewhere_stays(check: Checker) -> None:
    body = f"{TILED} e = Shape (z)"
    text = f"g (float[N, 6, 4, 4] x) => (float[N, 6, 4, 4] y, int64[4] e) {{ {body} }}"
    assert not check(check.model(text, constants(check, body))).folded.changed


@pytest.mark.parametrize("name", ["r", "z", "y"])
def test_a_kept_value_stays(check: Checker, name: str) -> None:
    model = check.model(f"{HEAD} {{ {TILED} }}", constants(check, TILED))
    assert not check(model, FoldOptions(keep=frozenset({name}))).folded.changed
