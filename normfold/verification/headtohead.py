"""Two model files on the same inputs, on every provider, judged by the original's own rounding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Evaluator, NotCovered
from normfold.reporting.report import Verification
from normfold.verification.decisions import saturates
from normfold.verification.graph_index import GraphIndex
from normfold.verification.inputs import Arrays, is_floating
from normfold.verification.ledger import Ledger, Weight
from normfold.verification.noise import FACTOR, noisy_batches, noisy_models
from normfold.verification.options import VerifyOptions
from normfold.verification.providers import Outcome, run_model, without_kernel
from normfold.verification.reference import OverBudget, Reference, Watch, float64_reference, largest_change
from normfold.verification.rounding import Judgement, column, judge, ulp, within
from normfold.verification.runtime import CPU, Runtime, provider_name
from normfold.verification.sweep import Sweep, sweep

DISTRUST = 64.0
"""Where onnxruntime is this many times further from the float64 evaluation than the same evaluator in the
model's own types, the evaluator computes something else, and its reference is not used."""

EVALUATOR = "evaluator"


@dataclass(frozen=True)
class Remark:
    """What speaks against one output.

    Attributes:
        output: its name.
        weight: how much it counts.
        code: reason code.
        sentence: one sentence.
        provider: where it was seen; ``None`` for the evaluator.
        optimize: whether graph optimisations were on.
    """

    output: str
    weight: Weight
    code: str
    sentence: str
    provider: str | None = None
    optimize: bool = False


