"""The catalogue keeps up with the code: every mutant finds the text that it breaks."""

from __future__ import annotations

import pytest

from tests.mutation.catalogue import MUTANTS
from tests.mutation.mutant import Mutant
from tests.mutation.survey import PACKAGE


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_text_is_there_and_what_comes_of_it_is_python(mutant: Mutant) -> None:
    mutant.source(PACKAGE)


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
