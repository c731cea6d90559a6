"""The two verifications: of any pair of models, and of a fold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from normfold.errors import InputError
from normfold.reporting.report import Site, Verification
from normfold.runtime.client import Runtime, onnxruntime_installed, write_model
from normfold.verification.blas import single_threaded
from normfold.verification.endtoend.protocol import EndToEnd
from normfold.verification.ledger import Ledger
from normfold.verification.location.locate import sentence
from normfold.verification.location.proof import described_proof, save_proof
from normfold.verification.options import ModelSource, VerifyOptions
from normfold.verification.proof.algebra import prove_fold
from normfold.verification.proof.region_proof import Proof, Refold, RegionProver

NAMES_SHOWN = 6
"""Values that one sentence names; the report has them all."""


def verify_models(a: ModelSource, b: ModelSource, options: VerifyOptions | None = None) -> Verification:
    """Compares two models end to end: signature, rounding against a float64 reference of ``a``, and every
    provider.

    Args:
        a: the model that is right by definition; a path, or a model in memory.
        b: the model to be judged.
        options: inputs, providers, tolerances.

    Returns:
        The verification, without a proof by regions.

    Raises:
        InputError: a model cannot be read, or data or sizes do not fit.
    """
    options = options or VerifyOptions()
    first, second = _loaded(a), _loaded(b)
    ledger, verification = Ledger(), Verification()
    with _end_to_end((a, first), (b, second), options, ledger, verification) as comparison:
        if comparison.prepare():
            comparison.run()
    return _concluded(verification, ledger)


def verify_fold(
    original_source: ModelSource,
    folded_source: ModelSource,
    original: ir.Model,
    folded: ir.Model,
    exact: Mapping[str, Callable[[], np.ndarray]],
    sites: Sequence[Site],
    refold: Refold,
    options: VerifyOptions | None = None,
) -> Verification:
    """Verifies a fold: the float64 proof of every site, then both models end to end.

    Args:
        original_source: the original as a runtime loads it; a path, or a model in memory.
        folded_source: the folded model likewise.
        original: the original, local functions inlined.
        folded: what became of it.
        exact: contents of edited initializers of ``folded`` in float64, before they were rounded, by name.
        sites: what was found and what was done.
        refold: folds a small model anew and returns it with its exact initializers.
        options: inputs, providers, tolerances.

    Returns:
        The verification with its verdict.

    Raises:
        InputError: data or sizes that the caller gave do not fit the original.
    """
    options = options or VerifyOptions()
    ledger, verification = Ledger(), Verification()
    with _end_to_end(
        (original_source, original), (folded_source, folded), options, ledger, verification, of_a_fold=True
    ) as comparison:
        runnable = comparison.prepare()
        if runnable:
            comparison.begin()
        wrong: list[tuple[Proof, RegionProver]] = []
        verification.algebra = prove_fold(
            original,
            folded,
            exact,
            sites,
            refold,
            options,
            observe=comparison.observation,
            on_failure=lambda proof, prover: wrong.append((proof, prover)),
        )
        _enter_algebra(verification, ledger)
        if wrong:
            proof, prover = wrong[0]
            verification.located = described_proof(proof)
            if options.save_failure is not None:
                save_proof(proof, prover, verification.located, Path(options.save_failure))
            ledger.add("warning", "NF217", sentence(verification.located))
        if runnable:
            comparison.run()
    return _concluded(verification, ledger)


def _enter_algebra(verification: Verification, ledger: Ledger) -> None:
    algebra = verification.algebra
    for failure in algebra["failed"]:
        error, bound = failure["error"], failure["bound"]
        numbers = f" by {error:.3g} where {bound:.3g} is allowed" if error is not None and bound else ""
        ledger.add(
            "fail",
            "NF201",
            f"'{failure['value']}' in the region of '{failure['region']}': {failure['detail']}{numbers}",
        )
    late = algebra["out_of_time"]
    if late:
        named = ", ".join(f"'{name}'" for name in late[:NAMES_SHOWN])
        more = ", …" if len(late) > NAMES_SHOWN else ""
        ledger.add(
            "inconclusive",
            "NF219",
            f"{algebra['reasons'][late[0]]}, not proven ({len(late)}): {named}{more}",
        )
    told = set(late)
    others = {name: reason for name, reason in algebra["reasons"].items() if name not in told}
    for name, reason in others.items():
        code = "NF209" if name in algebra["uncovered"] else "NF202"
        ledger.add("inconclusive", code, f"'{name}' is not proven: {reason}")


def _concluded(verification: Verification, ledger: Ledger) -> Verification:
    verification.verdict = ledger.verdict
    verification.messages = ledger.messages
    return verification


def _loaded(source: ModelSource) -> ir.Model:
    if isinstance(source, ir.Model):
        return _inlined(source.clone()) if source.functions else source
    try:
        return _inlined(ir.load(source))
    except Exception as error:  # protobuf's DecodeError and others share no base
        raise InputError(f"{source}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def _inlined(model: ir.Model) -> ir.Model:
    """The model without local functions, so that what they hold is looked at; as it is where that fails."""
    if model.functions:
        with contextlib.suppress(ir.passes.PassError, ValueError):
            return InlinePass()(model).model
    return model


@contextmanager
def _end_to_end(
    original: tuple[ModelSource, ir.Model],
    folded: tuple[ModelSource, ir.Model],
    options: VerifyOptions,
    ledger: Ledger,
    verification: Verification,
    *,
    of_a_fold: bool = False,
) -> Iterator[EndToEnd]:
    runtime = _runtime_or_none(options)
    try:
        files = None
        if runtime is not None:
            files = (
                _file(original[0], runtime, "original"),
                _file(folded[0], runtime, "folded"),
            )
        with single_threaded():
            yield EndToEnd(
                original[1],
                folded[1],
                files,
                options,
                runtime,
                ledger,
                verification,
                of_a_fold=of_a_fold,
            )
    finally:
        if runtime is not None:
            runtime.close()


def _file(source: ModelSource, runtime: Runtime, name: str) -> Path:
    """The model's file; a temporary one for a model in memory."""
    return write_model(source, runtime.folder, name) if isinstance(source, ir.Model) else Path(source)


def _runtime_or_none(options: VerifyOptions) -> Runtime | None:
    """A runtime that is already starting, ``None`` without onnxruntime."""
    if not onnxruntime_installed():
        return None
    runtime = Runtime(options.timeout_seconds, options.options_by_provider())
    runtime.start()
    return runtime
