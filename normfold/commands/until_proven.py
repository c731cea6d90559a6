"""Folds a model until the proof passes: again with other forms of normalisations, or without single folds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import onnx_ir as ir

from normfold.commands.fold_run import FoldRun
from normfold.commands.site_search import is_of_rounding, sites_to_spare
from normfold.errors import Inconclusive, VerificationFailed
from normfold.loading import Source
from normfold.options import FoldOptions
from normfold.reporting.report import Finding

if TYPE_CHECKING:
    from normfold.commands.arguments import VerifyArguments
    from normfold.commands.form_timing import Timed
    from normfold.commands.form_trials import FormTrials
    from normfold.folding import Folded
    from normfold.planning.targets import Judge
    from normfold.verification import VerifyOptions

Prove = Callable[[os.PathLike[str] | ir.Model], None]
Deliver = Callable[["Folded", Prove], None]


def fold_until_proven(
    run: FoldRun,
    source: Source,
    options: FoldOptions,
    proof: VerifyOptions | None,
    deliver: Deliver,
    tune: VerifyArguments | None,
) -> Folded:
    """Folds, and folds again where the proof fails for rounding: of a form of a normalisation, or of a site.

    Args:
        run: the command; its report takes what was found.
        source: the model.
        options: of the fold.
        proof: how to prove; ``None`` to skip proofs and trials of forms.
        deliver: is given a fold and what proves it, and does with it what is to be done.
        tune: where and on which inputs to time every form first; ``None`` for the target's choice.

    Returns:
        The fold that was delivered.

    Raises:
        VerificationFailed: no form is left.
        Inconclusive: a proof, or timing, could not decide.
    """
    if proof is not None and options.allow_unstable:
        proof = replace(proof, large_means=False)

    timed: list[Timed] = []

    def attempt(wanted: FoldOptions) -> Folded:
        folded = run.fold(source, wanted, trials)
        if timed:
            run.report.summary["tuning"] = [entry.as_dict() for entry in timed]
        deliver(folded, partial(run.prove, source, folded=folded, fold_options=wanted, options=proof))
        return folded

    with _trials(options, proof) as trials:
        if tune is not None:
            timed += _timed(run, source, options, trials, tune)
        forms = [entry.form for entry in timed]
        for form in forms[:-1]:
            try:
                return attempt(replace(options, groupnorm=form))
            except VerificationFailed as failure:
                message = f"{form} is fast, and is not taken: {failure}"
                run.report.findings.append(Finding("NF404", "warn", message))
        if forms:
            return attempt(replace(options, groupnorm=forms[-1]))
        while True:
            try:
                folded = attempt(options)
            except VerificationFailed as failure:
                if trials is not None and trials.take_back(run.report, failure):
                    continue
                spare = _spared(run, source, options, trials, proof)
                if not spare:
                    raise
                options = replace(options, spare=options.spare | spare)
                unproven = run.report.verification.algebra["unproven"]
                run.report.findings += [
                    _given_up(name, failure, proven=name not in unproven) for name in sorted(spare)
                ]
            else:
                if trials is not None:
                    run.report.findings += trials.warnings
                return folded


def _given_up(site: str, failure: VerificationFailed, *, proven: bool) -> Finding:
    why = "rounds too much" if proven else "is not proven in float64, and the models differ"
    return Finding("NF129", "warn", f"{site}: its fold {why}; it is given up: {failure}", site)


def _spared(
    run: FoldRun,
    source: Source,
    options: FoldOptions,
    judge: Judge | None,
    proof: VerifyOptions | None,
) -> frozenset[str]:
    """Sites of the last fold that have to stay for the proof to pass; none where they are not the reason."""
    report = run.report
    if proof is None or not is_of_rounding(report.verification):
        return frozenset()
    failed = report.sites, report.summary, report.graphs, report.verification
    quiet = replace(proof, save_failure=None)

    def passes(spare: frozenset[str]) -> bool:
        wanted = replace(options, spare=options.spare | spare)
        folded = run.fold(source, wanted, judge)
        try:
            run.prove(source, folded.model, folded=folded, fold_options=wanted, options=quiet)
        except (Inconclusive, VerificationFailed):
            return False
        return True

    acted = (site.site for site in report.sites if site.action not in ("kept", "substituted"))
    spare = sites_to_spare(tuple(dict.fromkeys(acted)), passes)
    report.sites, report.summary, report.graphs, report.verification = failed
    return spare


@contextlib.contextmanager
def _trials(options: FoldOptions, proof: VerifyOptions | None) -> Iterator[FormTrials | None]:
    """What tries forms; nothing does where nothing is proven, or where unstable forms are welcome."""
    if proof is None or options.allow_unstable:
        yield None
        return
    from normfold.commands.form_trials import FormTrials

    with FormTrials(options.target, proof.seed, options.groupnorm, proof.options_by_provider()) as trials:
        yield trials


def _timed(
    run: FoldRun, source: Source, options: FoldOptions, judge: Judge | None, checks: VerifyArguments
) -> list[Timed]:
    """The forms that the model may have, the fastest first, as they were measured on it."""
    from normfold.commands.form_timing import forms_by_speed
    from normfold.planning.targets import accept_every_form

    with run.phase("tune"):
        timed = forms_by_speed(source, options, judge or accept_every_form, checks)
    if timed:
        times = ", ".join(
            f"{entry.form} {entry.speedup:.2f}× ({entry.interval[0]:.2f} to {entry.interval[1]:.2f})"
            for entry in timed
        )
        run.report.findings.append(Finding("NF405", "info", f"speed of each form: {times}"))
    return timed
