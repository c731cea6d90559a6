"""Checks that a wheel holds the package ``normfold``, all of it, and nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main(wheel: Path) -> None:
    """Raises ``SystemExit`` with one line if something is missing or does not belong."""
    names = set(zipfile.ZipFile(wheel).namelist())
    foreign = [
        n for n in names if n.split("/")[0] != "normfold" and not n.split("/")[0].endswith(".dist-info")
    ]
    if foreign:
        sys.exit(f"{wheel.name} holds what does not belong: {', '.join(sorted(foreign))}")
    root = Path(__file__).parents[1]
    expected = {"normfold/py.typed"}
    expected |= {str(p.relative_to(root)) for p in (root / "normfold").rglob("*.py")}
    expected |= {f"normfold/{p.relative_to(root)}" for p in (root / "cli").rglob("*.py")}
    missing = sorted(expected - names)
    if missing:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if not any(name.endswith("/LICENSE") for name in names):
        sys.exit(f"{wheel.name} lacks the licence")
    print(f"{wheel.name}: {len(names)} files, all of normfold and nothing else")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
