"""Many models: the same fold for each, in processes of this machine or on a Dask cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from normfold.batch.driver import OnDone, run_jobs
from normfold.batch.job import Job, Settings
from normfold.batch.selection import join, select
from normfold.errors import InputError
from normfold.loading.leftovers import sweep
from normfold.outcome import Outcome, worst
from normfold.reporting.environment import tool_versions
from normfold.reporting.report import Report
from normfold.urls import is_url, plain_path

OnPlan = Callable[[int], None]
"""Is told the number of models before work begins."""


def fold_many(
    models: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    force: bool = False,
    check: bool = False,
    on_plan: OnPlan | None = None,
    on_done: OnDone | None = None,
    **options: Any,
) -> Report:
    """Folds many models; one that cannot be folded stops no other.

    A model that an earlier call has written to ``output`` is skipped while its input, its external data, the
    options, the versions of the tools and the result are what they were.

    Args:
        models: files, folders (every ``.onnx`` file in them), patterns, and URLs of these.
        output: folder or URL of the results, made where it does not exist; sub-folders are kept. Without it
            nothing is written.
        jobs: fold in so many processes; ``None`` folds in this one, one after another.
        dask: address of a Dask scheduler; its workers fold. They see the same files under the same names, and
            have one thread each.
        force: skip nothing.
        check: a model that would change counts as a failure.
        on_plan: is told the number of models.
        on_done: is told the number and the outcome of each model when it ends.
        **options: of ``normfold.fold``, for every model.

    Returns:
        A report with one run for each model, in the order of the arguments and of the paths within. Its
        ``exit`` is 0 if all are done, else the worst of theirs: 4, then 1, 2, 3.

    Raises:
        InputError: the models or their outputs cannot be told apart or found, or no scheduler answers.
        MissingDependency: an optional package is needed.
    """
    if jobs is not None and dask is not None:
        raise InputError("jobs are processes of this machine, and dask has workers of its own", code="NF900")
    # Workers of a cluster have folders of their own to be in.
    named = _absolute if dask is not None else os.fspath
    target = named(output) if output is not None else None
    selected = select([named(model) for model in models], target)
    if on_plan is not None:
        on_plan(len(selected))
    settings = Settings.of(options, check=check, force=force)
    work = [
        Job(
            model.source,
            join(target, model.relative) if target is not None else None,
            join(target, f"{_RECORDS}/{model.relative}.json") if target is not None else None,
            settings,
        )
        for model in selected
    ]
    results = None if target is None or is_url(target) else Path(plain_path(target))
    if results is not None:
        sweep(results)
    with _executor(jobs, dask, len(work)) as (executor, width):
        outcomes = run_jobs(work, executor, width, on_done or _nobody)
    if results is not None:
        # Of workers that died, while others did their work.
        sweep(results)
    return batch_report("fold", [outcome.report for outcome in outcomes])


_RECORDS = ".normfold"


def batch_report(command: str, runs: list[Report]) -> Report:
    """One report of several."""
    whole = Report(command, tool=tool_versions(), exit=worst([run.exit for run in runs]), runs=runs)
    for run in runs:
        whole.inputs += run.inputs
        whole.outputs += run.outputs
    whole.summary = {
        "models": len(runs),
        "failed": sum(run.exit != 0 for run in runs),
        "skipped": sum(bool(run.summary.get("skipped")) for run in runs),
        "changed": sum(run.exit == 0 and bool(run.summary.get("changed")) for run in runs),
    }
    return whole


@contextlib.contextmanager
def _executor(jobs: int | None, dask: str | None, models: int) -> Iterator[tuple[Executor, int | None]]:
    """Gives what does the work, and how many models it takes at a time."""
    from normfold.batch.workers import Here, WorkerPool

    if dask is not None:
        from normfold.batch.cluster import dask_executor

        with dask_executor(dask) as executor:
            yield executor, None
    elif jobs is None:
        yield Here(), 1
    else:
        width = min(jobs, models)
        with WorkerPool(width) as pool:
            yield pool, width


def _absolute(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    return name if is_url(name) else str(Path(plain_path(name)).absolute())


def _nobody(_: int, __: Outcome) -> None:
    return
