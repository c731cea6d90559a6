"""``python -m tests.fuzz --minutes 30 --seed 1 --jobs 2``: look for a model that normfold gets wrong."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import CASES
from tests.fuzz.census import Census
from tests.fuzz.jobs import Job, Share, work
from tests.fuzz.judge import Unusable, Wrong, judge
from tests.fuzz.limit import ending
from tests.fuzz.search import SLICE, model_of


def main() -> int:
    options = _options()
    if options.share is not None:
        work(options.share)
        return 0
    if options.model is not None:
        return _again(options.model)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [_job(options, number, Path(folder)) for number in range(options.jobs)]
        while [job for job in jobs if job.is_at_work()]:
            time.sleep(0.2)
        census = Census()
        for job in jobs:
            census.add(job.census())
    _print(census, time.monotonic() - begun, options.seed)
    if options.json is not None:
        said = {"seed": options.seed, "minutes": options.minutes, "jobs": options.jobs, **census.as_dict()}
        options.json.write_text(json.dumps(said, indent=1) + "\n")
    return 1 if census.counts["failures"] or census.died else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0)
    length.add_argument("--models", type=int, help=f"stop after so many models ({SLICE} for each seed)")
    length.add_argument("--model", metavar="SEED/NUMBER", help="only this one, as a run has named it")
    parser.add_argument("--seed", type=int, default=1, help="of the first models; counts up from there")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--save", type=Path, default=CASES, help="folder for what fails")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    parser.add_argument("--share", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _job(options: argparse.Namespace, number: int, folder: Path) -> Job:
    share = Share(str(options.save), options.seed + number, options.jobs)
    if options.models is not None:
        share.end = options.seed + -(-options.models // SLICE)
    else:
        share.until = time.time() + 60 * options.minutes
    path = folder / f"{number}.json"
    share.write(path)
    return Job(path, [sys.executable, "-m", "tests.fuzz", "--share", str(path)])


def _again(name: str) -> int:
    try:
        verdict = judge(model_of(name), fold=ending())
    except (Unusable, Wrong) as error:
        print(f"seed {name}: {type(error).__name__}: {error}")
        return isinstance(error, Wrong)
    print(f"seed {name}: nothing wrong, {'changed' if verdict.folded.changed else 'unchanged'}")
    return 0


def _print(census: Census, seconds: float, seed: int) -> None:
    counts = census.counts
    usable = counts["tried"] - counts["unusable"]
    print(f"seed {seed}: {counts['tried']} models in {seconds / 60:.1f} minutes, {usable} of them usable")
    print(f"  wrong answers, crashes, invalid outputs: {counts['failures']}")
    print(f"  models that a process died of, or did not end: {', '.join(census.died) or 'none'}")
    print(f"  onnxruntime crashed on {_listed(list(census.crashed))} originals")
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


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


if __name__ == "__main__":
    sys.exit(main())
