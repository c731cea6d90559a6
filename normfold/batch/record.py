"""What a batch remembers of each model that it has done: one small file per result, in a hidden folder of the
output folder (docs/decisions/0008-many-models.md).

A model is done if the record says so of the same bytes: the input and its external data, the options, the
versions of the tools, and the result as it lies there now.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from normfold.batch.job import Job
from normfold.errors import NormfoldError
from normfold.loading.leftovers import create_temporary, remove_leftovers
from normfold.loading.load import file_sha256
from normfold.loading.remote import remote_file
from normfold.reporting.environment import tool_versions
from normfold.reporting.report import Report, Verification
from normfold.scratch import ScratchFolder
from normfold.urls import is_url, plain_path

FOLDER = ".normfold"
_SCHEMA = 1


def done_before(job: Job) -> Report | None:
    """Gives the report of a model that need not be folded again, ``None`` if it must.

    Whatever is wrong with a record, the model is simply folded again.
    """
    if job.record is None or job.output is None:
        return None
    try:
        entry = _read(job.record)
        if entry is None or not _is_current(entry, job):
            return None
        if not is_url(job.output):
            remove_leftovers(Path(plain_path(job.output)).absolute())
        report = Report(
            "fold",
            tool=tool_versions(),
            inputs=[{**entry["input"], "path": job.source}],
            outputs=[{**entry["output"], "path": job.output}],
            verification=Verification(entry["verdict"]),
            summary={**entry["summary"], "skipped": True},
        )
    except (NormfoldError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return report


def remember(job: Job, report: Report) -> None:
    """Records a result that was published. Without a record it costs a fold later, nothing else."""
    if job.record is None or job.output is None or report.exit != 0 or not report.outputs:
        return
    text = json.dumps(
        {
            "schema": _SCHEMA,
            "tool": tool_versions(),
            "options": job.settings.digest,
            "run": job.settings.run,
            "input": _without_path(report.inputs[0]),
            "output": _without_path(report.outputs[0]),
            "verdict": report.verification.verdict,
            "summary": report.summary,
        },
        indent=1,
    )
    try:
        _write(job.record, text)
    except (NormfoldError, OSError):
        return


def _is_current(entry: dict[str, Any], job: Job) -> bool:
    if entry["schema"] != _SCHEMA or entry["tool"] != tool_versions():
        return False
    if entry["options"] != job.settings.digest:
        return False
    # A process that died after it had published is not asked to publish again.
    if job.settings.force and entry["run"] != job.settings.run:
        return False
    return _is_unchanged(job.source, entry["input"]) and _is_there(str(job.output), entry["output"])


def _is_unchanged(name: str, entry: dict[str, Any]) -> bool:
    """Whether a model and its external data have the content that was recorded."""
    digests = [(None, entry["sha256"]), *((item["path"], item["sha256"]) for item in entry.get("data", ()))]
    if is_url(name):
        model = remote_file(name)
        return all(
            (model if data is None else model.beside(data)).sha256() == digest for data, digest in digests
        )
    path = Path(plain_path(name))
    return all(
        file_sha256(path if data is None else path.parent / data) == digest for data, digest in digests
    )


def _is_there(name: str, entry: dict[str, Any]) -> bool:
    """Whether a result is what was recorded. Behind a URL sizes are compared, not contents."""
    if not is_url(name):
        return _is_unchanged(name, entry)
    model = remote_file(name)
    files = [model, *(model.beside(item["path"]) for item in entry.get("data", ()))]
    sizes = [file.size() for file in files]
    return None not in sizes and sum(size or 0 for size in sizes) == entry["bytes"]


def _without_path(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "path"}


def _read(name: str) -> dict[str, Any] | None:
    if is_url(name):
        content = remote_file(name).read()
    else:
        path = Path(plain_path(name))
        content = path.read_bytes() if path.exists() else None
    if content is None:
        return None
    entry: dict[str, Any] = json.loads(content)
    return entry


def _write(name: str, text: str) -> None:
    if is_url(name):
        with ScratchFolder() as folder:
            (folder / "record.json").write_text(text)
            remote_file(name).publish(folder / "record.json")
        return
    path = Path(plain_path(name)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = create_temporary(path)
    try:
        with file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
