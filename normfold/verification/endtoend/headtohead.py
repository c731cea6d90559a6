"""Two model files on the same inputs, on every provider, judged by the original's own rounding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from normfold.evaluation import Evaluator, NotCovered
from normfold.inputs.drawing import Arrays, is_floating
from normfold.reporting.report import Verification
from normfold.runtime.client import Runtime
from normfold.runtime.execution_providers import CPU, provider_name, short_name
from normfold.verification.endtoend.decisions import saturates
from normfold.verification.endtoend.providers import Outcome, without_kernel
from normfold.verification.endtoend.reference import (
    OverBudget,
    Reference,
    Watch,
    float64_reference,
    largest_change,
)
from normfold.verification.endtoend.sweep import Sweep, sweep
from normfold.verification.endtoend.truth import Truth, distrusted, from_noise, from_reference, noise_response
from normfold.verification.graph_index import GraphIndex
from normfold.verification.ledger import Ledger, Weight
from normfold.verification.options import VerifyOptions
from normfold.verification.rounding import FACTOR, ULPS, Judgement, column, judge, rounding_of, ulp, within

EVALUATOR = "evaluator"

WEIGHTS_FACTOR = 2.0
"""In float64 the folded model may differ by this many times what newly rounded weights do; see
docs/decisions/0003-rounding-bound.md."""


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
        float64: whether it was seen in float64, where rounding of operators plays no part.
    """

    output: str
    weight: Weight
    code: str
    sentence: str
    provider: str | None = None
    optimize: bool = False
    float64: bool = False


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
        in_float64: run the folded model in float64 too. Without a proof by regions, that is what shows errors
            too small to be told from the rounding of operators.

    Attributes:
        reference: float64 outputs of the original, and of values inside; ``None`` before the run.
        remarks: what speaks against single outputs.
        silent: outputs that rounding hardly moves: an error might not move them either.
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
        in_float64: bool = False,
    ) -> None:
        self._in_float64 = in_float64
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
        self._operators = len(index.position)
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
                    f"{short_name(provider)} was not exercised: it has no kernel of {lacking}",
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
        if self._in_float64 and self.reference.missing is None:
            self._judge_in_float64(self.reference)

    def _judge_sweep(self, provider: str, found: Sweep, reference: Reference) -> bool:
        """Judges what the models did on one provider; returns whether the original ran there."""
        base = found.original[False]
        self._list(provider, "original", False, base)
        if base.status != "ok":
            self._not_exercised(provider, self._named(provider), base)
            return False
        truth = self._truth(provider, base, reference)
        if truth is None:
            return True
        optimised: dict[str, float] | None = {}
        for optimize in (False, True):
            if optimize:
                optimised = self._check_optimised_original(provider, found, truth)
            outcome = found.folded[optimize]
            self._list(provider, "folded", optimize, outcome)
            if outcome.status != "ok":
                self._refused(provider, optimize, outcome, optimised is not None)
                continue
            for output in self._outputs:
                also = (optimised or {}).get(output, 0.0)
                judgement = self._judge(output, truth, base.runs, outcome.runs, also)
                self._report.rounding.append(judgement.as_dict(short_name(provider), optimize, truth.source))
                self._enter(judgement, provider, optimize)
            self._check_tolerances(provider, optimize, base.runs, outcome.runs)
        self._list_relaxed(provider, found, truth.runs)
        return True

    def _list(self, provider: str, name: str, optimize: bool, outcome: Outcome) -> None:
        self._report.providers.append(outcome.as_dict(short_name(provider), name, optimize))

    def _list_relaxed(self, provider: str, found: Sweep, truth: Sequence[Arrays]) -> None:
        """Enters how far both models are off with TF32, which is no part of the verdict."""
        for name, outcome in found.relaxed.items():
            entry = outcome.as_dict(short_name(provider), name, optimize=True)
            entry["tf32"] = {
                output: max(
                    largest_change(t[output], r[output]) for t, r in zip(truth, outcome.runs, strict=True)
                )
                for output in self._outputs
                if outcome.runs
            }
            self._report.providers.append(entry)

    def _not_exercised(self, provider: str, named: bool, outcome: Outcome) -> None:
        sentence = f"{short_name(provider)} was not exercised: {outcome.detail}"
        if outcome.status == "crashed":
            self._ledger.add(
                "inconclusive", "NF205", f"{short_name(provider)} on the original: {outcome.detail}"
            )
        elif named:
            self._ledger.add("inconclusive", "NF204", sentence)
        else:
            self._ledger.add("warning", "NF204", sentence)

    def _refused(self, provider: str, optimize: bool, outcome: Outcome, optimisable: bool) -> None:
        where = f"{short_name(provider)}, optimisations {'on' if optimize else 'off'}"
        if not optimisable:
            self._ledger.add("warning", "NF210", f"{where}: like the original, the folded model does not run")
        elif outcome.status == "crashed":
            self._ledger.add("inconclusive", "NF205", f"{where}, on the folded model: {outcome.detail}")
        else:
            self._ledger.add("fail", "NF212", f"{where}: {outcome.detail}")

    def _truth(self, provider: str, base: Outcome, reference: Reference) -> Truth | None:
        """What outputs there are compared with; ``None`` where there is nothing, which is entered."""
        missing = reference.missing or distrusted(reference, base, self._outputs, self._saturating)
        if missing is None:
            return from_reference(reference, base)
        assert self._runtime is not None
        if self._noise is None:
            self._noise = noise_response(
                self._runtime, self._original, provider, self._batches, base, self._options.seed
            )
        if self._noise is None:
            self._ledger.add(
                "inconclusive", "NF209", f"no float64 reference ({missing}), and noise could not be measured"
            )
            return None
        self._ledger.add(
            "warning",
            "NF209",
            f"no float64 reference ({missing}); rounding was judged by the response to noise",
        )
        return from_noise(self._noise, base)

    def _check_optimised_original(self, provider: str, found: Sweep, truth: Truth) -> dict[str, float] | None:
        """Compares the original with itself optimised.

        Returns:
            Its error per output where that is rounding; ``None`` where it does not run.
        """
        base, outcome = found.original[False], found.original[True]
        self._list(provider, "original", True, outcome)
        if outcome.status != "ok":
            self._ledger.add(
                "warning",
                "NF210",
                f"{short_name(provider)} cannot run the original with optimisations on: {outcome.detail}",
            )
            return None
        errors = {}
        for output in self._outputs:
            judgement = self._judge(output, truth, base.runs, outcome.runs)
            dtype = base.runs[0][output].dtype
            allowed = rounding_of(self._operators, judgement.peak, dtype) if is_floating(dtype) else 0.0
            if judgement.status == "pass" or judgement.e1 <= max(allowed, FACTOR * judgement.bound):
                errors[output] = judgement.e1
            elif judgement.status == "fail":
                self._ledger.add(
                    "warning",
                    "NF210",
                    f"{short_name(provider)} changes output '{output}' of the original: {judgement.reason}",
                )
        return errors

    def _judge(
        self,
        output: str,
        truth: Truth,
        original: Sequence[Arrays],
        folded: Sequence[Arrays],
        optimised: float = 0.0,
    ) -> Judgement:
        return judge(
            output,
            column(truth.runs, output),
            column(original, output),
            column(folded, output),
            response=truth.response.get(output, 0.0),
            optimised=optimised,
            allow_nonfinite=self._options.allow_nonfinite,
        )

    def _enter(self, judgement: Judgement, provider: str, optimize: bool) -> None:
        if judgement.bound <= FACTOR * judgement.floor:
            self.silent.add(judgement.output)
        where = f"output '{judgement.output}' on {short_name(provider)}"
        ran = provider if provider != EVALUATOR else None

        def remark(weight: Weight, code: str, sentence: str) -> None:
            self.remarks.append(Remark(judgement.output, weight, code, sentence, ran, optimize))

        if judgement.status == "fail":
            plain = not any(
                entry["output"] == judgement.output and entry["status"] == "fail"
                for entry in self._report.rounding[:-1]
                if entry["provider"] == short_name(provider)
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
                self._ledger.add("fail", "NF214", f"{sentence} on {short_name(provider)}{_level(optimize)}")

    def _judge_in_float64(self, reference: Reference) -> None:
        """Compares both models in float64 on the first inputs, where only the rounding of weights differs.

        The evaluator is believed where it agrees with the runs in the models' own types.
        """
        in_question = {remark.output for remark in self.remarks}
        left = max(self._options.budget_seconds - reference.seconds, 0.0)
        watch = Watch(replace(self._options, budget_seconds=left))
        try:
            other = watch.run(Evaluator(self._folded), self._batches[0], self._outputs)
        except (NotCovered, OverBudget):
            return
        for output in self._outputs:
            truth, dtype = reference.runs[0][output], reference.native[output].dtype
            if not is_floating(dtype) or output in in_question or truth.shape != other[output].shape:
                continue
            error = largest_change(truth, other[output])
            peak = largest_change(truth, np.zeros_like(truth))
            allowed = max(WEIGHTS_FACTOR * reference.response[output], ULPS * ulp(peak, dtype))
            believed = max(
                (entry["bound"] or 0.0 for entry in self._report.rounding if entry["output"] == output),
                default=0.0,
            )
            if allowed < error <= believed:
                sentence = f"output '{output}' in float64: error {error:.3g} where {allowed:.3g} is allowed"
                self.remarks.append(Remark(output, "fail", "NF203", sentence, float64=True))

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
        truth = Truth(reference.runs, reference.response, "float64")
        for output in self._outputs:
            judgement = self._judge(output, truth, runs[0], runs[1])
            self._report.rounding.append(judgement.as_dict(EVALUATOR, False, "float64"))
            self._enter(judgement, EVALUATOR, False)
        self._check_tolerances(EVALUATOR, False, runs[0], runs[1])


def _level(optimize: bool) -> str:
    return " with optimisations on" if optimize else ""
