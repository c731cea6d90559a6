"""Every reason code is explained, documented, used by the library and appears in a test."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from normfold.codes import CODES

ROOT = Path(__file__).parents[2]


def mentioned(*paths: Path) -> set[str]:
    return {code for path in paths for code in re.findall(r"NF\d{3}", path.read_text())}


SOURCES = [path for folder in ("normfold", "cli") for path in (ROOT / folder).rglob("*.py")]
IN_LIBRARY = mentioned(*(path for path in SOURCES if path.parent.name != "codes"))
IN_TESTS = mentioned(*(path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)))


@pytest.mark.parametrize("identifier", CODES)
class TestEachCode:
    def test_has_its_texts(self, identifier: str) -> None:
        code = CODES[identifier]
        assert re.fullmatch(r"NF[1-49]\d\d", identifier)
        assert identifier == code.id
        assert code.title
        assert not code.title.endswith(".")
        for text in (code.what, code.why, code.unblock):
            assert len(text) > 10
            assert text.endswith((".", ")"))

    def test_is_used(self, identifier: str) -> None:
        assert identifier in IN_LIBRARY

    def test_appears_in_a_test(self, identifier: str) -> None:
        assert identifier in IN_TESTS


def test_every_code_in_use_is_defined() -> None:
    assert CODES.keys() >= IN_LIBRARY


def test_titles_differ() -> None:
    assert len({code.title for code in CODES.values()}) == len(CODES)


def test_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate_reason_codes.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PAGE.read_text() == generator.render(), "run python docs/generate_reason_codes.py"
