"""Names and options of onnxruntime's execution providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from normfold.errors import InputError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

PROVIDERS = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "trt": TENSORRT,
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Full names of execution providers by short names."""

ProviderOptions = Mapping[str, Mapping[str, str]]
"""Options by the name of a provider, such as ``{"cuda": {"prefer_nhwc": "1"}}``."""

_SUFFIX = "ExecutionProvider"


def provider_name(given: str) -> str:
    """Full name of an execution provider: ``cpu`` and ``cuda`` are short for ``CPUExecutionProvider`` and so
    on.

    Raises:
        InputError: NF900, neither a short name nor of the form of a full one.
    """
    name = PROVIDERS.get(given.lower(), given)
    if not name.endswith(_SUFFIX):
        raise InputError(
            f"no execution provider is named {given!r}; there are {', '.join(PROVIDERS)}, "
            f"and full names that end in {_SUFFIX}",
            code="NF900",
        )
    return name


def short_name(provider: str) -> str:
    """How reports name a provider: ``cuda`` for ``CUDAExecutionProvider``."""
    return provider.removesuffix(_SUFFIX).lower()


def options_by_provider(given: ProviderOptions, providers: Iterable[str]) -> dict[str, dict[str, str]]:
    """Provider options by full names.

    Args:
        given: the options, by short or full names.
        providers: the providers that are to run.

    Raises:
        InputError: NF900, options of a provider that is not among them.
    """
    known = set(map(provider_name, providers))
    options: dict[str, dict[str, str]] = {}
    for name, chosen in given.items():
        provider = provider_name(name)
        if provider not in known:
            raise InputError(
                f"options of {short_name(provider)}, which is not to run: ask for it with --ep", code="NF900"
            )
        options.setdefault(provider, {}).update(chosen)
    return options
