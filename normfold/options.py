"""What a caller can decide about a fold (about its verification: ``normfold.verification``)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class FoldOptions:
    """Options of a fold.

    Attributes:
        skip: names of rules that are not to be applied.
        keep: names of values whose producers are to stay as they are.
        freeze_initializers: initializers that are also graph inputs are constants, whatever the IR version.
        fold_norm_affine: the scale and shift of a GroupNorm, InstanceNorm or LayerNorm go into a following
            linear operator even where that removes no node.
        provenance: record what was folded in ``metadata_props['normfold']``.
        target: the runtime that GroupNorm and InstanceNorm are spelled for; ``None`` leaves them as they are.
        groupnorm: the form to spell them in, whatever the target prefers, or ``keep``.
        allow_unstable: take forms that lose accuracy on inputs with a large mean.
        spare: like ``keep``, for values whose folds are known to round too much. Not an option of a caller,
            but what came of the others.
    """

    skip: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()
    freeze_initializers: bool = False
    fold_norm_affine: bool = False
    provenance: bool = True
    target: str | None = None
    groupnorm: str | None = None
    allow_unstable: bool = False
    spare: frozenset[str] = frozenset()

    def sha256(self) -> str:
        """Digest that is equal exactly for equal options of a caller."""
        given = {name: value for name, value in asdict(self).items() if name != "spare"}
        text = json.dumps(given, sort_keys=True, default=sorted)
        return hashlib.sha256(text.encode()).hexdigest()
