"""Gives jobs to an executor, and sees that every one is answered for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait

from normfold.batch.job import Job
from normfold.batch.work import fold_job
from normfold.loading.messages import one_line
from normfold.outcome import Outcome, failed

OnDone = Callable[[int, Outcome], None]
"""Is told the number of a job and its outcome when it ends."""

_INTERNAL_ERROR = 4


def run_jobs(jobs: Sequence[Job], executor: Executor, width: int | None, on_done: OnDone) -> list[Outcome]:
    """Runs all jobs.

    A job whose process died is run once more, alone, when all the others are done: then memory that several
    models could not share is there for one, and a model that kills its process kills no other's.

    Args:
        jobs: what to do.
        executor: what does it.
        width: most jobs to submit at a time, ``None`` for all.
        on_done: is called in the order in which jobs end.

    Returns:
        One outcome for each job, in the order of ``jobs``.
    """
    outcomes: dict[int, Outcome] = {}

    def settle(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        on_done(number, outcome)

    lost: list[int] = []
    waiting = list(range(len(jobs)))[::-1]
    running: dict[Future[Outcome], int] = {}
    while waiting or running:
        while waiting and (width is None or len(running) < width):
            number = waiting.pop()
            running[executor.submit(fold_job, jobs[number])] = number
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(ended, key=running.__getitem__):
            number = running.pop(future)
            outcome, _reason = _outcome(future)
            if outcome is None:
                lost.append(number)
            else:
                settle(number, outcome)
    for number in sorted(lost):
        outcome, reason = _alone(jobs[number], executor)
        settle(number, outcome or _died(jobs[number], reason))
    return [outcomes[number] for number in range(len(jobs))]


def _alone(job: Job, executor: Executor) -> tuple[Outcome | None, str]:
    try:
        future = executor.submit(fold_job, job)
    except Exception as error:
        return None, one_line(error)
    wait([future])
    return _outcome(future)


def _outcome(future: Future[Outcome]) -> tuple[Outcome | None, str]:
    """The result of a job; without one, its process or the way to it is gone."""
    try:
        return future.result(), ""
    except CancelledError:
        return None, "the connection was lost"
    except Exception as error:
        return None, one_line(error)


def _died(job: Job, reason: str) -> Outcome:
    text = f"{job.source}: the process that folded it ended twice without an answer: {reason}"
    report = failed("fold", "NF930", text, _INTERNAL_ERROR)
    report.inputs.append({"path": job.source})
    return Outcome(report, f"error NF930: {text}")
