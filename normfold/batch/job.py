"""One model of a batch: what a worker is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WITHOUT_EFFECT = ("progress", "save_failure")


@dataclass(frozen=True)
class Settings:
    """What all models of a batch have in common.

    Attributes:
        options: keyword arguments of ``normfold.fold``.
        check: a model that would change counts as a failure.
        force: fold again what an earlier batch has done.
        digest: equal for equal options and equal data.
        run: names this batch, so that a worker that takes over from a dead one knows its work from older.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False
    force: bool = False
    digest: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, options: Mapping[str, Any], *, check: bool, force: bool) -> Settings:
        """Makes the settings of a new batch."""
        return cls(dict(options), check, force, options_digest(options))


@dataclass(frozen=True)
class Job:
    """One model of a batch.

    Attributes:
        source: path or URL of the model.
        output: path or URL of the result, ``None`` to write nothing.
        record: path or URL of the note that it was done, ``None`` for none.
        settings: those of the batch.
    """

    source: str
    output: str | None
    record: str | None
    settings: Settings


def options_digest(options: Mapping[str, Any]) -> str:
    """Digest that is equal for equal options and unchanged data files (their names, sizes and times)."""
    known = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    data = known.get("data")
    if isinstance(data, (str, os.PathLike)):
        known["data"] = [os.fspath(data), *_listing(Path(data))]
    text = json.dumps(known, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _listing(data: Path) -> Iterable[tuple[str, int, int]]:
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    for path in files:
        with contextlib.suppress(OSError):
            status = path.stat()
            yield str(path), status.st_size, status.st_mtime_ns


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return repr(value)
