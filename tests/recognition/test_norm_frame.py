"""What the axes of a reshaped value run over."""

from __future__ import annotations

import pytest

from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import NotRead, base_view, reshaped, uncut

BATCH, CHANNELS, HEIGHT, WIDTH = Size.symbol("n"), Size(12), Size(4), Size(5)


def test_pieces_are_dealt_from_the_back_where_the_front_has_another_name() -> None:
    view = base_view([BATCH, CHANNELS, HEIGHT, WIDTH])
    rows, columns = reshaped(view, [Size.symbol("rows"), Size(20)])
    assert uncut(rows) == uncut((*view[0], *view[1]))
    assert uncut(columns) == uncut((*view[2], *view[3]))


def test_a_piece_is_cut_with_its_outer_part_in_front() -> None:
    view = base_view([BATCH, CHANNELS, HEIGHT])
    _, groups, rest = reshaped(view, [BATCH, Size(3), Size(16)])
    outer, inner = uncut(view[1])
    assert (groups, rest) == ((outer,), (inner, *view[2]))
    assert (outer.size, inner.size) == (Size(3), Size(4))


def test_sizes_that_do_not_provably_meet() -> None:
    with pytest.raises(NotRead):
        reshaped(base_view([BATCH, CHANNELS]), [Size.symbol("a"), Size.symbol("b")])
