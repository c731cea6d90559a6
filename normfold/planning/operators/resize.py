"""Resize and Upsample: https://onnx.ai/onnx/operators/onnx__Resize.html

Every output element is a weighted sum of inputs along the resized axes. The weights sum to 1 in every mode:
nearest picks one element; linear and cubic weights do by construction (Keys' kernel for every coefficient),
edges repeat, ``exclude_outside`` and ``antialias`` divide by the sum. So an affine that is uniform along
the resized axes crosses unchanged, in both directions.

``tf_crop_and_resize`` puts a number where it reads outside of X: then only a scale crosses, and only past
zero, unless the region of interest is a constant inside [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_ROI, _SCALES, _SIZES = 1, 2, 3
_CROP = "tf_crop_and_resize"
# These move the grid even where the size stays.
_ALWAYS_MOVES = (_CROP, "tf_half_pixel_for_nn")


class Resize(Operator):
    op_types = ("Resize", "Upsample")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return self._cross(node, wanted[0])

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [0]:
            raise Refused("NF114", f"the scales of {node.op_type} {node.name!r} are scaled")
        return self._cross(node, given[0])

    def _cross(self, node: NodeView, affine: Affine) -> Crossing:
        for axis in affine.axes:
            if not _keeps(node, axis):
                raise Refused(
                    "NF110",
                    f"{node.op_type} {node.name!r} resizes, or may resize, an axis that the affine varies on",
                )
        if _mode(node) == _CROP and not _crops_inside(node):
            if affine.has_shift:
                raise Refused("NF116", f"Resize {node.name!r} reads outside of its input")
            if node.float_attribute("extrapolation_value", 0.0) != 0.0:
                raise Refused("NF116", f"Resize {node.name!r} puts a number outside of its input")
        return Crossing(affines={0: affine})


def _mode(node: NodeView) -> str:
    return node.string_attribute("coordinate_transformation_mode", "half_pixel")


def _keeps(node: NodeView, axis: int) -> bool:
    """Whether every output position on ``axis`` reads the input position of the same index."""
    axes = _listed_axes(node)
    if axis not in axes:
        return True
    if _mode(node) in _ALWAYS_MOVES:
        return False
    position = axes.index(axis)
    scales = _scales(node)
    if scales is not None:
        return len(scales) == len(axes) and scales[position] == 1.0
    if node.op_type == "Upsample" or not node.has(_SIZES):
        return False
    if node.string_attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    before, after = node.dims(0), node.output_dims()
    return (
        before is not None and after is not None and before[axis] == after[axis] and before[axis] is not None
    )


def _listed_axes(node: NodeView) -> list[int]:
    rank = node.rank(0)
    return [axis % rank for axis in node.ints_attribute("axes") or range(rank)]


def _scales(node: NodeView) -> list[float] | None:
    """The constant scale of each listed axis; ``None`` where sizes are given or the scales are computed."""
    if node.op_type == "Upsample":
        if node.opset < 7:
            return [
                1.0,
                1.0,
                node.float_attribute("height_scale", 0.0),
                node.float_attribute("width_scale", 0.0),
            ]
        if node.opset < 9:
            values = node.node.attributes.get_floats("scales")
            return None if values is None else [float(value) for value in values]
        slot = 1
    else:
        slot = 1 if node.opset < 11 else _SCALES
    array = node.array(slot) if node.has(slot) else None
    return None if array is None or array.size == 0 else [float(value) for value in array]


def _crops_inside(node: NodeView) -> bool:
    roi = node.array(_ROI) if node.has(_ROI) else None
    return (
        roi is not None and roi.size > 0 and bool(((roi >= 0) & (roi <= 1)).all() and np.isfinite(roi).all())
    )


OPERATORS: tuple[Operator, ...] = (Resize(),)
