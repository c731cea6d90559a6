"""The public functions: files in, proof, files out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import onnx_ir as ir

from normfold import loading
from normfold.errors import ConsistencyFailed, Inconclusive, InputError, VerificationFailed
from normfold.form_search import Prove, fold_until_proven
from normfold.loading import ModelLike, SavedFiles, Source
from normfold.options import FoldOptions
from normfold.pipeline import Run, chosen_form, chosen_target, refuse_unfit_sizes
from normfold.progress import Progress
from normfold.reporting.report import Finding, Report

if TYPE_CHECKING:
    import onnx

    from normfold.consistency.findings import FailOn, Key
    from normfold.folding import Folded
    from normfold.verification import ImageOptions, VerifyOptions
    from normfold.verification.options import DataSource


class VerifyArguments(TypedDict, total=False):
    """Keyword arguments that decide about a proof; see ``normfold.verification.VerifyOptions``.

    Attributes:
        data: real inputs: a path, or arrays by input name with samples along axis 0.
        image: how images become inputs, such as ``"size=224,mean=0.485/0.456/0.406"``; see
            ``normfold.verification.ImageOptions``.
        shapes: full shape of inputs with dynamic axes, by input name.
        dims: size of named dynamic axes.
        providers: onnxruntime execution providers that must run both models, such as ``["cpu", "cuda"]``.
        seed: seed of generated inputs.
        thorough: all families and sizes of inputs, without a time budget.
        allow_nonfinite: accept NaN and Inf where the original gives the same.
        rtol: largest accepted relative difference, on top of the rounding bound.
        atol: largest accepted absolute difference, on top of the rounding bound.
        proof_seconds: time that the float64 proof of a fold may take; what is left over then is unproven.
        budget_seconds: time that float64 references may take.
        save_failure: folder that takes the smallest pair of models that shows a difference, and its inputs.
    """

    data: str | os.PathLike[str] | Mapping[str, Any] | None
    image: str | ImageOptions | None
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, int]
    providers: Iterable[str]
    seed: int
    thorough: bool
    allow_nonfinite: bool
    rtol: float | None
    atol: float | None
    proof_seconds: float
    budget_seconds: float
    save_failure: str | os.PathLike[str] | None


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
    target: str | None = None,
    groupnorm: str | None = None,
    tune: bool = False,
    allow_unstable: bool = False,
    provenance: bool = True,
    fail_on: FailOn | None = None,
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
        target: runtime that GroupNorm and InstanceNorm are spelled for: ``ort-cpu``, ``ort-cuda``,
            ``tensorrt``, ``openvino`` or ``portable``. Without it, that of the first of ``providers``, else
            ``ort-cpu``.
        groupnorm: the form to spell them in, whatever the target prefers, or ``keep``; see
            ``normfold.planning.norm_forms``. A form that is not possible gives way to the target's.
        tune: time every form on the model, on the first of ``providers`` and on its inputs, and take the
            fastest whose proof passes.
        allow_unstable: take forms that lose accuracy on inputs with a large mean; none is tried on such
            inputs first, and generated inputs of the proof have none.
        provenance: record in the result's metadata what was folded.
        fail_on: refuse to fold a model with consistency findings of this severity or worse. They are in the
            report in any case.
        verify: prove the result. Without it the report's verdict is ``None``.
        progress: is called with the name of each phase when it begins.
        **checks: how to prove; see ``VerifyArguments``.

    Returns:
        The folded model and the report.

    Raises:
        InputError: the model or an option cannot be used.
        OutputError: the result cannot be written.
        ConsistencyFailed: there are findings as severe as ``fail_on``; nothing was folded.
        VerificationFailed: the proof failed; nothing was written.
        Inconclusive: the proof could not decide; nothing was written.
        MissingDependency: an optional package is needed.

    All of them carry ``report``.
    """
    checks["providers"] = tuple(checks.get("providers", ()))
    if tune and groupnorm is not None:
        raise InputError("tuning chooses the form of GroupNorm; none can be asked for", code="NF900")
    with Run("fold", progress) as run:
        options = FoldOptions(
            frozenset(skip),
            frozenset(keep),
            freeze_initializers,
            fold_norm_affine,
            provenance,
            chosen_target(target, tuple(checks["providers"])),
            chosen_form(groupnorm),
            allow_unstable,
        )
        proof = _verify_options(checks, freeze_initializers) if verify else None
        source = run.load(model)
        refuse_unfit_sizes(source.model, checks.get("dims", {}), checks.get("shapes", {}))
        run.examine(source, freeze_initializers=freeze_initializers)
        if fail_on is not None:
            _refuse_findings(run.report.findings, fail_on)
        folded = fold_until_proven(
            run,
            source,
            options,
            proof,
            lambda folded, prove: _deliver(run, source, folded, output, prove),
            checks if tune else None,
        )
    return FoldResult(folded.model, run.report, folded.changed, source)


