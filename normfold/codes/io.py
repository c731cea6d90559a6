"""NF9xx: models, data and files that cannot be used."""

from __future__ import annotations

from normfold.codes._code import Code

IO_CODES: tuple[Code, ...] = ()
