"""What reads normalisations, as operators and as algebra, and gives them another form."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "recognition/groupnorm/operators.py",
        Edit("the default epsilon is 1e-3", "float(np.float32(1e-5))", "float(np.float32(1e-3))"),
        Edit(
            "epsilon forgotten",
            'return node.float_attribute("epsilon", _DEFAULT_EPSILON)',
            "return 0.0",
        ),
        Edit("InstanceNormalization averages over channels", "set(range(2, rank))", "set(range(1, rank))"),
        Edit(
            "scale and shift on the last axis",
            "shape = (-1, *(1,) * (rank - 2))",
            "shape = (*(1,) * (rank - 2), -1)",
        ),
        Edit(
            "scale and shift exchanged",
            "scale, shift = (reader.parameter(node, slot).reshape(-1) for slot in (1, 2))",
            "scale, shift = (reader.parameter(node, slot).reshape(-1) for slot in (2, 1))",
        ),
        Edit(
            "channels of a group are not neighbours",
            "[*sizes[:axis], Size(groups), rest, *sizes[axis + 1 :]]",
            "[*sizes[:axis], rest, Size(groups), *sizes[axis + 1 :]]",
        ),
        Edit(
            "the groups are averaged over",
            "averaged = set(range(1, len(view))) - {axis}",
            "averaged = set(range(1, len(view)))",
        ),
        Edit(
            "channels_last ignored",
            'axis = len(x.view) - 1 if node.int_attribute("channels_last", 1) else 1',
            "axis = 1",
        ),
        Edit("the activation is forgotten", 'if node.int_attribute("activation", 0) == 1:', "if False:"),
        Edit(
            "the axis of LayerNormalization is the last",
            'axes = set(range(node.int_attribute("axis", -1) % rank, rank))',
            "axes = {rank - 1}",
        ),
        Edit(
            "RMSNormalization subtracts a mean",
            'centred = node.op_type == "LayerNormalization"',
            "centred = True",
        ),
        Edit(
            "the shift of LayerNormalization is forgotten",
            "if node.has(2) else np.zeros(())",
            "* 0.0 if node.has(2) else np.zeros(())",
        ),
        Edit(
            "parameters of a group are those of its channels",
            "pieces = per_group if array.size",
            "pieces = channel if array.size",
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/reader.py",
        Edit(
            "the mean is added",
            "terms = total(terms, self.averaged(expression, axes), -1.0)",
            "terms = total(terms, self.averaged(expression, axes))",
        ),
        Edit(
            "epsilon is subtracted",
            "{(0, 0, 0, ()): Laid.number(epsilon)})\n        root",
            "{(0, 0, 0, ()): Laid.number(epsilon)}, -1.0)\n        root",
        ),
        Edit(
            "forgotten: the shift of an affine",
            "if shift.any():\n        terms = total(terms, {(0, 0, 0, ()): beta})",
            "if False:\n        terms = total(terms, {(0, 0, 0, ()): beta})",
        ),
        Edit("forgotten: an activation comes first", 'if found.form != "sum":', "if False:"),
    ),
    *mutants_of(
        "recognition/groupnorm/arithmetic.py",
        Edit(
            "Sub adds",
            "return a.computed(total(a.terms, b.terms, -1.0))",
            "return a.computed(total(a.terms, b.terms))",
        ),
        Edit(
            "Div multiplies",
            "return a.computed(product(a.terms, reader.statistics.inverse(b.terms)))",
            "return a.computed(product(a.terms, b.terms))",
        ),
        Edit("Neg does nothing", "x.computed(total({}, x.terms, -1.0))", "x.computed(x.terms)"),
        Edit(
            "a power of -0.5 is one of 0.5",
            "return x.computed(root if exponent > 0 else reader.statistics.inverse(root))",
            "return x.computed(root)",
        ),
        Edit("any power is a square", "if exponent == 2.0:", "if exponent > 1.0:"),
        Edit(
            "forgotten: a maximum with something else",
            "_scalar(reader.constant(node, 1)) != 0.0):",
            "False):",
        ),
        Edit("forgotten: a clip with an upper bound", ' or node.has(2) or node.has_attribute("max"):', ":"),
        Edit(
            "forgotten: it may be negative",
            "if variance.constant < 0 or variance.mean < -variance.square * (1 + 1e-12):",
            "if False:",
        ),
        Edit("forgotten: a cast to integers", "if node.output_dtype() not in FLOAT_TYPES:", "if False:"),
        Edit("forgotten: a Swish with another slope", "1.0) != 1.0:", "1.0) == 0.0:"),
        Edit(
            "forgotten: a gate on another value",
            "if source is None or maker.inputs[0] is not source:",
            "if False:",
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/averages.py",
        Edit(
            "a sum is a mean",
            "return Expression(mean.view, product(mean.terms, reader.statistics.count(size)))",
            "return mean",
        ),
        Edit(
            "a sum of squares is a sum",
            "_reduced(node, reader, x.computed(product(x.terms, x.terms)))",
            "_reduced(node, reader, x)",
        ),
        Edit(
            "GlobalAveragePool averages over channels",
            "set(range(2, len(x.view)))",
            "set(range(1, len(x.view)))",
        ),
        Edit("reduced axes stay", '"keepdims", 1) == 1', '"keepdims", 1) == 0'),
    ),
    *mutants_of(
        "recognition/groupnorm/counts.py",
        Edit("K − 1 is K + 1", '-1.0 if op_type == "Sub" else 1.0', "1.0"),
        Edit(
            "a quotient of sizes is a product",
            "return product(operands[0], self._statistics.inverse(operands[1]))",
            "return product(operands[0], operands[1])",
        ),
        Edit(
            "forgotten: a size cut off to an integer",
            'if not is_float and (maker.op_type == "Div" or self._reads_float(maker.node)):',
            "if False:",
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/terms.py",
        Edit(
            "means over different axes are one",
            "if frozenset(uncut(self.averaged)) != pieces:",
            "if False:",
        ),
        Edit(
            "a weighted mean is a mean",
            "if pieces & set(settled.pieces) or x > 2:",
            "if x > 2:",
        ),
        Edit("the mean of x³ is that of x²", "or x > 2:", "or x > 3:"),
        Edit(
            "forgotten: a mean over what a constant spans",
            "if any(piece.axis is None for piece in pieces):",
            "if False:",
        ),
        Edit(
            "roots of different radicands are one",
            "if isinstance(known, Radicand) and known.is_close(radicand):",
            "if isinstance(known, Radicand):",
        ),
        Edit("forgotten: further terms under a root", "if parts or square is None", "if square is None"),
        Edit(
            "forgotten: a divisor with further factors",
            "if key[:3] != (0, 0, 0) or not laid.array.all():",
            "if not laid.array.all():",
        ),
        Edit(
            "forgotten: √var + ε is no root",
            "if coefficient is None or not is_count:",
            "if coefficient is None:",
        ),
        Edit(
            "the root of a square of a root is its square", "tuple((n, p // 2) for n, p in key[3])", "key[3]"
        ),
        Edit(
            "forgotten: roots of other products",
            "or not are_roots or laid.scalar != 1.0:",
            "or laid.scalar != 1.0:",
        ),
        Edit("forgotten: a factor of a root", "or not are_roots or laid.scalar != 1.0:", "or not are_roots:"),
        Edit(
            "one over a variance is one over its root",
            "return (0, 0, 0, ((number, 2),))",
            "return (0, 0, 0, ((number, 1),))",
        ),
        Edit("powers are not added up", "powers.get(number, 0) + power", "power"),
    ),
    *mutants_of(
        "recognition/groupnorm/matching.py",
        Edit(
            "epsilon is not divided by a",
            "epsilon = radicand.constant / square",
            "epsilon = radicand.constant",
        ),
        Edit("γ is not divided by √a", "factor = 1.0 / math.sqrt(square)", "factor = 1.0"),
        Edit("γ is divided by a", "factor = 1.0 / math.sqrt(square)", "factor = 1.0 / square"),
        Edit("forgotten: other terms", "if terms or radicand.constant < 0:", "if radicand.constant < 0:"),
        Edit("forgotten: a negative epsilon", "if terms or radicand.constant < 0:", "if terms:"),
        Edit("forgotten: the mean that the root has", "if radicand.mean != 0.0:", "if False:"),
        Edit(
            "forgotten: the mean is subtracted from the square",
            "(_cancels(radicand.mean, radicand.square) and _opposite(scale, centre))",
            "_opposite(scale, centre)",
        ),
        Edit(
            "forgotten: as much of the mean is subtracted",
            "(_cancels(radicand.mean, radicand.square) and _opposite(scale, centre))",
            "_cancels(radicand.mean, radicand.square)",
        ),
        Edit(
            "forgotten: an open factor of the variance",
            "if unbiased and not _is_unbiased(radicand, averaged, reader.statistics):",
            "if False:",
        ),
        Edit("forgotten: samples are averaged over", "if 0 in gone or 0 in cut:", "if False:"),
        Edit(
            "forgotten: channels of a group are neighbours",
            " and inner == sorted(inner):",
            ":",
        ),
        Edit(
            "forgotten: an axis that is not averaged over",
            "if groups and all(place in gone or not axes[place] for place in spatial):",
            "if groups:",
        ),
        Edit(
            "forgotten: an axis besides the channels that is not averaged over",
            "if not all(place in gone or not axes[place] for place in spatial):",
            "if False:",
        ),
        Edit(
            "forgotten: an affine along another axis than the channels'",
            "if varying - {channel} or not axes[channel]:",
            "if not axes[channel]:",
        ),
        Edit(
            "scale and shift exchanged",
            "for laid in (scale, shift)\n    )\n    epsilon",
            "for laid in (shift, scale)\n    )\n    epsilon",
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/layout.py",
        Edit(
            "Transpose by the inverse",
            "tuple(x.view[axis] for axis in order)",
            "tuple(x.view[order.index(axis)] for axis in range(len(order)))",
        ),
        Edit(
            "Flatten at the axis behind",
            "sizes[:axis]), Size.product(sizes[axis:])",
            "sizes[: axis + 1]), Size.product(sizes[axis + 1 :])",
        ),
        Edit(
            "forgotten: an axis of more than one is squeezed",
            "if any(x.view[axis] for axis in gone):",
            "if False:",
            equivalent="a Squeeze runs only where the axis has one element",
        ),
        Edit(
            "forgotten: an Expand that enlarges",
            "if any(reader.resolved(wanted) not in",
            "if False and any(reader.resolved(wanted) not in",
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/frame.py",
        Edit(
            "pieces from the back in reverse",
            "tuple(taken if from_front else reversed(taken))",
            "tuple(taken)",
        ),
        Edit(
            "a piece cut the wrong way round",
            "parts = piece.cut(wanted, rest) if from_front else piece.cut(rest, wanted)",
            "parts = piece.cut(rest, wanted) if from_front else piece.cut(wanted, rest)",
        ),
        Edit(
            "forgotten: sizes provably meet",
            "if pieces or any(axis is None for axis in result):",
            "if any(axis is None for axis in result):",
            equivalent="a reshape that leaves pieces over runs only where they have one element",
        ),
        Edit(
            "forgotten: a constant that enlarges",
            "if None in sizes or math.prod",
            "if None in sizes or False and math.prod",
        ),
        Edit(
            "forgotten: operands over different axes",
            "if a and b and a != b and not (_named(a, b) or _named(b, a)):",
            "if False:",
        ),
        Edit(
            "an axis of x turns out to be another",
            "        or spanned[0].axis is not None\n",
            "",
        ),
        Edit(
            "forgotten: what a constant spans is of another size",
            "or Size.product(p.size for p in axis) != spanned[0].size",
            "or not axis",
        ),
        Edit(
            "forgotten: two axes that are the same", "return len(set(pieces)) < len(pieces)", "return False"
        ),
    ),
    *mutants_of(
        "recognition/groupnorm/search.py",
        Edit("forgotten: a value inside that is read outside", "if leak is not None:", "if False:"),
        Edit(
            "forgotten: the type changes",
            "if self._workspace.shapes.dtype(y) != self._workspace.shapes.dtype(self._reader.base):",
            "if False:",
        ),
        Edit(
            "forgotten: further outputs",
            "or y in self._reader.known or _has_more_outputs(node):",
            "or y in self._reader.known:",
        ),
        Edit("SiLU is forgotten", '"silu" if expression.form == "silu" else None,', "None,"),
        Edit("forgotten: a scaled x is not x", "and laid.scalar == 1.0", "and True"),
    ),
    *mutants_of(
        "recognition/idioms.py",
        Edit("a LayerNormalization over any axis", "return axes in ([-1], [last])", "return True"),
        Edit(
            "any Sigmoid is a gate",
            "return {node, product, scaled} if is_gate else set()",
            "return {node, product, scaled}",
        ),
        Edit(
            "forgotten: 1 + erf",
            'if not _is(plus_one, "Add") or not _has_constant(plus_one, 1.0, workspace):',
            'if not _is(plus_one, "Add"):',
        ),
    ),
    *mutants_of(
        "recognition/tiled_batchnorm.py",
        Edit("forgotten: training", " or not is_inference(norm, view.opset):", ":"),
        Edit(
            "forgotten: batch and channels merge",
            "if merged != [Size(1), before[0] * before[1], *before[2:]] or after != before:",
            "if after != before:",
        ),
        Edit(
            "forgotten: the shape comes back",
            "if merged != [Size(1), before[0] * before[1], *before[2:]] or after != before:",
            "if merged != [Size(1), before[0] * before[1], *before[2:]]:",
        ),
        Edit(
            "forgotten: as often as there are samples",
            "if elements(tile, 1) == [batch] else None",
            "if True else None",
        ),
        Edit("forgotten: another reader", "if y.is_graph_output() or len(uses) != 1:", "if not uses:"),
    ),
    *mutants_of(
        "rewriting/norm_forms/builder.py",
        Edit(
            "as many elements as groups",
            '[0, self.norm.groups, -1], "groups"',
            '[0, -1, self.norm.groups], "groups"',
        ),
        Edit(
            "scale and shift on the last axis",
            "along(values, 1, rank)[0]",
            "along(values, rank - 1, rank)[0]",
        ),
        Edit(
            "the epsilon of the affine forgotten",
            "norm.scale * np.sqrt(exact + _EPSILON)",
            "norm.scale * np.sqrt(exact)",
        ),
        Edit(
            "SiLU without its gate",
            'self.op("Mul", [value, self.op("Sigmoid", [value], self.dims)], self.dims)',
            'self.op("Sigmoid", [value], self.dims)',
        ),
        Edit(
            "channels last are not moved",
            "if not self.channels_last:\n            return self.norm.x",
            "if True:\n            return self.norm.x",
        ),
        Edit(
            "the result is laid out like x",
            "order = (0, *range(2, len(self.dims)), 1)",
            "order = (0, len(self.dims) - 1, *range(1, len(self.dims) - 1))",
        ),
        Edit(
            "the shift is forgotten",
            'for op_type, values, neutral in (("Mul", self.norm.scale, 1.0), ("Add", self.norm.shift, 0.0)):',
            'for op_type, values, neutral in (("Mul", self.norm.scale, 1.0),):',
        ),
    ),
    *mutants_of(
        "rewriting/norm_forms/instance_normalization.py",
        Edit("epsilon forgotten", '{"epsilon": unrounded("epsilon", norm.epsilon)}', "{}"),
        Edit(
            "scale and shift exchanged",
            '[builder.constant(norm.scale, "scale"), builder.constant(norm.shift, "bias")]',
            '[builder.constant(norm.shift, "scale"), builder.constant(norm.scale, "bias")]',
        ),
        Edit("a group is a channel", "if norm.groups == norm.channels:", "if norm.groups <= norm.channels:"),
    ),
    *mutants_of(
        "rewriting/norm_forms/layer_normalization.py",
        Edit(
            "epsilon forgotten",
            '"axis": -1, "epsilon": unrounded("epsilon", builder.norm.epsilon)',
            '"axis": -1',
        ),
        Edit("over all but the samples", '{"axis": -1,', '{"axis": 1,'),
        Edit("transposed back the same way", "(0, rank - 1, *range(1, rank - 1))", "(0, *range(2, rank), 1)"),
    ),
    *mutants_of(
        "rewriting/norm_forms/group_normalization.py",
        Edit("epsilon forgotten", ', "epsilon": unrounded("epsilon", norm.epsilon)', ""),
        Edit("as many groups as channels", '"num_groups": norm.groups', '"num_groups": norm.channels'),
        Edit(
            "the shift is forgotten",
            'builder.constant(norm.shift, "bias")',
            'builder.constant(0 * norm.shift, "bias")',
        ),
    ),
    *mutants_of(
        "rewriting/norm_forms/contrib_group_norm.py",
        Edit("epsilon forgotten", '"epsilon": unrounded("epsilon", norm.epsilon),', ""),
        Edit(
            "the activation is forgotten", '"activation": int(norm.activation == "silu"),', '"activation": 0,'
        ),
        Edit(
            "γ in the type of x",
            'builder.constant(norm.scale, "gamma", ir.DataType.FLOAT)',
            'builder.constant(norm.scale, "gamma")',
        ),
        Edit(
            "transposed back the same way", "_CHANNELS_FIRST = (0, 3, 1, 2)", "_CHANNELS_FIRST = (0, 2, 3, 1)"
        ),
    ),
    *mutants_of(
        "rewriting/norm_forms/primitive.py",
        Edit(
            "epsilon forgotten",
            "Constant64.of(np.array(builder.norm.epsilon), wide)",
            "Constant64.of(np.array(0.0), wide)",
        ),
        Edit(
            "the mean is added",
            'builder.op("Sub", [x, mean(x)], dims, dtype=wide)',
            'builder.op("Add", [x, mean(x)], dims, dtype=wide)',
        ),
        Edit("squares of x, not of what is centred", '"Mul", [centred, centred]', '"Mul", [x, x]'),
        Edit(
            "divided by the variance",
            'builder.op("Sqrt", [builder.op("Add", [variance, epsilon], row, dtype=wide)], row, dtype=wide)',
            'builder.op("Add", [variance, epsilon], row, dtype=wide)',
        ),
        Edit("means over the groups", 'builder.integers([2], "axes")', 'builder.integers([1], "axes")'),
    ),
    *mutants_of(
        "rewriting/layout.py",
        Edit(
            "any two Transposes undo each other",
            "if first is None or not _are_inverse(first, node):",
            "if first is None:",
        ),
        Edit(
            "forgotten: another reader in between",
            "or len(value.uses()) != 1 or value.is_graph_output():",
            "or value.is_graph_output():",
        ),
        Edit(
            "a graph output in between",
            "or len(value.uses()) != 1 or value.is_graph_output():",
            "or len(value.uses()) != 1:",
        ),
        Edit(
            "what lies in between keeps its name",
            'value.name = workspace.fresh_name(f"{value.name}_channels_last")',
            "pass",
        ),
    ),
    *mutants_of(
        "planning/norm_forms.py",
        Edit(
            "a double gets an InstanceNormalization",
            "if dtype == ir.DataType.DOUBLE and form in",
            "if False and form in",
        ),
        Edit(
            "forgotten: an epsilon that an attribute cannot hold",
            "and float(np.float32(norm.epsilon)) != norm.epsilon",
            "and False",
        ),
        Edit("forgotten: K − 1", "if norm.unbiased:", "if False:"),
        Edit(
            "forgotten: an even number of channels per group",
            "if norm.channels // norm.groups % 2:",
            "if False:",
        ),
        Edit(
            "forgotten: how many channels a block has",
            "if norm.channels // norm.groups > _MOST_CHANNELS_OF_A_BLOCK:",
            "if False:",
        ),
        Edit("GroupNormalization from opset 18 on", "_SCALE_PER_CHANNEL = 21", "_SCALE_PER_CHANNEL = 18"),
    ),
    *mutants_of(
        "planning/opset.py",
        Edit("forgotten: an operator that changed", "if changed is not None:", "if False:"),
        Edit("forgotten: ceil_mode of AveragePool", "(setting is not None and setting.value)", "False"),
        Edit(
            "forgotten: local functions",
            "if model.functions:",
            "if False:",
            equivalent="they are inlined first",
        ),
        Edit("forgotten: further outputs of BatchNormalization", "and not further", "and True"),
        Edit(
            "defaults may change",
            "return attribute.type, attribute.required, attribute.default_value.SerializeToString()",
            "return attribute.type, attribute.required",
        ),
    ),
    *mutants_of(
        "folding/norm_step.py",
        Edit(
            "forgotten: a norm that was asked to stay",
            "elif not any(is_kept(node, options.keep) for node in found.nodes):",
            "else:",
        ),
        Edit("forgotten: x has been replaced", "step.moved.get(found.x, found.x)", "found.x"),
        Edit("the opset is not raised", "    raise_opset(workspace, needed)", "    pass"),
        Edit("forgotten: what bars a later opset", "if barred is not None:", "if False:"),
        Edit("forgotten: what reads a norm from outside stays", "if node in leaving and read:", "if False:"),
        Edit("what stays means what it does in the new opset", "node.version = workspace.opset", "pass"),
        Edit(
            "SiLU goes with the form, whatever form",
            'return norm if form == "ms-groupnorm" else',
            "return norm if True else",
        ),
    ),
]