def _deliver(
    run: Run,
    source: Source,
    folded: Folded,
    output: str | os.PathLike[str] | None,
    prove: Prove,
) -> None:
    """Proves a fold, and writes it where it is to be written."""
    if output is None:
        prove(folded.model)
        return
    if source.is_file(output):
        if not folded.changed:
            prove(folded.model)
            run.report.outputs.append(source.describe())
            return
        source.map_weights()
    with run.building("stage"):
        staged = source.stage(folded.model, output, changed=folded.changed)
    with staged:
        prove(staged.path)
        with run.phase("write"):
            run.report.outputs.append(staged.publish().describe())


def inspect(
    model: ModelLike,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    freeze_initializers: bool = False,
    fold_norm_affine: bool = False,
    target: str | None = None,
    groupnorm: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Lists every normalisation and constant affine of a model, and what a fold would do to it.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        skip: as for ``fold``.
        keep: as for ``fold``.
        freeze_initializers: as for ``fold``.
        fold_norm_affine: as for ``fold``.
        target: as for ``fold``.
        groupnorm: as for ``fold``.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report; its verdict is ``None``.

    Raises:
        InputError: the model or an option cannot be used.
    """
    with Run("inspect", progress) as run:
        options = FoldOptions(
            frozenset(skip),
            frozenset(keep),
            freeze_initializers,
            fold_norm_affine,
            target=chosen_target(target, ()),
            groupnorm=chosen_form(groupnorm),
        )
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

    with Run("verify", progress) as run:
        proof = _verify_options(checks, freeze_initializers)
        first, second = run.load(a), run.load(b)
        refuse_unfit_sizes(first.model, checks.get("dims", {}), checks.get("shapes", {}))
        with run.phase("verify"):
            run.report.verification = verify_models(first.origin, second.origin, proof)
        run.report.exit = _EXIT_OF_VERDICT[run.report.verification.verdict]
    return run.report


def check_consistency(
    model: ModelLike,
    *,
    data: DataSource | None = None,
    image: str | ImageOptions | None = None,
    fail_on: FailOn = "error",
    baseline: str | os.PathLike[str] | None = None,
    freeze_initializers: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Looks for what makes a model mean something else in evaluation than it meant in training.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        data: real inputs to hold the running statistics against: a path, or arrays by input name, samples
            along axis 0.
        image: how images become inputs; see ``VerifyArguments``.
        fail_on: severity from which on a finding makes ``report.exit`` 1.
        baseline: JSON report of an earlier run; what it holds is accepted, and left out of the report.
        freeze_initializers: initializers that are also graph inputs are constants.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report. ``report.exit`` is 0, 1 where there are findings to fail on, or 3 where there were too few
        data to judge.

    Raises:
        InputError: the model, the data, the baseline or an option cannot be used.
        MissingDependency: images need Pillow.
    """
    from normfold.consistency.findings import read_baseline

    with Run("consistency", progress) as run:
        accepted = read_baseline(baseline) if baseline is not None else frozenset()
        source = run.load(model)
        run.examine(source, freeze_initializers=freeze_initializers)
        conclusive = data is None or run.compare_statistics(source, data, _image_options(image))
        _settle(run.report, fail_on, accepted, conclusive)
    return run.report


def check_module(
    factory: str,
    data: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    image: str | ImageOptions | None = None,
    fail_on: FailOn = "error",
    baseline: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """As ``check_consistency``, on a torch module, with its exported and folded graph side by side.

    Args:
        factory: ``package.module:factory``, which is called without arguments.
        data: ``.npz`` keyed by the parameters of ``forward``, ``.npy``, or a folder of either or of images;
            axis 0 counts images.
        weights: state dictionary for the module.
        image: how images become inputs, with their size; see ``VerifyArguments``.
        fail_on: as for ``check_consistency``.
        baseline: as for ``check_consistency``.
        progress: is called with the name of each phase when it begins.

    Raises:
        InputError: the module, the data or the baseline cannot be used.
        MissingDependency: torch is not installed.
    """
    from normfold.consistency.findings import read_baseline

    with Run("consistency", progress) as run:
        accepted = read_baseline(baseline) if baseline is not None else frozenset()
        conclusive = run.examine_module(factory, weights, data, _image_options(image))
        _settle(run.report, fail_on, accepted, conclusive)
    return run.report


@dataclass(frozen=True)
class CalibrationResult:
    """A model with running statistics estimated from data.

    Attributes:
        model: the new model.
        report: how its layers and outputs changed.
    """

    model: ir.Model
    report: Report


def calibrate(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    data: DataSource,
    image: str | ImageOptions | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Estimates the running statistics of every BatchNorm again: those of the data, layer by layer.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        output: path of the result (``-`` for standard output); not the input's. Written atomically.
        data: real inputs: a path, or arrays by input name with samples along axis 0.
        image: how images become inputs; see ``VerifyArguments``.
        progress: is called with the name of each phase when it begins.

    Returns:
        The new model and the report.

    Raises:
        InputError: the model, the data or an option cannot be used; the output is the input.
        OutputError: the result cannot be written.
        MissingDependency: images need Pillow.
    """
    with Run("calibrate", progress) as run:
        source = run.load(model)
        if output is not None and source.is_file(output):
            raise InputError(
                f"{os.fspath(output)}: calibrate does not write over its input; give -o another name",
                code="NF900",
            )
        calibrated = run.calibrate(source, data, _image_options(image))
        if output is not None:
            with run.phase("write"), source.stage(calibrated, output, changed=True) as staged:
                run.report.outputs.append(staged.publish().describe())
    return CalibrationResult(calibrated, run.report)


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
            target=chosen.target,
            groupnorm=chosen.groupnorm,
            allow_unstable=chosen.allow_unstable,
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


_SEVERITIES = ("error", "warn", "info")


def _settle(report: Report, fail_on: FailOn, accepted: frozenset[Key], conclusive: bool) -> None:
    """Takes out the accepted findings, counts the others, and decides about the exit code."""
    from normfold.consistency.findings import at_least, ordered, without

    found = ordered(report.findings)
    report.findings = without(found, accepted)
    report.summary = {
        **{level: sum(f.severity == level for f in report.findings) for level in _SEVERITIES},
        "accepted": len(found) - len(report.findings),
    }
    if at_least(report.findings, fail_on):
        report.exit = ConsistencyFailed.exit_code
    elif not conclusive:
        report.exit = Inconclusive.exit_code


def _refuse_findings(findings: Iterable[Finding], fail_on: FailOn) -> None:
    """Raises ConsistencyFailed where a finding is as severe as ``fail_on``."""
    from normfold.consistency.findings import at_least

    grave = at_least(findings, fail_on)
    if grave:
        more = f", and {len(grave) - 1} more" if len(grave) > 1 else ""
        raise ConsistencyFailed(f"{grave[0].code}: {grave[0].message}{more} (--fail-on {fail_on})")


def _image_options(given: str | ImageOptions | None) -> ImageOptions | None:
    from normfold.verification import parse_image_options

    return parse_image_options(given) if isinstance(given, str) else given


def _verify_options(checks: VerifyArguments, freeze_initializers: bool) -> VerifyOptions:
    from normfold.verification import VerifyOptions

    known: dict[str, Any] = {**checks, "providers": tuple(checks.get("providers", ()))}
    known["image"] = _image_options(known.get("image"))
    try:
        return VerifyOptions(**known, freeze_initializers=freeze_initializers)
    except TypeError as error:
        raise InputError(f"unknown verification option: {error}", code="NF900") from error
