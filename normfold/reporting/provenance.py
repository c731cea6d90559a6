"""What a folded model says of its own making, in ``metadata_props['normfold']``.

Compact JSON without paths and times, so that the same input and options give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

KEY = "normfold"


def provenance_entry(
    version: str,
    input_sha256: str | None,
    options_sha256: str,
    sites: Sequence[Mapping[str, Any]],
    previous: str | None,
) -> str:
    """Encodes the record.

    Args:
        version: of normfold.
        input_sha256: of the input model file; ``None`` if it has no canonical encoding.
        options_sha256: of the fold's options.
        sites: for each folded site its name, rule and original statistics.
        previous: the record of an earlier fold of the same model, kept inside.

    Returns:
        One line of JSON with sorted keys.
    """
    record: dict[str, Any] = {
        "version": version,
        "input": input_sha256,
        "options": options_sha256,
        "sites": list(sites),
    }
    if previous:
        try:
            record["previous"] = json.loads(previous)
        except ValueError:
            record["previous"] = previous
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
