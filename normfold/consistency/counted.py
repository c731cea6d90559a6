"""How many images calibrated statistics are of, as the model's metadata say.

``calibrate`` writes it, so that drift is judged by the noise of that many images. Compact JSON: the number
for all layers, and those that differ by name, ``null`` for one that kept its statistics.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

KEY = "normfold.calibration"


def record_images(model: ir.Model, images: int, layers: Mapping[str, int | None]) -> None:
    """Writes the record, in place.

    Args:
        model: whose statistics they are.
        images: what most layers' statistics are of.
        layers: what those of each layer are of, by the name of its output; ``None`` where it kept its own.
    """
    record: dict[str, Any] = {"images": images}
    if others := {site: count for site, count in layers.items() if count != images}:
        record["layers"] = others
    model.metadata_props[KEY] = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def recorded_images(model: ir.Model) -> Callable[[str], int | None]:
    """The images that the statistics of a layer are of, by its site; ``None`` where nothing says.

    What cannot be read says nothing.
    """
    try:
        record = json.loads(model.metadata_props.get(KEY, "null"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, Mapping):
        return lambda site: None
    everywhere, others = _count(record.get("images")), record.get("layers")
    if not isinstance(others, Mapping):
        return lambda site: everywhere
    return lambda site: _count(others[site]) if site in others else everywhere


def _count(entry: Any) -> int | None:
    return entry if isinstance(entry, int) and not isinstance(entry, bool) and entry > 0 else None
