"""What a caller can decide about a verification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from normfold.errors import InputError
from normfold.runtime.execution_providers import (
    CUDA,
    ProviderOptions,
    options_by_provider,
    provider_name,
)
from normfold.verification.image_options import ImageOptions

ModelSource = str | os.PathLike[str] | ir.Model
"""A model file, or a model in memory."""

DataSource = str | os.PathLike[str] | Mapping[str, np.ndarray]
"""Where real inputs come from: a file, a folder, or arrays by input name with samples along axis 0."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of a verification. The defaults need no knowledge of the model.

    Attributes:
        data: real inputs, used instead of generated ones: ``.npz`` (keys are input names), ``.npy``, a folder
            of either or of images, an ONNX test data set, or arrays by input name. Axis 0 of every array
            counts samples.
        image: how images become inputs.
        shapes: full shape of an input by name, for inputs with dynamic axes.
        dims: size of a named dynamic axis by its name.
        providers: execution providers that must be exercised, such as ``("cpu", "cuda")``. Empty: the CPU
            provider where onnxruntime is installed, without insisting on it.
        provider_options: options of those, such as ``{"cuda": {"prefer_nhwc": "1"}}``.
        seed: seed of all generated inputs.
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

    data: DataSource | None = None
    image: ImageOptions | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    provider_options: ProviderOptions = field(default_factory=dict)
    seed: int = 0
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
