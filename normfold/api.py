"""The public functions: files in, proof, files out."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

import onnx_ir as ir

from normfold import loading
from normfold.errors import Inconclusive, InputError, NormfoldError, VerificationFailed
from normfold.loading import ModelLike, SavedFiles, Source
from normfold.options import FoldOptions
from normfold.reporting.environment import tool_versions
from normfold.reporting.provenance import KEY, provenance_entry
from normfold.reporting.report import Finding, Report, Verification

if TYPE_CHECKING:
    import onnx

    from normfold.folding import Folded
    from normfold.verification import VerifyOptions

Progress = Callable[[str], None]
"""Is told the name of each phase when it begins."""


class VerifyArguments(TypedDict, total=False):
    """Keyword arguments that decide about a proof; see ``normfold.verification.VerifyOptions``.

    Attributes:
        data: real inputs: a path, or arrays by input name with samples along axis 0.
        shapes: full shape of inputs with dynamic axes, by input name.
        dims: size of named dynamic axes.
        providers: onnxruntime execution providers that must run both models, such as ``["cpu", "cuda"]``.
        seed: seed of generated inputs.
        thorough: all families and sizes of inputs, without a time budget.
        allow_nonfinite: accept NaN and Inf where the original gives the same.
        rtol: largest accepted relative difference, on top of the rounding bound.
        atol: largest accepted absolute difference, on top of the rounding bound.
        budget_seconds: time that float64 references may take.
    """

    data: str | os.PathLike[str] | Mapping[str, Any] | None
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, int]
    providers: Iterable[str]
    seed: int
    thorough: bool
    allow_nonfinite: bool
    rtol: float | None
    atol: float | None
    budget_seconds: float


@dataclass(frozen=True)
class FoldResult:
    """What a fold made.

    Attributes:
        model: the folded model; where nothing changed it is equivalent to the input.
        report: what was folded, what was kept and why, and the proof.
        changed: whether anything was folded.
    """

    model: ir.Model
    report: Report
    changed: bool
    _source: Source = field(repr=False)

    def proto(self) -> onnx.ModelProto:
        """Returns the folded model as a protobuf of its own, weights inside.

        Raises:
            OutputError: NF921 if it would be above the 2 GB limit of protobuf.
        """
        return loading.to_proto(self.model)

    def save(self, path: str | os.PathLike[str]) -> SavedFiles:
        """Writes the folded model atomically; a byte copy of the input file where nothing changed.

        Raises:
            OutputError: NF920 or NF921.
        """
        if self._source.is_file(path):
            self._source.map_weights()
        with self._source.stage(self.model, path, changed=self.changed) as staged:
            return staged.publish()


def fold(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    freeze_initializers: bool = False,
    fold_norm_affine: bool = False,
    provenance: bool = True,
    verify: bool = True,
    progress: Progress | None = None,
    **checks: Unpack[VerifyArguments],
) -> FoldResult:
    """Folds a model, proves the result and, if ``output`` is given, writes it.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        output: path of the result (``-`` for standard output); may be the input's. Written atomically, and
            only after the proof.
        skip: names of rules that are not to be applied.
        keep: names of values whose producers are to stay as they are.
        freeze_initializers: initializers that are also graph inputs are constants.
        fold_norm_affine: fold the affine of a normalisation into a following linear operator even where that
            removes no node.
        provenance: record in the result's metadata what was folded.
        verify: prove the result. Without it the report's verdict is ``None``.
        progress: is called with the name of each phase when it begins.
        **checks: how to prove; see ``VerifyArguments``.

    Returns:
        The folded model and the report.

    Raises:
        InputError: the model or an option cannot be used.
        OutputError: the result cannot be written.
        VerificationFailed: the proof failed; nothing was written.
        Inconclusive: the proof could not decide; nothing was written.
        MissingDependency: an optional package is needed.

    All of them carry ``report``.
    """
    options = FoldOptions(frozenset(skip), frozenset(keep), freeze_initializers, fold_norm_affine, provenance)
    with _Run("fold", progress) as run:
        proof = _verify_options(checks, freeze_initializers) if verify else None
        source = run.load(model)
        folded = run.fold(source, options)
        result = FoldResult(folded.model, run.report, folded.changed, source)
        if output is None:
            run.prove(source, folded.model, folded, options, proof)
            return result
        if source.is_file(output):
            if not folded.changed:
                run.prove(source, folded.model, folded, options, proof)
                run.report.outputs.append(source.describe())
                return result
            source.map_weights()
        with run.phase("stage"):
            staged = source.stage(folded.model, output, changed=folded.changed)
        with staged:
            run.prove(source, staged.path, folded, options, proof)
            with run.phase("write"):
                run.report.outputs.append(staged.publish().describe())
    return result


def inspect(
    model: ModelLike,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    freeze_initializers: bool = False,
    fold_norm_affine: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Lists every normalisation and constant affine of a model, and what a fold would do to it.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        skip: as for ``fold``.
        keep: as for ``fold``.
        freeze_initializers: as for ``fold``.
        fold_norm_affine: as for ``fold``.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report; its verdict is ``None``.

    Raises:
        InputError: the model or an option cannot be used.
    """
    options = FoldOptions(frozenset(skip), frozenset(keep), freeze_initializers, fold_norm_affine)
    with _Run("inspect", progress) as run:
        run.fold(run.load(model), options)
    return run.report


