"""Which names are paths of this machine, and which lie behind URLs of other file systems."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from normfold.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL of another file system; ``file://`` is a path."""
    text = os.fspath(name)
    return _URL.match(text) is not None and not text.lower().startswith("file://")


def plain_path(name: str) -> str:
    """Gives the path of a ``file://`` URL, and any other name as it is.

    Raises:
        InputError: NF901 if the URL names another machine.
    """
    if not name.lower().startswith("file://"):
        return name
    parts = urlsplit(name)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{name}: a file URL has three slashes, and names no machine", code="NF901")
    return unquote(parts.path)
