"""Whether a model may be moved to a later opset as it stands.

``onnx.version_converter`` rewrites operators that have changed, and breaks some: from 20 to 21 it leaves
GroupNormalization with a scale per group. Here nothing is rewritten. An opset may be raised where every
operator that stays means the same at both ends. Schemas tell: the same operands, attributes and defaults,
with more types at most, or with additions that do nothing where they are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir
from onnx import defs

_FIRST_SEPARATE_INITIALIZERS = 4

# Additions of opsets 13 to 23 that leave nodes written before them alone:
# https://github.com/onnx/onnx/blob/main/docs/Changelog.md
_HARMLESS_ATTRIBUTES = frozenset(
    {
        ("AveragePool", "dilations"),
        ("Cast", "saturate"),
        ("CastLike", "saturate"),
        ("DequantizeLinear", "block_size"),
        ("DequantizeLinear", "output_dtype"),
        ("GRU", "layout"),
        ("LSTM", "layout"),
        ("LpPool", "ceil_mode"),
        ("LpPool", "dilations"),
        ("QuantizeLinear", "block_size"),
        ("QuantizeLinear", "output_dtype"),
        ("QuantizeLinear", "precision"),
        ("QuantizeLinear", "saturate"),
        ("RNN", "layout"),
        ("Reshape", "allowzero"),
        ("ScatterElements", "reduction"),
        ("ScatterND", "reduction"),
        ("Shape", "end"),
        ("Shape", "start"),
    }
)
_HARMLESS_OPERANDS = frozenset({"Pad"})

# What a window that hangs over the end averages was told otherwise before and from opset 19 on.
_CHANGED_WHERE_SET = {"AveragePool": "ceil_mode"}


def obstacle_to_opset(model: ir.Model, version: int, leaving: Collection[ir.Node]) -> str | None:
    """Why the opset of ONNX's own operators cannot become ``version``; ``None`` if it can.

    Args:
        model: the model, local functions inlined.
        version: the opset wanted, later than the model's.
        leaving: nodes that will not be there any more.
    """
    current = own_opset(model)
    if version > defs.onnx_opset_version():
        return f"opset {version} is not known here"
    if model.functions:
        return "it has local functions"
    if model.ir_version is not None and model.ir_version < _FIRST_SEPARATE_INITIALIZERS:
        return f"its IR version is {model.ir_version}"
    return next((changed for _, changed in _changes(model, current, version, leaving)), None)


def bound_to_opset(model: ir.Model, version: int, leaving: Collection[ir.Node]) -> list[ir.Node]:
    """The nodes that mean something else in ``version`` than in the model's own opset, but for those that
    will not be there any more."""
    return [node for node, _ in _changes(model, own_opset(model), version, leaving)]


def _changes(
    model: ir.Model, current: int, version: int, leaving: Collection[ir.Node]
) -> Iterator[tuple[ir.Node, str]]:
    for graph in model.graphs():
        for node in graph:
            if node.domain not in ("", "ai.onnx") or node in leaving:
                continue
            changed = _change(node, current, version)
            if changed is not None:
                yield node, changed


def own_opset(model: ir.Model) -> int:
    """The opset of ONNX's own operators."""
    imports = model.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def _change(node: ir.Node, current: int, version: int) -> str | None:
    try:
        old = defs.get_schema(node.op_type, current, "")
        new = defs.get_schema(node.op_type, version, "")
    except defs.SchemaError:
        return f"{node.op_type} is no operator of both opsets"
    if old.since_version == new.since_version or _is_batchnorm_in_evaluation(node, old, new):
        return None
    setting = node.attributes.get(_CHANGED_WHERE_SET.get(node.op_type, ""))
    if new.deprecated or (setting is not None and setting.value) or not _is_extension(old, new):
        return f"{node.op_type} means something else from opset {new.since_version} on"
    return None


def _is_batchnorm_in_evaluation(node: ir.Node, old: defs.OpSchema, new: defs.OpSchema) -> bool:
    """From opset 14 on it trains if an attribute says so, from 9 to 13 if it had further outputs."""
    further = any(value.name for value in node.outputs[1:])
    return (
        old.name == "BatchNormalization"
        and old.since_version >= 9
        and new.since_version <= 15
        and not further
    )


def _is_extension(old: defs.OpSchema, new: defs.OpSchema) -> bool:
    """Whether every node that is valid by ``old`` is valid by ``new`` and means the same."""
    name = old.name
    if len(new.inputs) < len(old.inputs) or (
        len(new.inputs) > len(old.inputs) and name not in _HARMLESS_OPERANDS
    ):
        return False
    optional = defs.OpSchema.FormalParameterOption.Optional
    if any(b.option not in (a.option, optional) for a, b in zip(old.inputs, new.inputs, strict=False)):
        return False
    if [item.option for item in old.outputs] != [item.option for item in new.outputs]:
        return False
    added = new.attributes.keys() - old.attributes.keys()
    if any((name, attribute) not in _HARMLESS_ATTRIBUTES for attribute in added):
        return False
    return all(
        key in new.attributes and _attribute(old, key) == _attribute(new, key) for key in old.attributes
    )


def _attribute(schema: defs.OpSchema, name: str) -> tuple[object, ...]:
    attribute = schema.attributes[name]
    return attribute.type, attribute.required, attribute.default_value.SerializeToString()
