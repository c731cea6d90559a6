"""Every spelling of a norm, as torch's exporters write it, is recognised, and keeps its value in every form.

CI takes a few of the exports that there are; ``NORMFOLD_ALL_SPELLINGS=1`` takes every combination of
exporter, rank, type, groups and static or open sizes, with opsets in turns.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.export import Exporter
from models.norms import Norm as Module
from models.norms.export import CHANNELS, Export
from normfold.folding import fold_model
from normfold.options import FoldOptions
from normfold.planning.norm_forms import FORMS, Form, form_of
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import LookAlike, Norm, find_norms
from tests.interpreter import Interpreter

OPSETS: dict[Exporter, range] = {"dynamo": range(18, 24), "torchscript": range(11, 21)}
# Every opset of the older exporter, which is quick, and some of the other's; other traits in turns.
QUICK = [
    Export("torchscript", 11, 2, 3, torch.float32, True),
    Export("torchscript", 12, 3, 1, torch.float16, False),
    Export("torchscript", 13, 4, 3, torch.float32, True),
    Export("torchscript", 14, 5, CHANNELS, torch.float32, True),
    Export("torchscript", 15, 4, CHANNELS, torch.float16, False),
    Export("torchscript", 16, 3, 3, torch.float32, True),
    Export("torchscript", 17, 5, 3, torch.float32, False),
    Export("torchscript", 18, 4, 1, torch.float32, True),
    Export("torchscript", 19, 2, 1, torch.float16, True),
    Export("torchscript", 20, 4, 3, torch.float16, True),
    Export("dynamo", 18, 4, 3, torch.float32, False),
    Export("dynamo", 21, 3, 3, torch.float16, True),
]
# In float64; an attribute epsilon is a float32, and a product with (K − 1)/K is not exact there.
TOLERANCE = {False: 1e-12, True: 1e-9}


def every_export() -> Iterator[Export]:
    turns = {exporter: in_turns(opsets) for exporter, opsets in OPSETS.items()}
    traits = itertools.product((2, 3, 4, 5), (1, 3, CHANNELS), (torch.float32, torch.float16), (False, True))
    for rank, groups, dtype, dynamic in traits:
        if (rank, groups) == (2, CHANNELS):
            continue
        for exporter in ("dynamo", "torchscript", "torchscript"):
            yield Export(exporter, next(turns[exporter]), rank, groups, dtype, dynamic)


def in_turns(opsets: range) -> Iterator[int]:
    """Each round starts one further, so that no opset always meets the same traits."""
    for start in itertools.count():
        yield from (opsets[(start + i) % len(opsets)] for i in range(len(opsets)))


ALL = bool(os.environ.get("NORMFOLD_ALL_SPELLINGS"))
EXPORTS = list(every_export()) if ALL else QUICK
# Without the whole, each export is given two forms, in turns.
FORMS_OF = [
    FORMS if ALL else (FORMS[i % len(FORMS)], FORMS[(i + 3) % len(FORMS)]) for i in range(len(EXPORTS))
]


class Float64(Interpreter):
    def _unsqueeze(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """onnx.reference does not run the one that has its axes as attribute."""
        axes = attributes.get("axes") or [int(axis) for axis in inputs[1]]
        return np.expand_dims(np.asarray(inputs[0]), tuple(axes))

    def _groupnormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """Opset 21's, with scale and bias per channel."""
        x, gamma, beta = (torch.tensor(array).double() for array in inputs)
        return F.group_norm(x, attributes["num_groups"], gamma, beta, attributes["epsilon"]).numpy()

    def _groupnorm(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """com.microsoft's, channels last."""
        x, gamma, beta = (torch.tensor(array).double() for array in inputs)
        epsilon = attributes["epsilon"]
        y = F.group_norm(x.movedim(-1, 1), attributes["groups"], gamma, beta, epsilon).movedim(1, -1)
        return (F.silu(y) if attributes.get("activation") else y).numpy()


@pytest.mark.parametrize(
    ("export", "forms"), list(zip(EXPORTS, FORMS_OF, strict=True)), ids=[*map(str, EXPORTS)]
)
def test_a_spelling_is_recognised_and_keeps_its_value(
    export: Export, forms: tuple[Form, ...], tmp_path: Path
) -> None:
    network, inputs = export.write(tmp_path / "model.onnx")
    exact = [x.double() for x in inputs]
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(*exact)
    model = ir.load(tmp_path / "model.onnx")
    found = recognised(model)
    for place, norm in enumerate(export.norms()):
        assert f"y{place}" in found, norm.name
        check_meaning(found[f"y{place}"], norm, exact[place], expected[place])
    feeds = {f"x{place}": x.numpy() for place, x in enumerate(exact)}
    for form in forms:
        folded = fold_model(model, FoldOptions(groupnorm=form))
        proto = ir.to_proto(folded.model)
        onnx.checker.check_model(proto)
        given = recognised(folded.model)
        results = Float64(proto, folded.exact).run(feeds)
        for place, norm in enumerate(export.norms()):
            name, case = f"y{place}", f"{norm.name} as {form}"
            assert results[name].shape == tuple(expected[place].shape), case
            assert_equal(results[name], expected[place], case, rounded_epsilon=norm.spelling.unbiased)
            if allows(export, norm, found[name], form, proto):
                assert form_of(given[name]) in {form, *_SAME.get(form, ())}, case


def recognised(model: ir.Model) -> Mapping[str | None, Norm]:
    """Norms by the name of their value; nothing in these networks is a look-alike."""
    found = list(find_norms(Workspace(model.clone())))
    assert [one for one in found if isinstance(one, LookAlike)] == []
    return {norm.y.name: norm for norm in found if isinstance(norm, Norm)}


def check_meaning(found: Norm, module: Module, x: Tensor, expected: Tensor) -> None:
    """What was read, computed by torch in float64, is what the network computes."""
    axis = found.channel_axis
    channels_first = x.movedim(axis, 1)
    scale, shift = torch.tensor(found.scale), torch.tensor(found.shift)
    epsilon = found.epsilon
    if found.unbiased:
        elements = x[0].numel() // found.groups
        factor = (elements - 1) / elements
        scale, epsilon = scale * factor**0.5, epsilon * factor
    if found.kind in ("groupnorm", "instancenorm"):
        y = F.group_norm(channels_first, found.groups, scale, shift, epsilon)
    else:
        last = x.movedim(axis, -1)
        size = (found.channels,)
        if found.kind == "layernorm":
            y = F.layer_norm(last, size, scale, shift, epsilon).movedim(-1, 1)
        else:
            y = F.rms_norm(last, size, scale, epsilon).movedim(-1, 1)
    if found.activation == "silu":
        y = F.silu(y)
    assert_equal(y.movedim(1, axis).numpy(), expected, module.name)
    assert found.activation == ("silu" if module.spelling.silu else None), module.name
    assert found.kind in kinds(module), module.name


def kinds(module: Module) -> set[str]:
    """What a spelling may be taken for; a single group of a matrix is its last axis."""
    if module.spelling.kind == "rms":
        return {"rmsnorm"}
    if module.spelling.kind == "layer" or (module.rank == 2 and module.groups == 1):
        return {"layernorm"}
    return {"instancenorm" if module.groups == module.channels else "groupnorm"}


def allows(export: Export, module: Module, found: Norm, form: str, proto: onnx.ModelProto) -> bool:
    """Whether a form exists for a norm at the opset that the folded model has."""
    opset = next(o.version for o in proto.opset_import if o.domain == "")
    if found.kind not in ("groupnorm", "instancenorm") or found.unbiased:
        return False
    if form == "layernorm":
        return opset >= 17 and not export.dynamic
    if form == "ms-groupnorm":
        return export.rank == 4 and module.groups != module.channels
    return form != "native" or opset >= 21


# A BatchNormalization is one spelling of an affine; as many groups as channels need neither.
_SAME = {
    "instancenorm": ("instancenorm-bn",),
    "instancenorm-bn": ("instancenorm",),
}


def assert_equal(actual: np.ndarray, expected: Tensor, case: str, *, rounded_epsilon: bool = False) -> None:
    wanted = expected.numpy()
    limit = TOLERANCE[rounded_epsilon] * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=limit, err_msg=case)
