"""``python -m tests.mutation``: break each fold rule, and see who notices."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.mutation.catalogue import MUTANTS
from tests.mutation.material import loaded, prepare, unbroken
from tests.mutation.mutant import Mutant
from tests.mutation.survey import PACKAGE, Survey
from tests.mutation.table import page

SECONDS = 1800
"""A mutant that takes longer has not been asked of all its tests, and counts as alive."""


def main() -> int:
    options = _options()
    chosen = [m for m in MUTANTS if options.only in m.name]
    if options.again is not None:
        alive = {r["name"] for r in json.loads(options.again.read_text()) if r["survives"]}
        chosen = [m for m in chosen if m.name in alive]
    stale = [said for mutant in chosen if (said := _stale(mutant)) is not None]
    for said in stale:
        print(f"stale: {said}", file=sys.stderr)
    chosen = [mutant for mutant in chosen if _stale(mutant) is None]
    with tempfile.TemporaryDirectory() as folder:
        path = options.survey or Path(folder) / "survey"
        if not path.exists():
            prepare(path, Path(folder), options.jobs)
        done = json.loads(options.resume.read_text()) if options.resume else []
        known = {result["name"]: result for result in done}
        waiting = [mutant for mutant in chosen if mutant.name not in known]
        for result in _run_all(waiting, loaded(path), Path(folder), options.jobs):
            known[result["name"]] = result
            if options.json is not None:
                options.json.write_text(json.dumps(list(known.values()), indent=1) + "\n")
        results = [known[mutant.name] for mutant in chosen]
        judged = {int(number) for r in results for number, what in r["proof"].items() if what != "right"}
        unsound = {n for n, what in unbroken(path, judged, Path(folder)).items() if what != "right"}
    for result in results:
        result["says"] = _said(result["proof"], unsound)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.table is not None:
        options.table.write_text(page(results))
    survivors = [r["name"] for r in results if r["survives"]]
    missed = [r["name"] for r in results if r["says"].startswith("missed")]
    print(
        f"{len(results)} mutants, {len(survivors)} of them alive, {len(missed)} missed by the proof, "
        f"{len(stale)} entries out of date"
    )
    for name in survivors:
        print(f"  alive: {name}")
    for name in missed:
        print(f"  missed by the proof: {name}")
    return 1 if survivors or missed or stale else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the mutants to run")
    parser.add_argument("--again", type=Path, help="only those that are alive in these results (--json)")
    parser.add_argument(
        "--resume", type=Path, help="results (--json) of a run on the same code, kept as they are"
    )
    parser.add_argument("--survey", type=Path, help="file that keeps what is known of the tests between runs")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--table", type=Path, help="write them as a Markdown page")
    return parser.parse_args()


def _stale(mutant: Mutant) -> str | None:
    try:
        mutant.source(PACKAGE)
    except (LookupError, SyntaxError) as error:
        return f"{mutant.name}: {error}" if isinstance(error, SyntaxError) else str(error)
    return None


def _run_all(mutants: list[Mutant], survey: Survey, folder: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """Each mutant in a child of its own, ``jobs`` at a time."""
    # What is there by now is nobody's garbage: no child has to look through it, or copy it to do so.
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[Mutant, Path, float]] = {}
    waiting = list(enumerate(mutants))
    while waiting or running:
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop(0)
            report = folder / f"report_{number}.json"
            running[_forked(mutant, survey, report)] = mutant, report, time.monotonic()
        time.sleep(0.05)
        for child, (mutant, report, begun) in list(running.items()):
            done, _ = os.waitpid(child, os.WNOHANG)
            if not done and time.monotonic() - begun < SECONDS:
                continue
            if not done:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            del running[child]
            result = _result(mutant, report, time.monotonic() - begun)
            print(f"{result['tests']:70} {result['name']}", flush=True)
            yield result


def _forked(mutant: Mutant, survey: Survey, report: Path) -> int:
    child = os.fork()
    if child == 0:
        _become(mutant, survey, report)
    return child


def _result(mutant: Mutant, report: Path, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"proof": {}, "tests": "did not end"}
    if report.exists():
        found |= json.loads(report.read_text())
    equivalent = mutant.edit.equivalent
    survives = not equivalent and found["tests"] in ("alive", "no test", "did not end", "survey out of date")
    return {
        "name": mutant.name,
        "path": mutant.path,
        "what": mutant.edit.what,
        **found,
        "seconds": round(seconds, 1),
        "survives": survives,
    } | ({"equivalent": equivalent} if equivalent else {})


def _said(proof: dict[str, str], unsound: set[int]) -> str:
    """What the proof says in all, of models of which the judge says of the unbroken code that it is right."""
    said = Counter(what.partition(":")[0] for number, what in proof.items() if int(number) not in unsound)
    if said["caught"]:
        return "caught"
    for kind in ("missed", "withheld", "caught behind the algebra", "crash", "unsettled"):
        if said[kind]:
            return f"{kind} on {said[kind]} of {said.total()}"
    return f"nothing wrong on {said.total()} models" if said else "no model"


def _become(mutant: Mutant, survey: Survey, report: Path) -> None:
    """Runs the mutant in this process, which ends with it."""
    code = 1
    try:
        from tests.mutation.trial import trial

        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        trial(mutant, survey, report)
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
    import torch

    assert hypothesis and ml_dtypes and numpy and onnx and onnx_ir and onnxruntime and pytest
    assert torch
    sys.exit(main())
