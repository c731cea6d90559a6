"""One run of a command: its report, its clock, and its errors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

from normfold import loading
from normfold.collector import collector_paused
from normfold.errors import InputError, NormfoldError
from normfold.loading import ModelLike, Source
from normfold.progress import Progress, listening
from normfold.reporting.environment import tool_versions
from normfold.reporting.report import Finding, Report


class Run:
    """One command: its report, its clock, and the rule that every error leaves with the report attached."""

    def __init__(
        self,
        command: Literal["fold", "inspect", "verify", "bench", "consistency", "calibrate"],
        progress: Progress | None,
    ) -> None:
        self.report = Report(command, tool=tool_versions())
        self.progress = progress
        self._sources: list[Source] = []
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.report.timing["total"] = time.perf_counter() - self._began
        fault = self._fault_behind(error)
        told = fault or error
        if isinstance(told, NormfoldError):
            self.report.exit = told.exit_code
            told.report = self.report
            if told.code is not None:
                self.report.findings.append(Finding(told.code, "error", str(told)))
        if fault is not None:
            raise fault from error

    def _fault_behind(self, error: BaseException | None) -> InputError | None:
        """Where something unexpected has happened, what is wrong with the models that it happened on."""
        if not isinstance(error, Exception) or isinstance(error, (NormfoldError, MemoryError, OSError)):
            return None
        from normfold.loading.diagnosis import diagnose

        for source in self._sources:
            fault = diagnose(source.model)
            if fault is not None:
                name = f"{source.loaded.name}: " if source.loaded is not None else ""
                return InputError(f"{name}{fault}", code=fault.code)
        return None

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announces and times one phase; seconds add up where a phase comes twice."""
        if self.progress is not None:
            self.progress(name)
        began = time.perf_counter()
        try:
            with listening(self.progress):
                yield
        finally:
            elapsed = time.perf_counter() - began
            self.report.timing[name] = self.report.timing.get(name, 0.0) + elapsed

    @contextlib.contextmanager
    def building(self, name: str) -> Iterator[None]:
        """A phase that makes graphs of many objects, all of which stay."""
        with self.phase(name), collector_paused():
            yield

    def load(self, model: ModelLike) -> Source:
        """Opens a model and lists it in the report; what cannot be opened is listed by name alone."""
        with self.building("load"):
            name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
            self.report.inputs.append({"path": name})
            source = loading.open_source(model)
            self._sources.append(source)
            self.report.inputs[-1] = source.describe()
        return source