def verify(
    a: ModelLike,
    b: ModelLike,
    *,
    freeze_initializers: bool = False,
    progress: Progress | None = None,
    **checks: Unpack[VerifyArguments],
) -> Report:
    """Compares two models.

    Args:
        a: the original: path, protobuf or onnx_ir model.
        b: what is to mean the same.
        freeze_initializers: initializers that are also graph inputs are constants.
        progress: is called with the name of each phase when it begins.
        **checks: how to prove; see ``VerifyArguments``.

    Returns:
        The report. ``report.exit`` is 0 if the models agree, 1 if they differ, 3 if that is undecided.

    Raises:
        InputError: a model or an option cannot be used.
        MissingDependency: an optional package is needed.
    """
    from normfold.verification import verify_models

    with _Run("verify", progress) as run:
        proof = _verify_options(checks, freeze_initializers)
        first, second = run.load(a), run.load(b)
        with run.phase("verify"):
            run.report.verification = verify_models(first.origin, second.origin, proof)
        run.report.exit = _EXIT_OF_VERDICT[run.report.verification.verdict]
    return run.report


class FoldPass(ir.passes.FunctionalPass):
    """The fold as an onnx_ir pass: gives a new model and leaves its argument as it is.

    Attributes:
        report: of the last call.
    """

    def __init__(
        self,
        options: FoldOptions | None = None,
        *,
        verify: bool = True,
        **checks: Unpack[VerifyArguments],
    ) -> None:
        """Makes the pass.

        Args:
            options: of the fold.
            verify: prove the result of each call.
            **checks: how to prove; see ``VerifyArguments``.
        """
        super().__init__()
        self._options = options if options is not None else FoldOptions()
        self._verify = verify
        self._checks = checks
        self.report: Report | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Folds ``model``.

        Raises:
            NormfoldError: as ``fold``.
        """
        chosen = self._options
        result = fold(
            model,
            skip=chosen.skip,
            keep=chosen.keep,
            freeze_initializers=chosen.freeze_initializers,
            fold_norm_affine=chosen.fold_norm_affine,
            provenance=chosen.provenance,
            verify=self._verify,
            **self._checks,
        )
        self.report = result.report
        return ir.passes.PassResult(result.model, result.changed)


_EXIT_OF_VERDICT: dict[str | None, int] = {
    "pass": 0,
    "fail": VerificationFailed.exit_code,
    "inconclusive": Inconclusive.exit_code,
    None: 0,
}


class _Run:
    """One command: its report, its clock, and the rule that every error leaves with the report attached."""

    def __init__(self, command: Literal["fold", "inspect", "verify"], progress: Progress | None) -> None:
        self.report = Report(command, tool=tool_versions())
        self._progress = progress
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.report.timing["total"] = time.perf_counter() - self._began
        if isinstance(error, NormfoldError):
            self.report.exit = error.exit_code
            error.report = self.report
            if error.code is not None:
                self.report.findings.append(Finding(error.code, "error", str(error)))

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announces and times one phase; seconds add up where a phase comes twice."""
        if self._progress is not None:
            self._progress(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - began
            self.report.timing[name] = self.report.timing.get(name, 0.0) + elapsed

    def load(self, model: ModelLike) -> Source:
        with self.phase("load"):
            name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
            self.report.inputs.append({"path": name})
            source = loading.open_source(model)
            self.report.inputs[-1] = source.describe()
        return source

    def fold(self, source: Source, options: FoldOptions) -> Folded:
        from normfold.folding import fold_model

        with self.phase("fold"):
            _refuse_unknown_names(source.model, options)
            folded = fold_model(source.model, options)
            self.report.sites = list(folded.sites)
            self.report.summary = _summary(folded)
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
                lambda region: _refold(region, fold_options),
                options,
            )
        self.report.verification = verification
        reason = verification.messages[0] if verification.messages else None
        if verification.verdict == "fail":
            raise VerificationFailed(reason or "the folded model differs from the original")
        if verification.verdict != "pass":
            raise Inconclusive(reason or "it could not be shown that the folded model equals the original")


def _verify_options(checks: VerifyArguments, freeze_initializers: bool) -> VerifyOptions:
    from normfold.verification import VerifyOptions

    known: dict[str, Any] = {**checks, "providers": tuple(checks.get("providers", ()))}
    try:
        return VerifyOptions(**known, freeze_initializers=freeze_initializers)
    except TypeError as error:
        raise InputError(f"unknown verification option: {error}", code="NF900") from error


def _refold(model: ir.Model, options: FoldOptions) -> tuple[ir.Model, Mapping[str, Callable[[], Any]]]:
    from normfold.folding import fold_model

    folded = fold_model(model, options)
    return folded.model, folded.exact


def _refuse_unknown_names(model: ir.Model, options: FoldOptions) -> None:
    from normfold.folding import rule_of
    from normfold.planning.operators import TABLE

    rules = {rule_of(operator) for operator in TABLE}
    for rule in sorted(options.skip - rules):
        raise InputError(f"no rule is named {rule!r}; there are {', '.join(sorted(rules))}", code="NF900")
    tops = (model.graph, *(function.graph for function in model.functions.values()))
    values = {value.name for top in tops for node in top.all_nodes() for value in node.outputs}
    for name in sorted(options.keep - values):
        raise InputError(f"no node of the model produces a value named {name!r}", code="NF900")


def _summary(folded: Folded) -> dict[str, Any]:
    actions = Counter(site.action for site in folded.sites)
    return {
        "changed": folded.changed,
        "sites": len(folded.sites),
        **{action: actions.get(action, 0) for action in ("folded", "merged", "moved", "substituted", "kept")},
        "nodes": [_node_count(folded.original), _node_count(folded.model)],
    }


def _node_count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())
