"""Layers that absorb: convolutions, products, recurrent layers, quantised weights."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "planning/operators/conv.py",
        Edit(
            "c = s·B, the shift forgotten",
            "scale, shift = affine.channel(1, out_channels)",
            "scale, shift = affine.channel(1, out_channels); shift = 0 * shift",
        ),
        Edit(
            "W scaled along its input axis",
            "Affine.on_axis(scale, 0.0, axis=0, rank=1 + len(rest))",
            "Affine.on_axis(scale, 0.0, axis=1, rank=1 + len(rest))",
        ),
        Edit(
            "W divided by s", "Affine.on_axis(scale, 0.0, axis=0,", "Affine.on_axis(1.0 / scale, 0.0, axis=0,"
        ),
        Edit("s forgotten on the bias", "Affine.of(scale, shift, rank=1))", "Affine.of(1.0, shift, rank=1))"),
        Edit("t forgotten on the bias", "Affine.of(scale, shift, rank=1))", "Affine.of(scale, 0.0, rank=1))"),
        Edit(
            "t subtracted from a new bias",
            "Constant64.of(shift, request.dtype)",
            "Constant64.of(-shift, request.dtype)",
        ),
        Edit(
            "groups read tiled, not repeated",
            "np.repeat(values.reshape(groups, -1), out_channels // groups, axis=0)",
            "np.tile(values.reshape(groups, -1), (out_channels // groups, 1))",
        ),
        Edit("the sum of taps is their mean", "(w.sum(tuple(", "(w.mean(tuple("),
        Edit("B counted twice", "bias.compute() + added())", "2 * bias.compute() + added())"),
        Edit("B replaced by what is added", "bias.compute() + added())", "0 * bias.compute() + added())"),
        Edit(
            "forgotten: backward, scale on channels only",
            'require_axes(affine.scale, {1}, "scale", node)',
            'require_axes(affine.scale, {0, 1, 2, 3}, "scale", node)',
        ),
        Edit(
            "forgotten: backward, shift on channels only",
            'require_axes(affine.shift, {1}, "shift", node)',
            'require_axes(affine.shift, {0, 1, 2, 3}, "shift", node)',
        ),
        Edit(
            "forgotten: a second operand brings something",
            "if affine is None or len(given) > 1:",
            "if affine is None:",
        ),
        Edit("forgotten: the kernel reads padding", "if never_reads_padding(node, kernel):", "if True:"),
        Edit(
            "the map of a shift has the wrong sign",
            "left = Affine.of(1.0, summed_over_taps(",
            "left = Affine.of(1.0, -summed_over_taps(",
        ),
        Edit("a forward scale is not taken in", "scaled(factor)", "scaled(factor / factor)"),
    ),
    *mutants_of(
        "planning/operators/_windows.py",
        Edit("pads behind ignored", "not any((*pads[0], *pads[1]))", "not any(pads[0])"),
        Edit("pads in front ignored", "not any((*pads[0], *pads[1]))", "not any(pads[1])"),
        Edit(
            "SAME_UPPER and SAME_LOWER exchanged",
            'small if mode == "SAME_UPPER" else total - small',
            'total - small if mode == "SAME_UPPER" else small',
        ),
        Edit("SAME reads no padding", "small = total // 2", "total = 0; small = 0"),
        Edit("dilation forgotten in the reach", "reach = (extent - 1) * dilation + 1", "reach = extent"),
        Edit("taps behind the input count as real", "((read >= 0) & (read < size))", "(read >= 0)"),
        Edit("taps in front of the input count as real", "((read >= 0) & (read < size))", "(read < size)"),
        Edit("stride forgotten in the map", "* strides[axis] - begin", "- begin"),
        Edit("padding in front forgotten in the map", "* strides[axis] - begin", "* strides[axis]"),
    ),
    *mutants_of(
        "planning/operators/conv_transpose.py",
        Edit(
            "grouped outputs tiled, not repeated",
            "np.repeat(scale.reshape(groups, per_group), in_channels // groups, axis=0)",
            "np.tile(scale.reshape(groups, per_group), (in_channels // groups, 1))",
        ),
        Edit(
            "the weight laid out like a Conv's",
            "scale.reshape(groups, per_group)",
            "scale.reshape(per_group, groups).T",
        ),
        Edit(
            "a forward shift summed over the wrong group",
            "shift.reshape(groups, -1, 1)",
            "shift[::-1].reshape(groups, -1, 1)",
        ),
        Edit("forgotten: a shift needs a kernel of 1", "list(kernel) == ones\n        and ", ""),
        Edit(
            "forgotten: a shift needs stride 1",
            'and (node.ints_attribute("strides") or ones) == ones',
            "and True",
        ),
        Edit(
            "forgotten: a shift needs no padding",
            'and not any(node.ints_attribute("pads") or [])',
            "and True",
        ),
        Edit(
            "forgotten: a shift needs no output padding",
            'and not any(node.ints_attribute("output_padding") or [])',
            "and True",
        ),
    ),
    *mutants_of(
        "planning/operators/gemm.py",
        Edit(
            "beta dropped from C",
            "bias.map(lambda c: beta * c * scale + shift)",
            "bias.map(lambda c: c * scale + shift)",
        ),
        Edit(
            "s dropped from C",
            "bias.map(lambda c: beta * c * scale + shift)",
            "bias.map(lambda c: beta * c + shift)",
        ),
        Edit(
            "beta dropped from a C that grows",
            "grown = beta * bias.compute() * scale + shift",
            "grown = bias.compute() * scale + shift",
        ),
        Edit("beta stays what it was", 'attributes["beta"] = 1.0', "pass"),
        Edit("alpha dropped from a forward shift", "added = alpha * weight", "added = 1.0 * weight"),
        Edit(
            "transA read for transB",
            'node.int_attribute("transA" if slot == _A else "transB", 0)',
            'node.int_attribute("transB" if slot == _A else "transA", 0)',
        ),
        Edit(
            "transB ignored in the contracted axis",
            'return 1 if node.int_attribute("transB", 0) else 0',
            "return 0",
        ),
        Edit(
            "transA ignored in the contracted axis",
            'return 0 if node.int_attribute("transA", 0) else 1',
            "return 1",
        ),
        Edit(
            "a forward shift laid down for the wrong side",
            "row = added.reshape(1, -1) if slot == _A",
            "row = added.reshape(1, -1) if slot == _B",
        ),
        Edit("forgotten: a scale on both axes", "if len(axes) == 2:", "if False:"),
        Edit(
            "forgotten: both operands computed", "if len(given) != 1 or _C in given:", "if len(given) != 1:"
        ),
        Edit(
            "forgotten: a forward shift off the contracted axis",
            'require_axes(affine.shift, {contracted}, "shift", node)',
            "",
        ),
    ),
    *mutants_of(
        "planning/operators/matmul.py",
        Edit("the shift vanishes", "rest = {0: affine.only_shift()}", "rest = {}"),
        Edit(
            "free axes of A and B exchanged",
            "free = rank - 1 if slot == _B else rank - 2",
            "free = rank - 2 if slot == _B else rank - 1",
        ),
        Edit("a batch axis of size 1 owns the scale", "if i >= 2 and size != 1}", "if i >= 2}"),
        Edit(
            "forgotten: a contracted axis of the other operand",
            "any(axis != free and axis >= full.ndim - 2 for axis in axes)",
            "False",
        ),
        Edit("forgotten: a uniform scale only, of two computed operands", "if scale.size != 1:", "if False:"),
        Edit(
            "two forward scales: one is lost",
            "product = float(given[_A].scale.item()) * float(given[_B].scale.item())",
            "product = float(given[_A].scale.item())",
        ),
        Edit(
            "the contracted axis of B is its last",
            "axis = len(weight.shape) - (2 if slot == _A and is_matrix else 1)",
            "axis = len(weight.shape) - 1",
        ),
        Edit(
            "forgotten: a shift on a free axis",
            "if any(axis != contracted for axis in affine.shift_axes):",
            "if False:",
        ),
    ),
    *mutants_of(
        "planning/operators/recurrent.py",
        Edit("the shift added to both biases", "np.zeros_like(added)], axis=1", "added], axis=1"),
        Edit(
            "the shift added to the recurrent bias",
            "[added, np.zeros_like(added)]",
            "[np.zeros_like(added), added]",
        ),
        Edit("the shift subtracted", "added = weight.compute() @ shift", "added = -weight.compute() @ shift"),
        Edit(
            "forgotten: an affine over time",
            'require_axes(affine.shift, {2}, "shift", node)',
            'require_axes(affine.shift, {0, 1, 2}, "shift", node)',
        ),
    ),
    *mutants_of(
        "planning/operators/quantized.py",
        Edit("the sign of s is lost", "np.where(scale < 0, 2 * zero - codes,", "np.where(scale < 0, codes,"),
        Edit("mirrored at 0, not at the zero point", "2 * zero - codes", "-codes"),
        Edit("s = 0 keeps the integers", "np.where(scale == 0, zero, codes)", "codes"),
        Edit(
            "forgotten: the range of the type",
            "if moved.min() < dtype.min or moved.max() > dtype.max:",
            "if False:",
        ),
        Edit("forgotten: blocks along the axis", "if axis in axes:", "if False:"),
        Edit("the axis of the new scale forgotten", 'attributes["axis"] = axis', "pass"),
        Edit(
            "a shift rounded to whole steps",
            "if not np.array_equal(steps * step, np.broadcast_to(shift, steps.shape)):",
            "if False:",
        ),
        Edit(
            "forgotten: other readers of the dequantised",
            "if len(value.uses()) != 1 or value.is_graph_output():",
            "if value.is_graph_output():",
        ),
    ),
]
