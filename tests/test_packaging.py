"""What the wheel will hold."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed() -> None:
    """setuptools cannot find packages and map ``cli/`` to ``normfold.cli`` at once, so they are listed by
    hand."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "normfold").rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found | {"normfold.cli"})


def test_the_oldest_versions_that_are_tried_are_those_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    lines = (ROOT / ".ci" / "lowest-versions.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in required:
        name, _, least = requirement.partition(">=")
        assert f"{tried[name]}.".startswith(f"{least}."), requirement
