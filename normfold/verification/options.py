"""What a caller can decide about a verification."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import onnx_ir as ir

from normfold.errors import InputError
from normfold.inputs.options import InputOptions
from normfold.runtime.execution_providers import (
    CUDA,
    ProviderOptions,
    options_by_provider,
    provider_name,
)

ModelSource = str | os.PathLike[str] | ir.Model
"""A model file, or a model in memory."""


@dataclass(frozen=True)
class VerifyOptions(InputOptions):
    """Options of a verification. The defaults need no knowledge of the model.

    Attributes:
        providers: execution providers that must be exercised, such as ``("cpu", "cuda")``. Empty: the CPU
            provider where onnxruntime is installed, without insisting on it.
        provider_options: options of those, such as ``{"cuda": {"prefer_nhwc": "1"}}``.
        thorough: all input families and sizes, and no budget.
        allow_nonfinite: accept NaN and Inf where the original has the same ones.
        rtol: largest accepted difference relative to the original's value, on top of the rounding bound.
        atol: largest accepted absolute difference, on top of the rounding bound.
        freeze_initializers: initializers that are also graph inputs are constants, whatever the IR version.
        proof_seconds: time that the float64 proof of a fold may take; what is left over then is unproven.
        budget_seconds: time that float64 references may take.
        budget_bytes: memory that the values of one float64 reference run may take.
        save_failure: folder that takes the smallest pair of models that shows a difference, and its inputs.
        large_means: generated inputs may have a mean far above their deviation.
        timeout_seconds: time limit of one load or run in the child process that holds onnxruntime.
    """

    providers: tuple[str, ...] = ()
    provider_options: ProviderOptions = field(default_factory=dict)
    thorough: bool = False
    allow_nonfinite: bool = False
    rtol: float | None = None
    atol: float | None = None
    freeze_initializers: bool = False
    proof_seconds: float = 300.0
    budget_seconds: float = 60.0
    budget_bytes: int = 2 * 1024**3
    save_failure: str | os.PathLike[str] | None = None
    large_means: bool = True
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Refuses providers and options of providers that cannot be.

        Raises:
            InputError: NF900.
        """
        for provider in self.providers:
            provider_name(provider)
        if "use_tf32" in self.options_by_provider().get(CUDA, {}):
            raise InputError(
                "use_tf32 is off where the verdict is made, and the error with it is reported beside that",
                code="NF900",
            )

    def options_by_provider(self) -> dict[str, dict[str, str]]:
        """Provider options by full names.

        Raises:
            InputError: NF900, options of a provider that is not to run.
        """
        return options_by_provider(self.provider_options, self.providers)
