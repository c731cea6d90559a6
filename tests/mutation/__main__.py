"""``python -m tests.mutation``: break each fold rule, and see who notices."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.mutation.catalogue import MUTANTS
from tests.mutation.mutant import Mutant
from tests.mutation.table import table

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "normfold"
CORPUS = 600
SECONDS = 240


def main() -> int:
    options = _options()
    chosen = [m for m in MUTANTS if options.only in m.name]
    if options.again is not None:
        alive = {r["name"] for r in json.loads(options.again.read_text()) if r["survives"]}
        chosen = [m for m in chosen if m.name in alive]
    stale = [said for mutant in chosen if (said := _stale(mutant)) is not None]
    for said in stale:
        print(f"stale: {said}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder) / "corpus"
        if not corpus.exists():
            _make_corpus(corpus)
        results = []
        for mutant in chosen:
            if _stale(mutant) is None:
                results.append(_run(mutant, corpus, Path(folder)))
                print(f"{results[-1]['proof']:28} {results[-1]['tests']:60} {mutant.name}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.table is not None:
        options.table.write_text(table(results))
    survivors = [r["name"] for r in results if r["survives"]]
    print(f"{len(results)} mutants, {len(survivors)} of them alive, {len(stale)} entries out of date")
    for name in survivors:
        print(f"  alive: {name}")
    return 1 if survivors or stale else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the mutants to run")
    parser.add_argument("--again", type=Path, help="only those that are alive in these results (--json)")
    parser.add_argument("--corpus", type=Path, help="file that keeps the models between runs")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--table", type=Path, help="write them as a Markdown table")
    return parser.parse_args()


def _stale(mutant: Mutant) -> str | None:
    try:
        mutant.source(PACKAGE)
    except (LookupError, SyntaxError) as error:
        return f"{mutant.name}: {error}" if isinstance(error, SyntaxError) else str(error)
    return None


def _make_corpus(path: Path) -> None:
    """In a process of its own: this one must never have imported what mutants change."""
    code = (
        "import pickle, sys; from tests.mutation.corpus import make; "
        f"pickle.dump(make({CORPUS}), open(sys.argv[1], 'wb'))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)


def _run(mutant: Mutant, corpus: Path, folder: Path) -> dict[str, Any]:
    """One mutant in a child; what takes too long has been noticed too."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(mutant, corpus, report)
    while time.monotonic() - begun < SECONDS:
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    found: dict[str, Any] = {"proof": "did not end", "tests": "did not end"}
    if report.exists():
        found |= json.loads(report.read_text())
    equivalent = mutant.edit.equivalent
    survives = not equivalent and found["tests"] == "alive"
    return {
        "name": mutant.name,
        "path": mutant.path,
        "what": mutant.edit.what,
        **found,
        "survives": survives,
    } | ({"equivalent": equivalent} if equivalent else {})


def _become(mutant: Mutant, corpus: Path, report: Path) -> None:
    """Runs the mutant in this process, which ends with it."""
    code = 1
    try:
        from tests.mutation.trial import trial

        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        trial(mutant, corpus, report)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    # What every trial imports, once: only normfold itself is imported anew in each.
    import hypothesis
    import ml_dtypes
    import numpy
    import onnx.inliner
    import onnx.reference
    import onnx_ir.passes.common
    import onnxruntime
    import pytest

    assert pickle and hypothesis and ml_dtypes and numpy and onnx and onnx_ir and onnxruntime and pytest
    sys.exit(main())
