"""One run of a command: its report, its clock, its errors, and the steps that commands share."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import onnx_ir as ir

from normfold import loading
from normfold.collector import collector_paused
from normfold.errors import Inconclusive, InputError, MissingDependency, NormfoldError, VerificationFailed
from normfold.loading import ModelLike, Source
from normfold.options import FoldOptions
from normfold.progress import Progress, listening
from normfold.reporting.environment import tool_versions
from normfold.reporting.neighbourhoods import site_graphs
from normfold.reporting.provenance import KEY, provenance_entry
from normfold.reporting.report import Finding, Report, Verification

if TYPE_CHECKING:
    from normfold.folding import Folded, Prepared
    from normfold.planning.norm_forms import Form
    from normfold.planning.targets import Judge
    from normfold.verification import ImageOptions, VerifyOptions
    from normfold.verification.options import DataSource

_MOST_ELEMENTS = 2**28
"""Of one input: a process that takes all memory is killed, and can say nothing."""


class Run:
    """One command: its report, its clock, and the rule that every error leaves with the report attached."""

    def __init__(
        self,
        command: Literal["fold", "inspect", "verify", "bench", "consistency", "calibrate"],
        progress: Progress | None,
    ) -> None:
        self.report = Report(command, tool=tool_versions())
        self._progress = progress
        self._prepared: Prepared | None = None
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
        if self._progress is not None:
            self._progress(name)
        began = time.perf_counter()
        try:
            with listening(self._progress):
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

    def examine(self, source: Source, *, freeze_initializers: bool) -> None:
        """Fills the report's findings with what the model alone betrays of training and evaluation."""
        from normfold.consistency.static import findings_in
        from normfold.folding import prepare

        with self.building("prepare"):
            self._prepared = prepare(source.model, freeze_initializers=freeze_initializers)
        with self.building("examine"):
            self.report.findings += findings_in(self._prepared.workspace)

    def compare_statistics(self, source: Source, data: DataSource, image: ImageOptions | None) -> bool:
        """Adds what data say of the running statistics; returns whether they were enough to judge."""
        from normfold.consistency.batches import DataBatches, data_record
        from normfold.consistency.drift import data_findings
        from normfold.consistency.record import comparison_record, named

        with self.phase("statistics"):
            found = data_findings(
                source.model, DataBatches(source.model, data, image), progress=self._progress
            )
        self.report.findings += [named(finding) for finding in found.findings]
        self.report.consistency = comparison_record(found) | {"data": data_record(data)}
        return found.conclusive

    def examine_module(
        self,
        factory: str,
        weights: str | os.PathLike[str] | None,
        data: str | os.PathLike[str],
        image: ImageOptions | None = None,
    ) -> bool:
        """Adds what a torch module, its graph and data say; returns whether the data were enough."""
        try:
            from normfold.consistency.module import examine_module
        except ImportError as error:
            raise MissingDependency(
                f"--torch needs torch: pip install 'normfold[torch]' ({error})"
            ) from error
        from normfold.consistency.batches import data_record
        from normfold.consistency.record import comparison_record, named
        from normfold.consistency.static import static_findings

        with self.phase("module"):
            self.report.inputs.append({"path": factory})
            found = examine_module(factory, weights, data, image)
        self.report.findings += static_findings(found.model)
        self.report.findings += map(named, (*found.module.findings, *found.statistics.findings))
        self.report.consistency = comparison_record(found.statistics) | {
            "data": data_record(data),
            "module": {
                "outputs": [vars(output) for output in found.module.outputs],
                "buffers": [vars(buffer) for buffer in found.module.buffers],
                "train_skipped": found.module.train_skipped,
            },
        }
        return found.statistics.conclusive

    def calibrate(self, source: Source, data: DataSource, image: ImageOptions | None) -> ir.Model:
        """Estimates the running statistics anew; fills the report's findings with what that cannot repair."""
        from normfold.consistency.batches import DataBatches, data_record
        from normfold.consistency.calibration import calibrate
        from normfold.consistency.record import calibration_record, named

        with self.phase("calibrate"):
            done = calibrate(source.model, DataBatches(source.model, data, image), progress=self._progress)
        self.report.findings += [named(finding) for finding in done.findings]
        self.report.consistency = calibration_record(done) | {"data": data_record(data)}
        self.report.summary = {"layers": len(done.layers), "images": done.images}
        return done.model

    def fold(self, source: Source, options: FoldOptions, judge: Judge | None = None) -> Folded:
        """Folds in memory, and fills the report's sites and summary.

        Args:
            source: the model.
            options: what to do.
            judge: is asked about each form that a GroupNorm or InstanceNorm may be given.
        """
        from normfold.folding import fold_prepared, prepare
        from normfold.planning.targets import accept_every_form

        _refuse_unknown_names(source.model, options)
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.source is not source.model:
            with self.building("prepare"):
                prepared = prepare(source.model, freeze_initializers=options.freeze_initializers)
        with self.building("fold"):
            folded = fold_prepared(prepared, options, judge or accept_every_form)
            self.report.sites = list(folded.sites)
            self.report.summary = _summary(folded) | {"target": options.target}
            self.report.graphs = site_graphs(folded.original, folded.model, folded.sites)
            if folded.changed and options.provenance:
                self._record_provenance(folded, options)
        return folded

    def _record_provenance(self, folded: Folded, options: FoldOptions) -> None:
        metadata = folded.model.metadata_props
        metadata[KEY] = provenance_entry(
            self.report.tool["version"],
            self.report.inputs[0].get("sha256"),
            options.sha256(),
            folded.provenance,
            metadata.get(KEY),
        )

    def prove(
        self,
        source: Source,
        result: os.PathLike[str] | ir.Model,
        folded: Folded,
        fold_options: FoldOptions,
        options: VerifyOptions | None,
    ) -> None:
        """Verifies a fold, and raises unless it passes.

        Args:
            source: the original.
            result: the folded model, as a file where there is one.
            folded: what the fold did.
            fold_options: the options it was done with; small regions are folded again with the same.
            options: ``None`` to skip the proof.

        Raises:
            VerificationFailed: the verdict is ``fail``.
            Inconclusive: the verdict is ``inconclusive``.
        """
        if options is None:
            self.report.verification = Verification(messages=["verification was skipped"])
            return
        if not folded.changed:
            self.report.verification = Verification(
                "pass", messages=["nothing was folded, so nothing had to be proven"]
            )
            return
        from normfold.verification import verify_fold

        with self.phase("verify"):
            verification = verify_fold(
                source.origin,
                result,
                folded.original,
                folded.model,
                folded.exact,
                folded.sites,
                lambda region: _refold(region, fold_options, folded.forms),
                options,
            )
        self.report.verification = verification
        reason = verification.messages[0] if verification.messages else None
        if verification.verdict == "fail":
            raise VerificationFailed(reason or "the folded model differs from the original")
        if verification.verdict != "pass":
            raise Inconclusive(reason or "it could not be shown that the folded model equals the original")