class HeadToHead:
    """One comparison of two models on given inputs.

    Args:
        original: the original.
        folded: the model to be judged.
        files: the files of both; ``None`` where onnxruntime is not installed.
        batches: inputs of each run.
        options: what the caller decided.
        runtime: the child process, ``None`` where onnxruntime is not installed.
        ledger: takes what speaks against a pass, but for the outputs themselves.
        report: takes the numbers.
        known: what the original did with optimisations off, by provider, where that was seen before.
        reference: its float64 outputs, where they were computed before.
        inside: values inside the original of which float64 references are wanted as well.

    Attributes:
        reference: float64 outputs of the original, and of values inside; ``None`` before the run.
        remarks: what speaks against single outputs.
        silent: outputs of sigmoids and softmaxes that rounding does not move: an error would not show either.
    """

    def __init__(
        self,
        original: ir.Model,
        folded: ir.Model,
        files: tuple[Path, Path] | None,
        batches: Sequence[Arrays],
        options: VerifyOptions,
        runtime: Runtime | None,
        ledger: Ledger,
        report: Verification,
        *,
        known: Mapping[str, Outcome] | None = None,
        reference: Reference | None = None,
        inside: Collection[str] = (),
    ) -> None:
        self.reference = reference
        self._inside = inside
        self._known = known or {}
        self._sweeps: dict[str, Future[Sweep]] | None = None
        self._original, self._folded = original, folded
        self._files, self._batches = files, batches
        self._options, self._runtime = options, runtime
        self._ledger, self._report = ledger, report
        self._outputs = [value.name or "" for value in original.graph.outputs]
        index = GraphIndex(original)
        self._saturating = {name for name in self._outputs if saturates(index, name)}
        self._noise: dict[str, float] | None = None
        self.remarks: list[Remark] = []
        self.silent: set[str] = set()

    def begin(self) -> None:
        """Starts the runs in onnxruntime, which take place while this process does other work. Until
        :meth:`run` has returned, nothing else may use the runtime."""
        assert self._sweeps is None
        self._sweeps = {}
        if self._runtime is None:
            return
        assert self._files is not None
        for provider in self._providers():
            lacking = without_kernel(self._folded, provider)
            if lacking is not None:
                self._ledger.add(
                    "inconclusive" if self._named(provider) else "warning",
                    "NF204",
                    f"{_short(provider)} was not exercised: it has no kernel of {lacking}",
                )
                continue
            self._sweeps[provider] = self._runtime.submit(
                partial(
                    sweep,
                    self._runtime,
                    self._files,
                    provider,
                    self._batches,
                    self._outputs,
                    known=self._known.get(provider),
                    patient=self._options.thorough,
                )
            )

    def _providers(self) -> list[str]:
        return list(dict.fromkeys(map(provider_name, self._options.providers))) or [CPU]

    def _named(self, provider: str) -> bool:
        return provider in map(provider_name, self._options.providers)

    def run(self) -> None:
        """Runs both models everywhere and judges every output; ``remarks`` and the report take the
        outcome."""
        if self._sweeps is None:
            self.begin()
        assert self._sweeps is not None
        if self.reference is None:
            wanted = [*dict.fromkeys((*self._outputs, *self._inside))]
            self.reference = float64_reference(self._original, self._batches, wanted, self._options)
        if self._runtime is None:
            for provider in self._providers() if self._options.providers else ():
                self._ledger.add(
                    "inconclusive", "NF204", f"{provider} was not exercised: onnxruntime is not installed"
                )
            self._ledger.add(
                "warning", "NF216", "onnxruntime is not installed, both models ran in the evaluator only"
            )
        sweeps = {provider: future.result() for provider, future in self._sweeps.items()}
        ran = [self._judge_sweep(provider, found, self.reference) for provider, found in sweeps.items()]
        if not any(ran):
            self._in_evaluator(self.reference)

    def _judge_sweep(self, provider: str, found: Sweep, reference: Reference) -> bool:
        """Judges what the models did on one provider; returns whether the original ran there."""
        base = found.original[False]
        self._list(provider, "original", False, base)
        if base.status != "ok":
            self._not_exercised(provider, self._named(provider), base)
            return False
        truth, response, source = self._bound(provider, base, reference)
        if truth is None:
            return True
        optimisable = True
        for optimize in (False, True):
            if optimize:
                optimisable = self._check_optimised_original(provider, found, truth, response)
            outcome = found.folded[optimize]
            self._list(provider, "folded", optimize, outcome)
            if outcome.status != "ok":
                self._refused(provider, optimize, outcome, optimisable)
                continue
            for output in self._outputs:
                judgement = self._judge(output, truth, base.runs, outcome.runs, response.get(output, 0.0))
                self._report.rounding.append(judgement.as_dict(_short(provider), optimize, source))
                self._enter(judgement, provider, optimize)
            self._check_tolerances(provider, optimize, base.runs, outcome.runs)
        self._list_relaxed(provider, found, truth)
        return True

    def _list(self, provider: str, name: str, optimize: bool, outcome: Outcome) -> None:
        self._report.providers.append(outcome.as_dict(_short(provider), name, optimize))

    def _list_relaxed(self, provider: str, found: Sweep, truth: Sequence[Arrays]) -> None:
        """Enters how far both models are off with TF32, which is no part of the verdict."""
        for name, outcome in found.relaxed.items():
            entry = outcome.as_dict(_short(provider), name, optimize=True)
            entry["tf32"] = {
                output: max(
                    largest_change(t[output], r[output]) for t, r in zip(truth, outcome.runs, strict=True)
                )
                for output in self._outputs
                if outcome.runs
            }
            self._report.providers.append(entry)

    def _not_exercised(self, provider: str, named: bool, outcome: Outcome) -> None:
        sentence = f"{_short(provider)} was not exercised: {outcome.detail}"
        if outcome.status == "crashed":
            self._ledger.add("inconclusive", "NF205", f"{_short(provider)} on the original: {outcome.detail}")
        elif named:
            self._ledger.add("inconclusive", "NF204", sentence)
        else:
            self._ledger.add("warning", "NF204", sentence)

    def _refused(self, provider: str, optimize: bool, outcome: Outcome, optimisable: bool) -> None:
        where = f"{_short(provider)}, optimisations {'on' if optimize else 'off'}"
        if not optimisable:
            self._ledger.add("warning", "NF210", f"{where}: like the original, the folded model does not run")
        elif outcome.status == "crashed":
            self._ledger.add("inconclusive", "NF205", f"{where}, on the folded model: {outcome.detail}")
        else:
            self._ledger.add("fail", "NF212", f"{where}: {outcome.detail}")

    def _bound(
        self, provider: str, base: Outcome, reference: Reference
    ) -> tuple[Sequence[Arrays] | None, dict[str, float], str]:
        """The truth to compare with, how far noise moves the original, and where the bound comes from."""
        missing = reference.missing or self._distrusted(base, reference)
        if missing is None:
            return reference.runs, _larger(reference.response, base.spread), "float64"
        response = self._noise_response(provider, base)
        if response is None:
            self._ledger.add(
                "inconclusive", "NF209", f"no float64 reference ({missing}), and noise could not be measured"
            )
            return None, {}, "noise"
        self._ledger.add(
            "warning",
            "NF209",
            f"no float64 reference ({missing}); rounding was judged by the response to noise",
        )
        return [_as_double(run) for run in base.runs], _larger(response, base.spread), "noise"

    def _distrusted(self, base: Outcome, reference: Reference) -> str | None:
        for output in self._outputs:
            truth, native, ran = (
                reference.runs[0][output],
                reference.native[output],
                base.runs[0][output],
            )
            if not is_floating(ran.dtype) or truth.shape != ran.shape or not truth.size:
                continue
            own, there = largest_change(native, truth), largest_change(ran, truth)
            peak = largest_change(truth, np.zeros_like(truth))
            # Runtimes compute sigmoids to an absolute accuracy, however small the value.
            floor = ulp(max(peak, 1.0) if output in self._saturating else peak, ran.dtype)
            if there > DISTRUST * max(own, floor):
                return f"onnxruntime and the evaluator disagree on output '{output}' by {there:.2g}"
        return None

    def _noise_response(self, provider: str, base: Outcome) -> dict[str, float] | None:
        if self._noise is not None:
            return self._noise
        assert self._runtime is not None
        batches = noisy_batches(self._batches, self._options.seed)
        response = dict.fromkeys(self._outputs, 0.0)
        for path in noisy_models(self._original, self._runtime.folder, self._options.seed):
            moved = run_model(self._runtime, path, provider, batches, self._outputs, optimize=False)
            if moved.status != "ok":
                return None
            for run, other in zip(base.runs, moved.runs, strict=True):
                for name in self._outputs:
                    response[name] = max(response[name], largest_change(run[name], other[name]))
        self._noise = {name: FACTOR * change for name, change in response.items()}
        return self._noise

    def _check_optimised_original(
        self, provider: str, found: Sweep, truth: Sequence[Arrays], response: dict[str, float]
    ) -> bool:
        """Compares the original with itself optimised; returns whether that runs."""
        base, outcome = found.original[False], found.original[True]
        self._list(provider, "original", True, outcome)
        if outcome.status != "ok":
            self._ledger.add(
                "warning",
                "NF210",
                f"{_short(provider)} cannot run the original with optimisations on: {outcome.detail}",
            )
            return False
        for output in self._outputs:
            judgement = self._judge(output, truth, base.runs, outcome.runs, response.get(output, 0.0))
            if judgement.status == "fail":
                self._ledger.add(
                    "warning",
                    "NF210",
                    f"{_short(provider)} changes output '{output}' of the original: {judgement.reason}",
                )
        return True

    def _judge(
        self,
        output: str,
        truth: Sequence[Arrays],
        original: Sequence[Arrays],
        folded: Sequence[Arrays],
        response: float,
    ) -> Judgement:
        return judge(
            output,
            column(truth, output),
            column(original, output),
            column(folded, output),
            response=response,
            allow_nonfinite=self._options.allow_nonfinite,
        )

    def _enter(self, judgement: Judgement, provider: str, optimize: bool) -> None:
        if judgement.at_floor and judgement.output in self._saturating:
            self.silent.add(judgement.output)
        where = f"output '{judgement.output}' on {_short(provider)}"
        ran = provider if provider != EVALUATOR else None

        def remark(weight: Weight, code: str, sentence: str) -> None:
            self.remarks.append(Remark(judgement.output, weight, code, sentence, ran, optimize))

        if judgement.status == "fail":
            plain = not any(
                entry["output"] == judgement.output and entry["status"] == "fail"
                for entry in self._report.rounding[:-1]
                if entry["provider"] == _short(provider)
            )
            code = "NF215" if optimize and plain else "NF203"
            remark(weight="fail", code=code, sentence=f"{where}{_level(optimize)}: {judgement.reason}")
        elif judgement.status == "nonfinite":
            remark(weight="fail", code="NF206", sentence=f"{where}: {judgement.reason}")
        elif judgement.status == "uncertain":
            remark(weight="inconclusive", code="NF211", sentence=f"{where}: {judgement.reason}")
        if judgement.flips is not None and judgement.flips.beyond:
            flips = f"{judgement.flips.beyond} of {judgement.flips.rows} rows change their label"
            sentence = f"{where}{_level(optimize)}: {flips} by more than rounding"
            remark(weight="fail", code="NF218", sentence=sentence)

    def _check_tolerances(
        self, provider: str, optimize: bool, original: Sequence[Arrays], folded: Sequence[Arrays]
    ) -> None:
        for output in self._outputs:
            sentence = within(
                output,
                column(original, output),
                column(folded, output),
                self._options.rtol,
                self._options.atol,
            )
            if sentence is not None:
                self._ledger.add("fail", "NF214", f"{sentence} on {_short(provider)}{_level(optimize)}")

    def _in_evaluator(self, reference: Reference) -> None:
        """The comparison where no provider ran the original: both models in the evaluator, in their own
        types."""
        if reference.missing is not None:
            self._ledger.add("inconclusive", "NF209", f"no model was run end to end: {reference.missing}")
            return
        runs: list[list[Arrays]] = []
        watch = Watch(self._options)
        try:
            for model in (self._original, self._folded):
                native = Evaluator(model, precision="native")
                runs.append([watch.run(native, batch, self._outputs) for batch in self._batches])
        except (NotCovered, OverBudget) as error:
            self._ledger.add("inconclusive", "NF209", f"no model was run end to end: {error}")
            return
        for output in self._outputs:
            judgement = self._judge(output, reference.runs, runs[0], runs[1], reference.response[output])
            self._report.rounding.append(judgement.as_dict(EVALUATOR, False, "float64"))
            self._enter(judgement, EVALUATOR, False)
        self._check_tolerances(EVALUATOR, False, runs[0], runs[1])


def _larger(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: max(a.get(name, 0.0), b.get(name, 0.0)) for name in a | b}


def _as_double(run: Arrays) -> Arrays:
    return {
        name: array.astype(np.float64) if is_floating(array.dtype) else array for name, array in run.items()
    }


def _level(optimize: bool) -> str:
    return " with optimisations on" if optimize else ""


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()
