"""Compares two models. Knows nothing of how a fold was done.

A fold is proven in float64, region by region; any two models are compared end to end, where the original's
own rounding sets the bound, and on execution providers of onnxruntime.
"""

from normfold.verification.options import ModelSource, VerifyOptions
from normfold.verification.proof.algebra import prove_fold
from normfold.verification.verify import verify_fold, verify_models

__all__ = [
    "ModelSource",
    "VerifyOptions",
    "prove_fold",
    "verify_fold",
    "verify_models",
]
