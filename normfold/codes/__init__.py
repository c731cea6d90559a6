"""Reason codes: one entry per thing normfold may say of a model.

NF1xx fold · NF2xx verification · NF3xx consistency · NF4xx GroupNorm · NF9xx input and output.
Each family has its module; a code's text lives there and nowhere else.
"""

from __future__ import annotations

from normfold.codes._code import Code
from normfold.codes.consistency import CONSISTENCY_CODES
from normfold.codes.fold import FOLD_CODES
from normfold.codes.groupnorm import GROUPNORM_CODES
from normfold.codes.io import IO_CODES
from normfold.codes.verification import VERIFICATION_CODES

CODES: dict[str, Code] = {
    code.id: code
    for code in (*FOLD_CODES, *VERIFICATION_CODES, *CONSISTENCY_CODES, *GROUPNORM_CODES, *IO_CODES)
}

__all__ = ["CODES", "Code"]
