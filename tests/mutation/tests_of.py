"""Which tests look at a module: its own first, then those that fold whole models."""

from __future__ import annotations

from pathlib import Path

_OPERATORS = "tests/planning/operators"
_OWN = {
    "affine.py": [
        "tests/test_affine.py",
        f"{_OPERATORS}/test_transpose.py",
        "tests/recognition/test_chains.py",
    ],
    "recognition/batchnorm.py": ["tests/recognition/test_batchnorm.py"],
    "recognition/elementwise.py": ["tests/recognition/test_chains.py"],
    "recognition/chains.py": ["tests/recognition/test_chains.py"],
    "planning/walk.py": ["tests/planning/test_walk.py", "tests/planning/test_refusals.py"],
    "planning/agreement.py": ["tests/planning/test_walk.py", "tests/planning/test_refusals.py"],
    "planning/broadcasting.py": [f"{_OPERATORS}/test_add.py", f"{_OPERATORS}/test_extremes.py"],
    "planning/ranges.py": ["tests/planning/test_ranges.py", "tests/planning/test_refusals.py"],
    "planning/linear_branches.py": ["tests/planning/test_branches.py"],
    "planning/branches.py": ["tests/planning/test_branches.py"],
    "planning/operators/_windows.py": [f"{_OPERATORS}/test_conv.py", f"{_OPERATORS}/test_pool.py"],
    "planning/operators/_layout.py": [f"{_OPERATORS}/test_reshape.py", f"{_OPERATORS}/test_concat.py"],
    "rewriting/branches.py": ["tests/planning/test_branches.py"],
}
_WHOLE = [
    "tests/planning/test_limits.py",
    "tests/folding/test_folding.py",
    "tests/planning/test_norm_affine.py",
    "tests/planning/test_sideways.py",
    "tests/planning/test_routes.py",
    "tests/planning/test_walk.py",
    "tests/planning/test_refusals.py",
    "tests/test_traps.py",
    "tests/rewriting/test_names.py",
    "tests/rewriting/test_sharing.py",
    "tests/test_fuzz.py",
]


def tests_of(path: str, root: Path) -> list[list[str]]:
    """Files and folders of tests, in the order in which they are asked."""
    stem = Path(path).stem
    own = _OWN.get(path, [f"tests/{Path(path).parent}/test_{stem}.py"])
    existing = [file for file in own if (root / file).exists()]
    return [existing, *([file] for file in _WHOLE)] if existing else [[file] for file in _WHOLE]
