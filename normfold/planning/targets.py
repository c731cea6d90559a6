"""Which form of a GroupNorm runs best where (docs/groupnorm.md has the measurements)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import onnx_ir as ir

from normfold.affine import alike
from normfold.planning.norm_forms import FORMS, Form, form_of, needed_opset, obstacle
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm

Target = Literal["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"]
TARGETS: tuple[Target, ...] = get_args(Target)

Judge = Callable[[Norm, Form, Workspace], str | None]
"""Why a form is not to be given to a norm although it is valid there; ``None`` if it may."""

_INSTANCE_NORMALIZATION_ON_CUDA = 21


def accept_every_form(_norm: Norm, _form: Form, _workspace: Workspace) -> str | None:
    """The judge that has nothing to say."""
    return None


def as_decided(forms: Mapping[str, Form | None]) -> Judge:
    """The judge that takes the forms of an earlier fold, by name of the norms' values."""

    def judge(norm: Norm, form: Form, _workspace: Workspace) -> str | None:
        name = (norm.before_activation or norm).y.name or ""
        return None if forms.get(name, form) == form else "another was taken in the whole model"

    return judge


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
class Opsets:
    """Which opset the model will have.

    Attributes:
        least: the one it has, or that another norm's form needs.
        most: the latest that it may have.
        reason: why it may have no later one.
    """

    least: int
    most: int
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """What becomes of one norm.

    Attributes:
        form: the form that it is given; ``None`` if it stays as it is.
        code: reason code where a form that was preferred is not it; ``None`` where the first was.
        reason: one clause for each form that was passed over.
    """

    form: Form | None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Preference:
    """One form that a target likes.

    Attributes:
        form: the form.
        as_good: spellings that the target runs as well: they stay.
        drawback: why it does not like it here.
    """

    form: Form
    as_good: frozenset[str]
    drawback: str | None = None


def choose(
    norm: Norm, workspace: Workspace, target: str | None, form: str | None, opsets: Opsets, judge: Judge
) -> Choice:
    """The form for a norm: the first that is valid and that nothing speaks against.

    Args:
        norm: what was recognised.
        workspace: the model.
        target: name of a runtime; ``None`` leaves every norm as it is.
        form: what the user asked for: a form, ``keep``, or ``None`` for the target's choice.
        opsets: which opset the model will have.
        judge: is asked about each form that is valid.
    """
    if norm.kind == "layernorm" and form is None and target == "ort-cpu":
        return Choice("layernorm" if _is_slow_layernorm(norm, workspace, opsets.least) else None)
    if norm.kind not in ("groupnorm", "instancenorm") or form == "keep" or (target is None and form is None):
        return Choice(None)
    if _may_be_layernorm(norm):
        return Choice(None, "NF403", "without a scale per channel it is a LayerNorm over one axis as well")
    own, passed, unstable = form_of(norm), list[str](), False
    for wanted in _wanted(norm, workspace, target, form, opsets.least):
        barred = wanted.drawback
        if barred is None and own in (wanted.form, *wanted.as_good):
            return _outcome(None, passed, unstable=unstable)
        if barred is None:
            barred = obstacle(norm, wanted.form, workspace)
        later = needed_opset(norm, wanted.form, workspace)
        if barred is None and later > opsets.most:
            barred = f"it needs opset {later}, and {opsets.reason}"
        if barred is None:
            barred = judge(norm, wanted.form, workspace)
            unstable |= barred is not None
        if barred is None:
            return _outcome(wanted.form, passed, unstable=unstable)
        passed.append(f"{wanted.form}: {barred}")
    return _outcome(None, passed, unstable=unstable)


def _is_slow_layernorm(norm: Norm, workspace: Workspace, opset: int) -> bool:
    """Whether it is spelled out over axis 1 of an image, where one operator between Transposes is faster; see
    docs/decisions/0009-norms-over-channels.md."""
    dims = workspace.dims(norm.x)
    return (
        form_of(norm) == "primitive"
        and norm.axes == (norm.channel_axis,) == (1,)
        and dims is not None
        and len(dims) > norm.channel_axis + 1
        and workspace.shapes.dtype(norm.x) == ir.DataType.FLOAT
        and needed_opset(norm, "layernorm", workspace) <= opset
    )


def _may_be_layernorm(norm: Norm) -> bool:
    """Whether only a scale and shift, which may have gone elsewhere, would tell it from a LayerNorm."""
    return (
        norm.kind == "instancenorm"
        and form_of(norm) == "primitive"
        and len(norm.axes) == 1
        and all(bool(alike(array, array[:1]).all()) for array in (norm.scale, norm.shift))
    )


def _outcome(form: Form | None, passed: Sequence[str], *, unstable: bool) -> Choice:
    if not passed:
        return Choice(form)
    return Choice(form, "NF404" if unstable else "NF403", "; ".join(passed))


def _wanted(
    norm: Norm, workspace: Workspace, target: str | None, form: str | None, opset: int
) -> list[_Preference]:
    """What is tried, in order: what was asked for by name, then what the target likes."""
    listed = [] if target is None else _PREFERENCES[target](norm, workspace, opset)
    if form is None:
        return listed
    asked = next(known for known in FORMS if known == form)
    as_good = _SAME_OPERATOR.get(asked, frozenset[str]())
    return [_Preference(asked, as_good), *(other for other in listed if other.form != asked)]


# Mul and Add behind a chain become one BatchNormalization wherever affines are lowered.
_SAME_OPERATOR: dict[Form, frozenset[str]] = {"instancenorm-bn": frozenset({"instancenorm"})}


def _ort_cpu(_norm: Norm, _workspace: Workspace, _opset: int) -> list[_Preference]:
    return [
        _Preference("instancenorm-bn", frozenset({"instancenorm", "layernorm"})),
        _Preference("layernorm", frozenset()),
    ]


def _ort_cuda(norm: Norm, workspace: Workspace, opset: int) -> list[_Preference]:
    narrow = workspace.shapes.dtype(norm.x) == ir.DataType.FLOAT16
    on_cpu = f"InstanceNormalization of opset {opset} has no CUDA kernel and runs on the CPU"
    late = opset > _INSTANCE_NORMALIZATION_ON_CUDA
    good = frozenset({"instancenorm", "layernorm"} | ({"ms-groupnorm"} if not narrow else set()))
    listed = [
        _Preference("instancenorm-bn", good, on_cpu if late else None),
        _Preference("layernorm", frozenset({"ms-groupnorm"} if not narrow else set())),
        _Preference("native", frozenset()),
    ]
    return [_Preference("ms-groupnorm", frozenset()), *listed] if narrow else listed


def _tensorrt(norm: Norm, _workspace: Workspace, _opset: int) -> list[_Preference]:
    wrong = "TensorRT 10.16 computes GroupNormalization with one group wrongly" if norm.groups == 1 else None
    return [
        _Preference("native", frozenset({"layernorm"}), wrong),
        _Preference("instancenorm", frozenset({"layernorm"})),
    ]


def _openvino(_norm: Norm, _workspace: Workspace, _opset: int) -> list[_Preference]:
    return [_Preference("instancenorm", frozenset({"native", "layernorm"}))]


def _portable(_norm: Norm, _workspace: Workspace, _opset: int) -> list[_Preference]:
    return [_Preference("instancenorm", frozenset({"instancenorm-bn", "layernorm"}))]


_PREFERENCES: dict[str, Callable[[Norm, Workspace, int], list[_Preference]]] = {
    "ort-cpu": _ort_cpu,
    "ort-cuda": _ort_cuda,
    "tensorrt": _tensorrt,
    "openvino": _openvino,
    "portable": _portable,
}
