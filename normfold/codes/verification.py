"""NF2xx: what verification can say."""

from __future__ import annotations

from normfold.codes._code import Code

VERIFICATION_CODES: tuple[Code, ...] = ()
