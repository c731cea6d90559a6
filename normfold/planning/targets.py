"""Which form of a GroupNorm runs best where (docs/groupnorm.md has the measurements)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from normfold.planning.norm_forms import Form, form_of, obstacle
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm

Target = Literal["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"]
TARGETS: tuple[Target, ...] = get_args(Target)

_INSTANCE_NORMALIZATION_ON_CUDA = 21


_OF_PROVIDER: dict[str, Target] = {
    "cpu": "ort-cpu",
    "cuda": "ort-cuda",
    "tensorrt": "tensorrt",
    "nvtensorrtrtx": "tensorrt",
    "openvino": "openvino",
}


def target_of(provider: str) -> Target:
    """The target of an execution provider, by its short or long name; ``portable`` where there is none."""
    return _OF_PROVIDER.get(provider.lower().removesuffix("executionprovider"), "portable")


@dataclass(frozen=True)
class Choice:
    """What becomes of one norm.

    Attributes:
        form: the form that it is given; ``None`` if it stays as it is.
        reason: why a form that was preferred is not it; ``None`` where the first was.
    """

    form: Form | None
    reason: str | None = None


def choose(norm: Norm, workspace: Workspace, target: str | None, form: str | None) -> Choice:
    """The form for a norm.

    Args:
        norm: what was recognised.
        workspace: the model.
        target: name of a runtime; ``None`` leaves every norm as it is.
        form: what the user asked for: a form, ``keep``, or ``None`` for the target's choice.
    """
    if norm.kind not in ("groupnorm", "instancenorm") or form == "keep" or (target is None and form is None):
        return Choice(None)
    own, reason = form_of(norm), None
    for wanted in _preferences(target or "ort-cpu", workspace.opset) if form is None else (form,):
        if own in _SATISFIES.get(wanted, {wanted}) or (form is None and own in _AS_GOOD[target or "ort-cpu"]):
            return Choice(None, reason)
        barred = obstacle(norm, wanted, workspace)  # type: ignore[arg-type]
        if barred is None:
            return Choice(wanted, reason)  # type: ignore[arg-type]
        reason = reason or f"{wanted}: {barred}"
    return Choice(None, reason)


# Mul and Add behind a chain become one BatchNormalization wherever affines are lowered.
_SATISFIES: dict[str, set[str]] = {"instancenorm-bn": {"instancenorm", "instancenorm-bn"}}

# Spellings that the target runs as well as the form that it would be given.
_AS_GOOD: dict[str, frozenset[str]] = {
    "ort-cpu": frozenset({"instancenorm", "instancenorm-bn", "layernorm"}),
    "ort-cuda": frozenset({"layernorm", "ms-groupnorm"}),
    "openvino": frozenset({"native", "layernorm"}),
    "tensorrt": frozenset({"native", "layernorm"}),
    "portable": frozenset({"instancenorm", "instancenorm-bn", "layernorm"}),
}


def _preferences(target: str, opset: int) -> tuple[Form, ...]:
    if target == "ort-cpu":
        return ("instancenorm-bn",)
    if target == "ort-cuda":
        # From opset 22 on InstanceNormalization has no kernel there and runs on the CPU.
        return ("instancenorm-bn",) if opset <= _INSTANCE_NORMALIZATION_ON_CUDA else ("layernorm", "native")
    if target == "tensorrt":
        return ("native", "instancenorm")
    if target == "openvino":
        return ("instancenorm",)
    return ("instancenorm",)
