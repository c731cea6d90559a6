"""Forms of normalisations are tried on inputs with a large mean before they are taken.

The unstable forms look perfect on inputs of mean zero, and random inputs of a model seldom have another mean
where the normalisation stands.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import numpy as np
import onnx_ir as ir

from normfold.errors import VerificationFailed
from normfold.inputs.drawing import Arrays
from normfold.planning.norm_forms import Form, form_of, obstacle, spatial_dims
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm
from normfold.reporting.report import Finding, Report
from normfold.rewriting.norm_forms.alone import norm_alone
from normfold.runtime.client import Runtime, onnxruntime_installed, write_model
from normfold.runtime.execution_providers import CPU, CUDA, ProviderOptions, short_name
from normfold.verification.endtoend.providers import run_model
from normfold.verification.endtoend.stability import excess_rounding
from normfold.verification.options import VerifyOptions

RATIOS = (100.0, 10.0, 0.0)
"""Mean of an input in units of its deviation; where forms fail most comes first."""

_OPEN_SIZE = 32
_MOST_ELEMENTS = 2**21
_PROVIDERS = {"ort-cuda": CUDA}


class FormTrials:
    """A judge of forms, by what they compute on inputs with means of 0, 10 and 100 deviations.

    A form is compared with the form that the norm has now, on sizes of the model, by the rounding bound of a
    fold. It runs on the target's execution provider where that is here, else on the CPU, and in the evaluator
    where neither has a kernel.

    Args:
        target: the runtime that the forms are for.
        seed: of the inputs.
        asked: the form that was asked for by name; it is tried, and taken in any case.
        provider_options: by full name of the provider.
    """

    def __init__(
        self,
        target: str | None,
        seed: int,
        asked: str | None,
        provider_options: ProviderOptions | None = None,
    ) -> None:
        self._target, self._seed, self._asked = target, seed, asked
        self._provider_options = provider_options
        self._known: dict[tuple[object, ...], str | None] = {}
        self._taken_back: dict[str, str] = {}
        self._runtime: Runtime | None = None
        self._provider: str | None = None
        self.warnings: list[Finding] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def __call__(self, norm: Norm, form: Form, workspace: Workspace) -> str | None:
        """Why the norm may not have this form; ``None`` if it may."""
        if form in self._taken_back:
            return self._taken_back[form]
        shape = _trial_shape(norm, workspace)
        own = _emittable(norm, workspace)
        key = (own, form, shape, norm.groups, norm.epsilon, workspace.shapes.dtype(norm.x))
        if key not in self._known:
            self._known[key] = self._tried(norm, own, form, shape, workspace)
        found = self._known[key]
        if found is not None and form == self._asked:
            name = (norm.before_activation or norm).y.name
            warning = Finding("NF404", "warn", f"{form} was asked for, and is less accurate: {found}", name)
            if warning not in self.warnings:
                self.warnings.append(warning)
            return None
        return found

    def take_back(self, report: Report, failure: VerificationFailed) -> bool:
        """Bars the forms of a fold whose proof failed for rounding.

        Args:
            report: of the fold; takes the finding.
            failure: of its proof.

        Returns:
            Whether another fold may pass.
        """
        forms = {site.rule for site in report.sites if site.action == "substituted" and site.rule is not None}
        if self._asked is not None or not forms or report.verification.algebra.get("failed"):
            return False
        self._taken_back |= dict.fromkeys(forms, "the whole model rounds too much")
        message = f"{', '.join(sorted(forms))} is taken back, the whole model rounds too much: {failure}"
        report.findings.append(Finding("NF404", "warn", message))
        return True

    def _tried(
        self, norm: Norm, own: Form, form: Form, shape: tuple[int, ...], workspace: Workspace
    ) -> str | None:
        stays = norm_alone(norm, own, shape, workspace)
        candidate = norm_alone(norm, form, shape, workspace)
        dtype = workspace.shapes.dtype(norm.x)
        assert dtype is not None
        rng = np.random.default_rng(self._seed)
        for ratio in RATIOS:
            batch = {"x": (rng.standard_normal(shape) + ratio).astype(dtype.numpy())}
            runtime = self._running()
            if runtime is not None and self._provider is None:
                self._provider = self._chosen_provider(runtime, stays, batch)
            options = VerifyOptions(providers=(self._provider,) if self._provider else (), seed=self._seed)
            found = excess_rounding(stays, candidate, batch, options, runtime)
            if found is not None:
                where = short_name(self._provider or CPU) if runtime is not None else "the evaluator"
                return f"at a mean of {ratio:g} deviations, {found} on {where}"
        return None

    def _running(self) -> Runtime | None:
        if self._runtime is None and onnxruntime_installed():
            self._runtime = Runtime(provider_options=self._provider_options)
        return self._runtime

    def _chosen_provider(self, runtime: Runtime, model: ir.Model, batch: Arrays) -> str:
        """The target's provider if that runs here; empty for the default."""
        provider = _PROVIDERS.get(self._target or "")
        if provider is None:
            return ""
        path = write_model(model, runtime.folder, "probe")
        outcome = run_model(runtime, path, provider, [batch], ["y"], optimize=False)
        return provider if outcome.status == "ok" else ""


def _emittable(norm: Norm, workspace: Workspace) -> Form:
    """The form that the norm has; the accurate one where it has none of ours."""
    own = form_of(norm)
    return "primitive" if obstacle(norm, own, workspace) is not None else own


def _trial_shape(norm: Norm, workspace: Workspace) -> tuple[int, ...]:
    """Sizes of one sample, its channels first, images cut where they are very large."""
    spatial = [size if isinstance(size, int) else _OPEN_SIZE for size in spatial_dims(norm, workspace)]
    while norm.channels * math.prod(spatial) > _MOST_ELEMENTS and max(spatial) > 1:
        largest = spatial.index(max(spatial))
        spatial[largest] = (spatial[largest] + 1) // 2
    return (1, norm.channels, *spatial)
