"""Tries inputs on the original, before they are chosen for a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from normfold.evaluation import EvaluationFailed, Evaluator, NotCovered
from normfold.inputs.drawing import Arrays
from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused, Session
from normfold.runtime.execution_providers import CPU
from normfold.verification.endtoend.providers import Outcome, opened, strict_options
from normfold.verification.endtoend.reference import OverBudget, Watch
from normfold.verification.endtoend.selection import Unaccepted
from normfold.verification.options import VerifyOptions


class Trial:
    """Runs the original on one input: in onnxruntime where that loads it, otherwise in the evaluator."""

    def __init__(
        self,
        model: ir.Model,
        files: tuple[Path, Path] | None,
        runtime: Runtime | None,
        outputs: Sequence[str],
        options: VerifyOptions,
    ) -> None:
        self._model, self._outputs = model, outputs
        self._watch = Watch(options)
        self._runtime, self._file = runtime, files[0] if files else None
        self._session: Session | None = None
        self._evaluator: Evaluator | None = None
        self._seen: list[tuple[Arrays, Arrays]] = []
        self._open()

    def _open(self) -> None:
        if self._runtime is not None and self._file is not None:
            try:
                self._session = self._runtime.open(
                    self._file, CPU, optimize=False, options=strict_options(CPU)
                )
            except (RuntimeRefused, RuntimeCrashed):
                self._session = None
        if self._session is None:
            self._evaluator = Evaluator(self._model, precision="native")

    def close(self, batches: Sequence[Arrays]) -> dict[str, Outcome]:
        """Unloads the model; returns what it did on the CPU provider if it ran all batches there."""
        if self._session is None or self._runtime is None:
            return {}
        known = opened(self._session, CPU)
        for batch in batches:
            known.runs += [results for inputs, results in self._seen if inputs is batch]
        self._runtime.release(self._session)
        return {CPU: known} if len(known.runs) == len(batches) else {}

    def __call__(self, inputs: Arrays) -> Arrays:
        if self._session is not None and self._runtime is not None:
            try:
                results = self._runtime.run(self._session, inputs, self._outputs)
                self._seen.append((inputs, results))
                return results
            except RuntimeRefused as error:
                raise Unaccepted(str(error)) from error
            except RuntimeCrashed:
                self._session = None
                self._evaluator = Evaluator(self._model, precision="native")
        assert self._evaluator is not None
        try:
            return self._watch.run(self._evaluator, inputs, self._outputs)
        except OverBudget as error:
            raise Unaccepted(str(error), rejected=False) from error
        except NotCovered as error:
            raise Unaccepted(str(error), rejected=isinstance(error, EvaluationFailed)) from error
