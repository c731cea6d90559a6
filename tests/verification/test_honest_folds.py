"""Honest folds of every model in models/ are verified by default options: no tolerance is set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models import real
from normfold import fold

pytest.importorskip("onnxruntime")

TRAINED = sorted((Path(real.__file__).parent / "trained").glob("*.onnx"))


def zoo() -> list[tuple[str, Any, bool]]:
    """Every network with every exporter, static and with an open batch; none without torch."""
    try:
        from benchmarks import left
        from models.zoo import ZOO
    except ImportError:
        return []
    return [(name, *variant) for name in sorted(ZOO) for variant in left.exports(name)]


def is_verified(path: Path) -> None:
    """Folds a model, which raises unless the verdict is a pass."""
    report = fold(path).report
    assert report.verification.verdict == "pass"
    if report.summary["changed"]:
        assert report.verification.algebra["proven"] == report.verification.algebra["sites"] > 0


@pytest.mark.torch
@pytest.mark.parametrize(("name", "exporter", "dynamic"), zoo())
def test_network(name: str, exporter: Any, dynamic: bool) -> None:
    from models.export import export

    is_verified(export(name, exporter, dynamic))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_trained_here(path: Path) -> None:
    is_verified(path)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(real.available()))
def test_trained_by_others(name: str) -> None:
    is_verified(real.path_or_skip(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(real.light()))
def test_graphs_of_the_onnx_wheel(name: str) -> None:
    is_verified(real.light()[name])
