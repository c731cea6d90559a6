"""``python -m tests.fuzz --minutes 30 --seed 1 --jobs 2``: look for a model that normfold gets wrong."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import CASES
from tests.fuzz.census import Census
from tests.fuzz.search import clock, search

SEEDS_OF_A_JOB = 10_000_000


def main() -> int:
    options = _options()
    if options.child is not None:
        return _child(options)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [_start(options, job, Path(folder)) for job in range(options.jobs)]
        census, crashed = Census(), 0
        for job, process in enumerate(jobs):
            code = process.wait()
            report = Path(folder) / f"{job}.json"
            if report.exists():
                census.add(json.loads(report.read_text()))
            if code not in (0, 1):
                crashed += 1
                kept = options.save / f"crash-{options.seed}-{job}.onnx"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes((Path(folder) / f"{job}.onnx").read_bytes())
                print(f"job {job} died with {code}: {kept}", file=sys.stderr)
    _print(census, time.monotonic() - begun, options.seed)
    if options.json is not None:
        said = {"seed": options.seed, "minutes": options.minutes, "jobs": options.jobs, **census.as_dict()}
        options.json.write_text(json.dumps(said, indent=1) + "\n")
    return 1 if census.counts["failures"] or crashed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0)
    length.add_argument("--models", type=int, help="stop after so many models, not after minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--save", type=Path, default=CASES, help="folder for what fails")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(options: argparse.Namespace, job: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.fuzz", "--child", str(job), "--folder", str(folder)]
    command += ["--seed", str(options.seed), "--save", str(options.save)]
    if options.models is not None:
        command += ["--models", str(-(-options.models // options.jobs))]
    else:
        command += ["--minutes", str(options.minutes)]
    # One thread each: the models are small, and more threads only wait for each other.
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _child(options: argparse.Namespace) -> int:
    census = Census()
    report = options.folder / f"{options.child}.json"
    over = clock(options.minutes) if options.models is None else None
    models = options.models

    def until(tried: int) -> bool:
        report.write_text(json.dumps(census.as_dict()))
        return over(tried) if over is not None else tried >= models

    failures = search(
        options.seed + options.child * SEEDS_OF_A_JOB,
        census,
        until=until,
        save=options.save,
        current=options.folder / f"{options.child}.onnx",
        tell=lambda line: print(line, flush=True),
    )
    return 1 if failures else 0


def _print(census: Census, seconds: float, seed: int) -> None:
    counts = census.counts
    usable = counts["tried"] - counts["unusable"]
    print(f"seed {seed}: {counts['tried']} models in {seconds / 60:.1f} minutes, {usable} of them usable")
    print(f"  wrong answers, crashes, invalid outputs: {counts['failures']}")
    print(
        f"  {_share(counts['changed'], usable)} changed, {_share(counts['with a fold'], usable)} with a fold"
    )
    print(f"  {counts['sites acted on']} of {counts['sites']} sites acted on")
    print(f"  values compared in float64: {counts['values compared in float64']}")
    print(f"  onnxruntime compared: {_share(census.runtime['compared'], sum(census.runtime.values()))}")
    proven = _share(counts["sites proven"], counts["sites asked of the proof"])
    print(f"  sites that normfold's own proof also proves: {proven}")
    print(f"  rows of the operator table never crossed: {', '.join(census.rows_never_met()) or 'none'}")
    print(f"  reasons never met: {', '.join(census.codes_never_met()) or 'none'}")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


if __name__ == "__main__":
    sys.exit(main())