def _refold(
    model: ir.Model, options: FoldOptions, forms: Mapping[str, Form | None]
) -> tuple[ir.Model, Mapping[str, Callable[[], Any]]]:
    from normfold.folding import fold_model
    from normfold.planning.targets import as_decided

    folded = fold_model(model, options, judge=as_decided(forms))
    return folded.model, folded.exact


def chosen_target(target: str | None, providers: Sequence[str]) -> str:
    """The runtime that normalisations are spelled for.

    Args:
        target: what was asked for.
        providers: the execution providers to verify on; without a target the first says it.

    Raises:
        InputError: NF900 if there is no such target.
    """
    from normfold.planning.targets import TARGETS, target_of

    if target is None:
        return target_of(providers[0] if providers else "cpu")
    if target not in TARGETS:
        raise InputError(f"no target is named {target!r}; there are {', '.join(TARGETS)}", code="NF900")
    return target


def chosen_form(form: str | None) -> str | None:
    """The form that normalisations are to have, as asked for.

    Raises:
        InputError: NF900 if there is no such form.
    """
    from normfold.planning.norm_forms import FORMS

    if form is not None and form not in (*FORMS, "keep"):
        raise InputError(
            f"no form of GroupNorm is named {form!r}; there are {', '.join(FORMS)} and keep", code="NF900"
        )
    return form


def _refuse_unknown_names(model: ir.Model, options: FoldOptions) -> None:
    from normfold.ledger import rule_of
    from normfold.planning.operators import TABLE

    rules = {rule_of(operator) for operator in TABLE}
    for rule in sorted(options.skip - rules):
        raise InputError(f"no rule is named {rule!r}; there are {', '.join(sorted(rules))}", code="NF900")
    tops = (model.graph, *(function.graph for function in model.functions.values()))
    values = {value.name for top in tops for node in top.all_nodes() for value in node.outputs}
    for name in sorted(options.keep - values):
        raise InputError(f"no node of the model produces a value named {name!r}", code="NF900")


def refuse_unfit_sizes(
    model: ir.Model, dims: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuses sizes of axes that the model does not have, which would be ignored, and inputs beyond memory.

    Raises:
        InputError: NF900.
    """
    if not (dims or shapes):
        return
    from normfold.verification.inputs import signature

    for name, shape in shapes.items():
        _refuse_beyond_memory(name, shape)
    try:
        specs = signature(model)
    except InputError:
        # An input without a shape: what is wrong with it is said where inputs are drawn.
        return
    known = {size for spec in specs for size in spec.shape if isinstance(size, str)}
    for name in sorted(dims.keys() - known):
        there = f"there are {', '.join(sorted(known))}" if known else "all its sizes are fixed"
        raise InputError(f"--dim: the model has no axis named {name!r}, {there}", code="NF900")
    for spec in specs:
        _refuse_beyond_memory(
            spec.name, [size if isinstance(size, int) else dims.get(size, 1) for size in spec.shape]
        )


def _refuse_beyond_memory(name: str, shape: Iterable[int]) -> None:
    if math.prod(shape) > _MOST_ELEMENTS:
        raise InputError(f"input {name!r} would have more than {_MOST_ELEMENTS} elements", code="NF900")


def _summary(folded: Folded) -> dict[str, Any]:
    from normfold.planning.opset import own_opset

    actions = Counter(site.action for site in folded.sites)
    return {
        "changed": folded.changed,
        "sites": len(folded.sites),
        **{action: actions.get(action, 0) for action in ("folded", "merged", "moved", "substituted", "kept")},
        "nodes": [_node_count(folded.original), _node_count(folded.model)],
        "opset": [own_opset(folded.original), own_opset(folded.model)],
    }


def _node_count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())
