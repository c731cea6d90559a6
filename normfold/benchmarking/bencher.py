"""The comparison: which inputs, which providers, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from normfold.benchmarking.statistics import compare
from normfold.benchmarking.timing import time_pair
from normfold.errors import Inconclusive, InputError
from normfold.inputs.drawing import Arrays, InputSpec, signature
from normfold.inputs.options import InputOptions
from normfold.loading import Source
from normfold.reporting.report import Finding, Measurement, Report
from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused, write_model
from normfold.runtime.execution_providers import (
    CPU,
    ProviderOptions,
    provider_name,
    short_name,
)
from normfold.verification.endtoend.providers import run_model
from normfold.verification.endtoend.selection import Unaccepted, select
from normfold.verification.options import VerifyOptions


@dataclass(frozen=True)
class BenchOptions(InputOptions):
    """What a caller can decide.

    Attributes:
        providers: execution providers, such as ``("cpu", "cuda")``.
        provider_options: options of those, such as ``{"cuda": {"prefer_nhwc": "1"}}``.
        batches: sizes of the batch axis; empty for one run size, with a batch of 1 where it is open.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
        rounds: how often the models take turns.
        timeout_seconds: limit for one provider and batch size.
    """

    providers: Sequence[str] = ("cpu",)
    provider_options: ProviderOptions = field(default_factory=dict)
    batches: Sequence[int] = ()
    threads: int = 0
    rounds: int = 30
    timeout_seconds: float = 300.0


class Bencher:
    """Times two models of one signature; what it finds goes into the report."""

    def __init__(
        self, sources: tuple[Source, Source], options: BenchOptions, runtime: Runtime, report: Report
    ) -> None:
        self._models = sources[0].model, sources[1].model
        self._options, self._runtime, self._report = options, runtime, report
        self._files = _file(sources[0], runtime, "a"), _file(sources[1], runtime, "b")
        _require_equal_signatures(*(signature(model) for model in self._models))

    def inputs(self, batch: int | None) -> Arrays:
        """One set of inputs that the first model accepts.

        Raises:
            InputError: the sizes do not fit the model.
            Inconclusive: NF208.
        """
        options = self._options
        chosen = VerifyOptions(
            data=options.data,
            image=options.image,
            shapes=options.shapes,
            dims={**self._batch_sizes(batch), **options.dims},
            seed=options.seed,
        )
        if batch is not None:
            _require_batch(signature(self._models[0], chosen), batch)
        selection = select(self._models[0], chosen, self._attempt)
        if not selection.batches:
            raise Inconclusive(
                f"no generated input runs, give --shape or --data: {selection.failure}", code="NF208"
            )
        return selection.batches[0]

    def _batch_sizes(self, batch: int | None) -> dict[str, int]:
        """The open axes that are only ever the first of an input: batches."""
        specs = signature(self._models[0])
        first = {spec.shape[0] for spec in specs if spec.shape}
        later = {size for spec in specs for size in spec.shape[1:]}
        return {size: batch or 1 for size in first - later if isinstance(size, str)}

    def _attempt(self, arrays: Arrays) -> Arrays:
        outputs = [value.name or "" for value in self._models[0].graph.outputs]
        last = ""
        for provider in (CPU, *map(provider_name, self._options.providers)):
            outcome = run_model(
                self._runtime, self._files[0], provider, [arrays], outputs, optimize=False, options={}
            )
            if outcome.status == "ok":
                return outcome.runs[0]
            last = last or outcome.detail
        raise Unaccepted(last)

    def measure(self, provider: str, batch: int | None, arrays: Arrays) -> None:
        """Times both models on one provider, or says why not."""
        name = short_name(provider)
        if not self._is_exercised(provider, name, arrays):
            return
        try:
            times = time_pair(
                self._files,
                provider,
                arrays,
                options=self._runtime.options_of(provider),
                threads=self._options.threads,
                rounds=self._options.rounds,
                timeout_seconds=self._options.timeout_seconds,
                folder=self._runtime.folder,
            )
        except RuntimeCrashed as error:
            self._give_up("NF205", f"{name}: {error}")
            return
        except RuntimeRefused as error:
            self._give_up("NF212", f"{name}: {error}")
            return
        found = compare(times.a, times.b, self._options.seed)
        sizes = {name: list(array.shape) for name, array in arrays.items()}
        self._report.measurements.append(
            Measurement(
                provider=name,
                batch=batch if batch is not None else _common_batch(arrays),
                shapes=sizes,
                a=found.a,
                b=found.b,
                spread_a=found.spread_a,
                spread_b=found.spread_b,
                speedup=found.speedup,
                interval=found.interval,
                rounds=self._options.rounds,
                runs_per_round=times.runs_per_round,
                threads=self._options.threads,
                io_binding=times.io_binding,
            )
        )

    def _is_exercised(self, provider: str, name: str, arrays: Arrays) -> bool:
        """Whether both models run there, as they would be deployed; lists what runs elsewhere."""
        for model, file in zip("AB", self._files, strict=True):
            outcome = run_model(self._runtime, file, provider, [arrays], [], optimize=True, options={})
            if outcome.status != "ok":
                code = {"crashed": "NF205", "refused": "NF212"}.get(outcome.status, "NF204")
                self._give_up(code, f"{name}, model {model}: {outcome.detail}")
                return False
            self._report.verification.providers.append(outcome.as_dict(name, model, True))
        return True

    def _give_up(self, code: str, message: str) -> None:
        finding = Finding(code, "error", message)
        if finding not in self._report.findings:
            self._report.findings.append(finding)
        self._report.exit = Inconclusive.exit_code


def _file(source: Source, runtime: Runtime, name: str) -> Path:
    origin = source.origin
    return write_model(origin, runtime.folder, name) if isinstance(origin, ir.Model) else origin


def _require_equal_signatures(a: Sequence[InputSpec], b: Sequence[InputSpec]) -> None:
    first, second = ({spec.name: spec.dtype for spec in specs} for specs in (a, b))
    if first != second:
        name = next(name for name in {**first, **second} if first.get(name) != second.get(name))
        raise InputError(f"input '{name}' is not the same in both models", code="NF207")


def _require_batch(specs: Sequence[InputSpec], batch: int) -> None:
    fixed = next((spec for spec in specs if spec.shape and isinstance(spec.shape[0], int)), None)
    if not any(spec.shape and spec.shape[0] == batch for spec in specs):
        size = "no batch axis" if fixed is None else f"a batch of {fixed.shape[0]}"
        raise InputError(f"--batch {batch}: the model has {size}", code="NF900")


def _common_batch(arrays: Arrays) -> int | None:
    sizes = {array.shape[0] for array in arrays.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else None
