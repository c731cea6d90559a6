"""Every reason code says what it is, why, and what to do; no code is raised that is not in the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import normfold
from normfold.codes import CODES

PACKAGE = Path(normfold.__file__).parent


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_code_is_complete(code: normfold.codes.Code) -> None:
    assert re.fullmatch(r"NF[1-49]\d\d", code.id)
    assert code.title and not code.title.endswith(".")
    for text in (code.what, code.why, code.unblock):
        assert text[0].isupper() or text.startswith(("f(", "max(", "onnx", "normfold", "t /"))
        assert text.rstrip().endswith((".", ")")), text


def test_codes_are_unique_and_ordered_within_their_family() -> None:
    assert [key for key, code in CODES.items() if key != code.id] == []
    for family in "1249":
        ids = [key for key in CODES if key[2] == family]
        assert ids == sorted(ids)


def test_every_code_named_in_the_sources_exists() -> None:
    named = {
        code
        for file in PACKAGE.rglob("*.py")
        for code in re.findall(r'"(NF\d\d\d)"', file.read_text("utf-8"))
    }
    assert named <= set(CODES)


def test_every_fold_code_is_raised_somewhere() -> None:
    sources = "\n".join(f.read_text("utf-8") for f in PACKAGE.rglob("*.py") if "codes" not in f.parts)
    silent = [code for code in CODES if code.startswith("NF1") and f'"{code}"' not in sources]
    assert silent == []
