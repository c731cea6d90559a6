"""The end-to-end comparison: two whole models from input to output, on inputs that the original accepts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir

from normfold.errors import InputError
from normfold.evaluation import Evaluator, NotCovered
from normfold.evaluation.nodes import Precision
from normfold.inputs.drawing import Arrays
from normfold.reporting.report import Verification
from normfold.runtime.client import Runtime, RuntimeCrashed, RuntimeRefused, write_model
from normfold.runtime.execution_providers import CPU
from normfold.verification.contract import signature_differences
from normfold.verification.endtoend.decisions import Cut, cut_model, find_cut, find_hidden, saturates, tapped
from normfold.verification.endtoend.exercised import unexercised
from normfold.verification.endtoend.headtohead import HeadToHead, Remark
from normfold.verification.endtoend.integers import telling_integers
from normfold.verification.endtoend.probing import EvaluatorProbe, RuntimeProbe
from normfold.verification.endtoend.providers import Outcome, run_model
from normfold.verification.endtoend.reference import OverBudget, Reference, Watch, observe
from normfold.verification.endtoend.selection import Selection, Unaccepted, all_finite, select
from normfold.verification.endtoend.trial import Trial
from normfold.verification.endtoend.untaken import conditions, inverted, same_branches, untaken
from normfold.verification.graph_index import GraphIndex, first_output, is_random
from normfold.verification.ledger import Ledger
from normfold.verification.location.failure import parts_at, save_failure
from normfold.verification.location.locate import Location, described, locate, sentence
from normfold.verification.location.matching import Twins, aligned
from normfold.verification.options import VerifyOptions
from normfold.verification.proof.boundary import Observation


class EndToEnd:
    """One comparison of two models from input to output.

    Args:
        original: the original.
        folded: the model to be judged.
        files: the files of both; ``None`` where onnxruntime is not installed.
        options: what the caller decided.
        runtime: the child process, ``None`` where onnxruntime is not installed.
        ledger: takes what speaks against a pass.
        verification: takes the numbers.
        of_a_fold: names mean the same in both models, and a proof by regions looks at what outputs hide.
    """

    def __init__(
        self,
        original: ir.Model,
        folded: ir.Model,
        files: tuple[Path, Path] | None,
        options: VerifyOptions,
        runtime: Runtime | None,
        ledger: Ledger,
        verification: Verification,
        *,
        of_a_fold: bool = False,
    ) -> None:
        self._original, self._folded = original, folded
        self._of_a_fold = of_a_fold
        self._files = files
        self._options = options
        self._runtime = runtime
        self._ledger = ledger
        self._report = verification
        self._outputs = [value.name or "" for value in original.graph.outputs]
        self._selection = Selection()
        self._known: dict[str, Outcome] = {}
        self._comparison: HeadToHead | None = None
        self._aligned: ir.Model | None = None

    def prepare(self) -> bool:
        """Compares the signatures and chooses the inputs.

        Returns:
            Whether there is anything to run.

        Raises:
            InputError: data or sizes that the caller gave do not fit the original.
        """
        for difference in signature_differences(self._original, self._folded):
            self._ledger.add("fail", "NF207", difference)
        for model, name in ((self._original, "original"), (self._folded, "other model")):
            random = next((node for graph in model.graphs() for node in graph if is_random(node)), None)
            if random is not None:
                what = "dropout in training mode" if random.op_type == "Dropout" else random.op_type
                self._ledger.add(
                    "inconclusive", "NF213", f"the {name} is random: {what} at '{first_output(random)}'"
                )
                return False
        if self._ledger.has("fail"):
            return False
        try:
            trial = Trial(self._original, self._files, self._runtime, self._outputs, self._options)
            self._selection = select(
                self._original, self._options, trial, self._objection, look_twice=not self._of_a_fold
            )
            if not self._of_a_fold and self._options.data is None:
                self._add_telling_integers(trial)
            self._known = trial.close(self._selection.batches)
        except InputError as error:
            if self._options.data is not None or self._options.shapes:
                raise
            self._selection = Selection(failure=str(error))
        self._report.inputs = self._selection.description
        failure = self._selection.failure
        if failure is None:
            return True
        if self._selection.nonfinite:
            self._ledger.add(
                "fail", "NF206", "the original's outputs hold NaN or Inf on every generated input"
            )
        else:
            self._ledger.add(
                "inconclusive", "NF208", f"no generated input runs, give --shape or --data: {failure}"
            )
        return False

    def _add_telling_integers(self, trial: Trial) -> None:
        """Adds a run with integers that select what differs in the models, if the original takes them."""
        if not self._selection.batches:
            return
        models = GraphIndex(self._original), GraphIndex(self._folded)
        told = telling_integers(*models, self._selection.batches[0])
        if told is None:
            return
        try:
            if all_finite(trial(told)) or self._options.allow_nonfinite:
                self._selection.add(told)
        except Unaccepted:
            return

    def observation(self, variant: int) -> Observation | None:
        """Shapes of the original's values on the chosen inputs, for the proof by regions."""
        if variant >= len(self._selection.batches) or (variant and not self._has_second_size()):
            return None
        try:
            return observe(self._original, self._selection.batches[-1 if variant else 0], self._options)
        except NotCovered:
            return None

    def _has_second_size(self) -> bool:
        first, last = self._selection.batches[0], self._selection.batches[-1]
        return any(first[name].shape != last[name].shape for name in first)

    def _objection(self, batch: Arrays) -> str | None:
        """Why the evaluator rejects an input: runtimes are not always strict about sizes."""
        try:
            observe(self._original, batch, self._options)
        except NotCovered as error:
            return str(error)
        return None

    def begin(self) -> HeadToHead:
        """Starts the runs in onnxruntime, which take place while this process does other work."""
        index, other = GraphIndex(self._original), GraphIndex(self._folded)
        saturated = [name for name in self._outputs if saturates(index, name)]
        cut = find_cut(index, other, saturated) if saturated else None
        self._comparison = HeadToHead(
            self._original,
            self._folded,
            self._files,
            self._selection.batches,
            self._options,
            self._runtime,
            self._ledger,
            self._report,
            known=self._known,
            inside=cut.outputs if cut is not None and not cut.fed else (),
            in_float64=not self._of_a_fold,
        )
        self._comparison.begin()
        return self._comparison

    def run(self) -> None:
        """Runs both models everywhere and judges every output, in front of decisions where it must be."""
        comparison = self._comparison or self.begin()
        comparison.run()
        in_question = {remark.output for remark in comparison.remarks if remark.code != "NF206"}
        settled = in_question if in_question and self._settled_in_front(in_question) else set()
        for entry in self._report.rounding:
            if entry["output"] in settled and entry["status"] != "pass":
                entry["status"] = "settled"
        remarks = [remark for remark in comparison.remarks if remark.output not in settled]
        for remark in remarks:
            self._ledger.add(remark.weight, remark.code, remark.sentence)
        if not any(remark.weight == "fail" for remark in remarks):
            remarks += self._remarks_inside(comparison.silent - in_question, set(self._outputs) - in_question)
            if not self._of_a_fold:
                self._enter_untaken_branches()
                self._enter_unexercised()
        wrong = next((remark for remark in remarks if remark.code in ("NF203", "NF215")), None)
        if wrong is not None and not self._report.located:
            self._locate(wrong)

    def _locate(self, wrong: Remark) -> None:
        """Finds the first difference behind an output that fails, reports it, and saves it where asked to."""
        models = self._original, self._folded
        probe: RuntimeProbe | EvaluatorProbe | None = None

        def open_probe(pairs: Twins) -> RuntimeProbe | EvaluatorProbe:
            nonlocal probe
            batches, output, seed = self._selection.batches, wrong.output, self._options.seed
            if self._runtime is not None and wrong.provider is not None:
                probe = RuntimeProbe(
                    models,
                    pairs,
                    batches,
                    output,
                    self._runtime,
                    wrong.provider,
                    optimize=wrong.optimize,
                    seed=seed,
                )
            else:
                precision: Precision = "float64" if wrong.float64 else "native"
                probe = EvaluatorProbe(models, pairs, batches, output, self._options, precision)
            return probe

        try:
            location = locate(*models, wrong.output, open_probe)
            if location is None:
                self._ledger.add(
                    "warning",
                    "NF217",
                    f"output '{wrong.output}' agrees as soon as values inside are read, which keeps the "
                    "runtime from fusing nodes: the difference arises there",
                )
                return
            assert probe is not None
            self._report.located = described(location)
            if self._options.save_failure is not None:
                self._save(location, probe)
            self._ledger.add("warning", "NF217", sentence(self._report.located))
        except (RuntimeRefused, RuntimeCrashed, NotCovered, OverBudget) as error:
            self._ledger.add("warning", "NF217", f"the first difference was not located: {error}")

    def _save(self, location: Location, probe: RuntimeProbe | EvaluatorProbe) -> None:
        assert self._options.save_failure is not None
        names = [left.name or "" for left, _ in location.boundary]
        inputs = dict(probe.batch)
        inputs |= {
            value.name or "": value.const_value.numpy()
            for value in self._original.graph.inputs
            if value.const_value is not None
        }
        computed = [name for name in names if name not in inputs]
        if computed:
            inputs |= probe(
                computed, [right.name or "" for left, right in location.boundary if left.name in computed]
            )[0]
        folder = Path(self._options.save_failure)
        read = {name: inputs[name] for name in names}
        save_failure(folder, *parts_at(location), read, sentence(self._report.located))
        self._report.located["saved"] = str(folder)

    def _settled_in_front(self, outputs: Collection[str]) -> bool:
        """Whether outputs agree in front of what decides or saturates, and behind equal decisions."""
        folded = self._named_alike()
        cut = find_cut(GraphIndex(self._original), GraphIndex(folded), outputs)
        found = self._compare_cut(cut, folded, self._selection.batches) if cut is not None else None
        if found is None:
            return False
        comparison, ledger, report = found
        self._report.rounding.extend(report.rounding)
        return not comparison.remarks and ledger.verdict == "pass"

    def _remarks_inside(self, silent: Collection[str], agreeing: Collection[str]) -> list[Remark]:
        """Enters what speaks against values that outputs which agree would hide.

        Args:
            silent: outputs that rounding hardly moves: an error may not move them either.
            agreeing: outputs that may stand behind decisions.
        """
        folded = self._named_alike()
        indices = GraphIndex(self._original), GraphIndex(folded)
        cut = find_hidden(*indices, () if self._of_a_fold else agreeing, silent)
        found = self._compare_cut(cut, folded, self._selection.batches[:1]) if cut is not None else None
        if found is None:
            return []
        comparison, _, report = found
        self._report.rounding.extend(entry for entry in report.rounding if entry["optimizations"] == "off")
        remarks = [remark for remark in comparison.remarks if _of_the_models(remark)]
        for remark in remarks:
            self._ledger.add("fail", remark.code, f"where outputs do not show it, {remark.sentence}")
        return remarks

    def _enter_untaken_branches(self) -> None:
        """Runs both models with the conditions inverted that came out the same in every run."""
        folded = self._named_alike()
        wanted = conditions(GraphIndex(self._original), GraphIndex(folded))
        runs = self._read(list(dict.fromkeys(wanted.values())), self._selection.batches)
        ifs = untaken(wanted, runs) if runs else []
        if not ifs:
            return
        models = inverted(self._original, ifs), inverted(folded, ifs)
        comparison, _, report = self._head_to_head(*models, self._selection.batches[:1], "inverted")
        for remark in comparison.remarks:
            if _of_the_models(remark):
                self._ledger.add("fail", remark.code, f"in a branch that no input takes, {remark.sentence}")
        self._report.rounding.extend(entry for entry in report.rounding if entry["status"] != "pass")
        if not report.rounding:
            for name in ifs:
                if not same_branches(self._original, folded, name):
                    sentence = f"the If that makes '{name}' takes one branch only, and the other does not run"
                    self._ledger.add("inconclusive", "NF220", f"{sentence} on the same inputs")

    def _enter_unexercised(self) -> None:
        """Enters constants that differ and that no input lets reach an output."""
        if self._ledger.has("fail"):
            return
        batches = self._selection.batches

        def run(model: ir.Model) -> list[Arrays] | None:
            return self._run(model, "changed", self._outputs, batches)

        for name in unexercised(GraphIndex(self._original), GraphIndex(self._folded), run):
            sentence = f"a constant in front of '{name}' differs, and no input lets it show"
            self._ledger.add("inconclusive", "NF221", sentence)

    def _named_alike(self) -> ir.Model:
        """The folded model, values that correspond named as in the original."""
        if self._of_a_fold:
            return self._folded
        if self._aligned is None:
            self._aligned = aligned(GraphIndex(self._original), GraphIndex(self._folded))
        return self._aligned

    def _compare_cut(
        self, cut: Cut, other: ir.Model, batches: Sequence[Arrays]
    ) -> tuple[HeadToHead, Ledger, Verification] | None:
        """Compares both models, cut in front of what decides or saturates; ``None`` where that cannot be."""
        decided = self._read(cut.fed, batches)
        if decided is None:
            return None
        original = cut_model(self._original, cut, decided[0])
        folded = cut_model(other, cut, decided[0])
        read = {value.name for model in (original, folded) for value in model.graph.inputs}
        feeds = [
            {name: array for name, array in {**batch, **values}.items() if name in read}
            for batch, values in zip(batches, decided, strict=True)
        ]
        reference = None
        if not cut.fed and self._comparison is not None and self._comparison.reference is not None:
            reference = self._comparison.reference.of(cut.outputs, len(batches))
        return self._head_to_head(original, folded, feeds, "cut", reference)

    def _head_to_head(
        self,
        original: ir.Model,
        folded: ir.Model,
        feeds: Sequence[Arrays],
        name: str,
        reference: Reference | None = None,
    ) -> tuple[HeadToHead, Ledger, Verification]:
        """Compares two models made of the original and the folded one, in a ledger and report of its own."""
        files = None
        if self._runtime is not None:
            folder = self._runtime.folder
            files = (
                write_model(original, folder, f"{name}-original"),
                write_model(folded, folder, f"{name}-folded"),
            )
        ledger, report = Ledger(), Verification()
        comparison = HeadToHead(
            original,
            folded,
            files,
            feeds,
            self._options,
            self._runtime,
            ledger,
            report,
            reference=reference,
            in_float64=not self._of_a_fold,
        )
        comparison.run()
        return comparison, ledger, report

    def _read(self, names: Sequence[str], batches: Sequence[Arrays]) -> list[Arrays] | None:
        """What values of the original's main graph are in each run; ``None`` where that cannot be had."""
        if not names:
            return [{} for _ in batches]
        return self._run(tapped(self._original, names), "read", names, batches)

    def _run(
        self, model: ir.Model, stem: str, names: Sequence[str], batches: Sequence[Arrays]
    ) -> list[Arrays] | None:
        """Outputs of a model in its own types, in each run; ``None`` where it does not run."""
        if self._runtime is not None:
            path = write_model(model, self._runtime.folder, stem)
            outcome = run_model(self._runtime, path, CPU, batches, names, optimize=False)
            if outcome.status == "ok":
                return outcome.runs
        evaluator, watch = Evaluator(model, precision="native"), Watch(self._options)
        try:
            return [watch.run(evaluator, batch, names) for batch in batches]
        except (NotCovered, OverBudget):
            return None


def _of_the_models(remark: Remark) -> bool:
    """Whether it speaks against a model itself; what a runtime's optimiser does is judged by outputs."""
    return remark.weight == "fail" and not remark.optimize
