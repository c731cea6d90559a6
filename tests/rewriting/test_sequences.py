"""Parts of a tensor that are taken out of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from normfold.options import FoldOptions

SPLIT = "q = SplitToSequence <axis = 1> (c, sizes)"
FIRST = "a = SequenceAt (q, i) n = BatchNormalization (a, s, b, m, v)"


def net(check: Any, body: str, *, width: str = "5", **integers: Any) -> Any:
    """A Conv of 6 channels to c, then ``body`` to y; statistics are of 2 channels."""
    constants = check.weights(w=(6, 3, 1, 1)) | check.batchnorm(2)
    constants |= {name: np.array(value, np.int64) for name, value in integers.items()}
    return check.model(
        f"g (float[2, 3, 4, {width}] x, int64 at) => (float[A, B, C, D] y) {{ c = Conv (x, w) {body} }}",
        constants,
    )


def operators(check: Any, model: Any, **options: Any) -> set[str]:
    return {node.op_type for node in check.fold_only(model, FoldOptions(**options)).model.graph}


@pytest.mark.parametrize(
    ("split", "sizes", "number", "other"),
    [
        (SPLIT, [2, 4], 0, 1),
        (SPLIT.replace("axis = 1", "axis = -3"), [1, 2, 3], 1, -1),
        (SPLIT, 2, 2, 0),
        (SPLIT, 4, 1, 0),
        (SPLIT.replace("axis = 1", "axis = 1, keepdims = 0"), [2, 4], -2, 1),
    ],
)
def test_parts_of_given_sizes(check: Any, split: str, sizes: Any, number: int, other: int) -> None:
    body = f"{split} {FIRST} d = SequenceAt (q, j) y = Concat <axis = 1> (n, d)"
    check(net(check, body, sizes=sizes, i=number, j=other)).gone("Conv", "Split", "Concat")


def test_slices_without_their_axis(check: Any) -> None:
    body = """r = Reshape (c, shape) q = SplitToSequence <axis = 1, keepdims = 0> (r)
        a = SequenceAt (q, i) d = SequenceAt (q, j) n = BatchNormalization (a, s, b, m, v) y = Mul (n, d)"""
    model = net(check, body, shape=[2, 3, 2, 4, 5], i=0, j=-1)
    check(model).gone("Conv", "Reshape", "Gather", "Gather", "Mul")


@pytest.mark.parametrize(
    "body",
    [
        f"{SPLIT} {FIRST} d = SequenceAt (q, at) y = Concat <axis = 1> (n, d)",
        f"{SPLIT} {FIRST} d = SequenceAt (q, i) y = Mul (n, d)",
        f"{SPLIT} {FIRST} d = ConcatFromSequence <axis = 1> (q) y = Concat <axis = 1> (n, d)",
        "q = SplitToSequence <axis = 1> (c) d = SequenceAt (q, i) a = Concat <axis = 1> (d, d)"
        " n = BatchNormalization (a, s, b, m, v) y = Relu (n)",
    ],
    ids=["a number that is not known", "a part twice", "all parts", "slices that keep their axis"],
)
def test_other_sequences_stay(check: Any, body: str) -> None:
    assert "SplitToSequence" in operators(check, net(check, body, sizes=[2, 4], i=0))


def test_an_open_axis_is_not_cut_into_equal_parts(check: Any) -> None:
    body = """r = Transpose <perm = [0, 3, 1, 2]> (c) q = SplitToSequence <axis = 1> (r, sizes)
        a = SequenceAt (q, i) n = BatchNormalization (a, s, b, m, v) y = Relu (n)"""
    assert "SplitToSequence" in operators(check, net(check, body, width="W", sizes=2, i=0))


@pytest.mark.parametrize("name", ["q", "a"])
def test_what_was_asked_to_stay(check: Any, name: str) -> None:
    model = net(check, f"{SPLIT} {FIRST} y = Relu (n)", sizes=[2, 4], i=0)
    assert "SplitToSequence" in operators(check, model, keep=frozenset({name}))
    assert "SplitToSequence" not in operators(check, model)


@pytest.mark.parametrize("sizes", [[2, 3], [2, -1], [2, 4, 1]])
def test_sizes_that_do_not_add_up_stay(check: Any, sizes: list[int]) -> None:
    """The checker lets it pass, and no runtime takes it."""
    model = net(check, f"{SPLIT} {FIRST} y = Relu (n)", sizes=sizes, i=0)
    assert "SplitToSequence" in operators(check, model)
