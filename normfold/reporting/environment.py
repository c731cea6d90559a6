"""Which versions made a report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnx", "onnx-ir", "numpy", "onnxruntime", "onnxruntime-gpu")


def tool_versions() -> dict[str, str]:
    """Returns name and version of normfold, and of what it runs on where installed. Imports none of it."""
    from normfold import __version__

    versions = {"name": "normfold", "version": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
