"""Elementwise operators, pools, reductions and normalisations."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "planning/operators/activations.py",
        Edit(
            "forgotten: Relu of a negative scale",
            "if not affine.has_shift and (affine.scale >= 0).all():",
            "if not affine.has_shift:",
        ),
        Edit(
            "Max and Min exchanged", 'op_type="Min" if upper else "Max"', 'op_type="Max" if upper else "Min"'
        ),
        Edit("the bounds of Clip exchanged", "{2 if upper else 1: limit}", "{1 if upper else 2: limit}"),
        Edit(
            "forward the bound is t, not -t/s",
            "-affine.shift / affine.scale, {0: affine}",
            "affine.shift, {0: affine}",
        ),
        Edit(
            "forward the bound has the wrong sign",
            "-affine.shift / affine.scale, {0: affine}",
            "affine.shift / affine.scale, {0: affine}",
        ),
        Edit("forgotten: scales of both signs", "elif (affine.scale < 0).all():", "elif True:"),
        Edit("the slope stays α", "turned[negative] = 1.0 / turned[negative]", "pass"),
        Edit(
            "s is not multiplied by α",
            "np.where(affine.scale < 0, affine.scale * slope, affine.scale)",
            "affine.scale * np.ones_like(slope)",
        ),
        Edit("forgotten: a negative slope", "if ((slope < 0) & (affine.scale < 0)).any():", "if False:"),
        Edit(
            "forgotten: a shift before LeakyRelu",
            "        _refuse_shift(affine, node)\n        if (affine.scale >= 0).all():",
            "        if (affine.scale >= 0).all():",
        ),
        Edit("forgotten: Abs of a negative scale", "if (affine.scale < 0).any():", "if False:"),
        Edit("Abs forward keeps the sign", "np.abs(affine.scale)", "affine.scale"),
        Edit("α does not meet the shift", "beta + alpha * shift", "beta + shift"),
        Edit("α is not scaled", "attribute(alpha * scale, node)", "attribute(alpha, node)"),
    ),
    *mutants_of(
        "planning/operators/add.py",
        Edit(
            "forward the sign of Sub is lost",
            "shift = summed(shift, sign(node.node, slot) * to_output",
            "shift = summed(shift, to_output",
        ),
        Edit("a shift counted once for each slot", "affine.shift / count", "affine.shift"),
        Edit("every slot takes the shift", "if slot in takers else", "if True else"),
        Edit(
            "one scale of two is enough",
            "if not all(other.only_scale().same_as(scale) for other in scales) or any(",
            "if False or any(",
        ),
        Edit(
            "forgotten: an operand that brings nothing",
            "node.constant(slot) is None for slot in rest\n        )",
            "False for slot in rest\n        )",
        ),
        Edit(
            "constants multiplied by the scale",
            "Affine.of(1.0 / scale.scale, rank=rank)",
            "Affine.of(scale.scale, rank=rank)",
        ),
    ),
    *mutants_of(
        "planning/operators/mul.py",
        Edit("both slots of a square take s", "return np.sqrt(scale)", "return scale"),
        Edit("a square of a negative scale", "if (scale < 0).any():", "if False:"),
        Edit("the divisor takes s", 'return node.op_type == "Div" and slot == 1', "return False"),
        Edit("forgotten: a shift before a product", "if affine.has_shift:", "if False:"),
        Edit(
            "two forward scales add up",
            "scale = scale * (",
            "scale = scale + (",
        ),
        Edit(
            "forgotten: a broadcast operand",
            "able = [slot for slot in (0, 1) if fits(affine, node, slot)]",
            "able = [0, 1]",
        ),
    ),
    *mutants_of(
        "planning/broadcasting.py",
        Edit("forgotten: the operand is broadcast", "elif not fits(affine, node, slot):", "elif False:"),
        Edit("operands aligned in front", "return rank - node.rank(slot)", "return 0"),
        Edit(
            "any constant may grow",
            "return node.opset >= 8 and node.constant(slot) is not None",
            "return node.opset >= 8",
        ),
        Edit(
            "an output affine laid down in front",
            "behind = rank - first - affine.rank",
            "first, behind = 0, rank - affine.rank",
        ),
    ),
    *mutants_of(
        "planning/operators/extremes.py",
        Edit("Max stays Max under a negative scale", "return _SWAPPED[node.op_type]", "return None"),
        Edit(
            "forgotten: scales of both signs",
            'raise Refused("NF117", f"the scale at {node.op_type} {node.name!r} has both signs")\n\n\n',
            "return None\n\n\n",
        ),
        Edit(
            "constants forward get the affine, not its inverse",
            "inverse = invert(affine, node) if rest else affine",
            "inverse = affine",
        ),
        Edit(
            "the inverse has the wrong shift",
            "-affine.shift / affine.scale, rank=affine.rank)",
            "-affine.shift, rank=affine.rank)",
        ),
        Edit(
            "the bounds of Clip are not exchanged",
            "after = sorted(_moved(bound, scale, shift, limit) for bound in before)",
            "after = [_moved(bound, scale, shift, limit) for bound in before]",
        ),
        Edit("a bound is not shifted", "return scale * bound + shift", "return scale * bound"),
        Edit("forgotten: bounds the wrong way round", "if before[0] > before[1]:", "if False:"),
        Edit("no bound becomes one", "if abs(bound) >= limit:", "if False:"),
        Edit(
            "a lower bound per channel becomes an upper one",
            'op_type = "Max" if (affine.scale >= 0).all() else "Min"',
            'op_type = "Min" if (affine.scale >= 0).all() else "Max"',
        ),
    ),
    *mutants_of(
        "planning/operators/where.py",
        Edit("only the first branch is asked", "for slot in _BRANCHES})", "for slot in _BRANCHES[:1]})"),
        Edit(
            "a constant branch is not moved back",
            "back = to_operand(invert(affine, node), node, slot)",
            "back = to_operand(affine, node, slot)",
        ),
        Edit(
            "forgotten: the branches bring different affines",
            "if not all(affine.same_as(other) for other in others):",
            "if False:",
        ),
    ),
    *mutants_of(
        "planning/operators/identity.py",
        Edit("forgotten: a Cast to integers", "if dtype not in FLOAT_TYPES:", "if False:"),
        Edit("forgotten: Dropout in training", "if active:", "if False:"),
        Edit(
            "training mode read the wrong way round",
            "active = mode is None or bool(mode.any())",
            "active = mode is not None and not bool(mode.any())",
        ),
    ),
    *mutants_of(
        "planning/operators/pool.py",
        Edit("forgotten: MaxPool of a negative scale", "if (affine.scale < 0).any():", "if False:"),
        Edit(
            "forgotten: the indices are read",
            "if len(node.node.outputs) > 1 and node.is_used(1):",
            "if False:",
        ),
        Edit("forgotten: an affine over space", "if any(axis > 1 for axis in affine.axes):", "if False:"),
        Edit(
            "padding never counts",
            "return not counts_padding or never_reads_padding(node, kernel)",
            "return True",
        ),
        Edit(
            "forgotten: windows that overhang",
            "if not kernel or may_overhang(node, kernel):",
            "if not kernel:",
        ),
        Edit(
            "a forward shift over space is its sum",
            "shift = affine.shift.mean(axis=tuple(range(2, affine.rank)), keepdims=True)",
            "shift = affine.shift.sum(axis=tuple(range(2, affine.rank)), keepdims=True)",
        ),
        Edit("the share of a window is not divided", "1.0 / math.prod(kernel)", "1.0"),
        Edit(
            "pads forgotten in the overhang",
            "(size + pads[axis] + pads[axis + spatial] - reach) % stride",
            "(size - reach) % stride",
        ),
    ),
    *mutants_of(
        "planning/operators/reduce.py",
        Edit("a sum takes the whole shift", "return shift / _count(node, axes)", "return shift"),
        Edit(
            "forward a sum counts the shift once",
            "return _mean(shift, axes) * _count(node, axes)",
            "return _mean(shift, axes)",
        ),
        Edit("forgotten: a scale on the reduced axis", "if set(affine.scale_axes) & set(axes):", "if False:"),
        Edit(
            "forgotten: a shift on the reduced axis of a maximum",
            "if set(varying_axes(shift)) & set(axes):",
            "if False:",
        ),
        Edit(
            "a maximum stays one under a negative scale",
            'return "ReduceMin" if node.op_type == "ReduceMax" else "ReduceMax"',
            "return None",
        ),
        Edit(
            "reduced axes come back in front",
            "[None if axis in axes else next(source) for axis in range(node.rank(0))]",
            "[None] * len(axes) + [axis for axis in range(array.ndim)]",
        ),
        Edit("kept axes vanish", "if keeps or axis not in axes]", "if axis not in axes]"),
    ),
    *mutants_of(
        "planning/operators/softmax.py",
        Edit("forgotten: a scale", "if affine.has_scale:", "if False:"),
        Edit(
            "forgotten: a shift along the axis",
            "if set(affine.shift_axes) & set(_normalised(node, affine.rank)):",
            "if False:",
        ),
        Edit(
            "old Softmax over one axis",
            'return range(node.int_attribute("axis", 1) % rank, rank)',
            'return range(node.int_attribute("axis", 1) % rank, node.int_attribute("axis", 1) % rank + 1)',
        ),
    ),
    *mutants_of(
        "planning/operators/normalization.py",
        Edit(
            "β is not scaled",
            "lambda b: np.broadcast_to(b * scale + shift, shape)",
            "lambda b: np.broadcast_to(b + shift, shape)",
        ),
        Edit(
            "β is not shifted",
            "lambda b: np.broadcast_to(b * scale + shift, shape)",
            "lambda b: np.broadcast_to(b * scale, shape)",
        ),
        Edit(
            "γ is divided",
            "lambda g: np.broadcast_to(g * scale, shape)",
            "lambda g: np.broadcast_to(g / scale, shape)",
        ),
        Edit(
            "forgotten: one parameter per group", "if not alike(grouped, grouped[:, :1]).all():", "if False:"
        ),
        Edit(
            "forgotten: a shift within a group", "if not alike(grouped, grouped[..., :1]).all():", "if False:"
        ),
        Edit(
            "forgotten: a scale is not dead",
            'if affine.has_scale:\n        raise Refused("NF114", f"a scale',
            'if False:\n        raise Refused("NF114", f"a scale',
        ),
        Edit(
            "forgotten: a shift along the normalised axes",
            "if set(affine.shift_axes) & set(normalised):",
            "if False:",
        ),
        Edit(
            "forgotten: RMSNormalization has no mean",
            'if node.op_type == "RMSNormalization":\n            raise',
            "if False:\n            raise",
        ),
        Edit(
            "the axis of LayerNormalization is the last",
            'return node.int_attribute("axis", -1) % node.rank(_X)',
            "return node.rank(_X) - 1",
        ),
        Edit(
            "the group's parameters per channel before opset 21",
            "if node.opset >= _PER_CHANNEL:",
            "if True:",
            equivalent="onnx.checker refuses the GroupNormalization of opset 18: no model has it",
        ),
    ),
]
