"""What reads affines, sends them through the graph, merges branches and writes the result."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "affine.py",
        Edit(
            "composed the wrong way round",
            "scale, moved = outer.scale * self.scale, outer.scale * self.shift",
            "scale, moved, outer = outer.scale * self.scale, self.scale * outer.shift, self",
        ),
        Edit(
            "the inner shift is not scaled",
            "scale, moved = outer.scale * self.scale, outer.scale * self.shift",
            "scale, moved = outer.scale * self.scale, self.shift",
        ),
        Edit(
            "t/s is t·s",
            "self.shift / self.scale, rank=self.rank)",
            "self.shift * self.scale, rank=self.rank)",
        ),
        Edit(
            "an axis collapses that varies at its end",
            "if alike(last, first).all() and alike(array, first).all():",
            "if alike(array.take([0, 1], axis=axis), first).all():",
        ),
        Edit(
            "axes re-indexed in reverse",
            "compact = array.transpose(kept + dropped)",
            "compact = array.transpose(kept[::-1] + dropped)",
        ),
        Edit(
            "two affines of one scale are the same",
            "bool(alike(self.scale, other.scale).all() and alike(self.shift, other.shift).all())",
            "bool(alike(self.scale, other.scale).all())",
        ),
        Edit("a vector laid along the axis behind", "shape[axis] = vector_.size", "shape[-1] = vector_.size"),
        Edit("float32 tells apart what counts as one", "_NOISE = 2.0**-49", "_NOISE = 2.0**-20"),
        Edit("rounding of float64 tells numbers apart", "_NOISE = 2.0**-49", "_NOISE = 0.0"),
        Edit(
            "what cancels leaves rounding",
            "return np.where(np.abs(total) <= _ROUNDING * np.abs(a), 0.0, total)",
            "return total",
        ),
    ),
    *mutants_of(
        "recognition/batchnorm.py",
        Edit(
            "epsilon forgotten", "inverse = scale / np.sqrt(var + epsilon)", "inverse = scale / np.sqrt(var)"
        ),
        Edit(
            "epsilon under no root",
            "inverse = scale / np.sqrt(var + epsilon)",
            "inverse = scale / (np.sqrt(var) + epsilon)",
        ),
        Edit(
            "variance without its root",
            "inverse = scale / np.sqrt(var + epsilon)",
            "inverse = scale / (var + epsilon)",
        ),
        Edit("the mean is not scaled", "shift = bias - mean * inverse", "shift = bias - mean"),
        Edit("the mean is added", "shift = bias - mean * inverse", "shift = bias + mean * inverse"),
        Edit(
            "mean and variance exchanged",
            "scale, bias, mean, var = arrays",
            "scale, bias, var, mean = arrays",
        ),
        Edit("the default epsilon is 1e-3", "float(np.float32(1e-5))", "float(np.float32(1e-3))"),
        Edit("forgotten: var + epsilon is positive", "if not (var + epsilon > 0).all():", "if False:"),
        Edit(
            "forgotten: training mode",
            'return node.attributes.get_int("training_mode", 0) == 0',
            "return True",
        ),
        Edit(
            "forgotten: training by outputs before opset 14",
            "return not any(v.name for v in node.outputs[1:])",
            "return True",
        ),
        Edit(
            "is_test is the default before opset 7",
            'node.attributes.get_int("is_test", 0) == 1',
            'node.attributes.get_int("is_test", 1) == 1',
        ),
        Edit("spatial = 0 read per channel", 'node.attributes.get_int("spatial", 1) == 0', "False"),
        Edit(
            "forgotten: the number of channels",
            "if isinstance(channels, int) and inverse.size != channels:",
            "if False:",
        ),
        Edit(
            "channels on the last axis",
            "Affine.of(along(inverse, 1, rank), along(shift, 1, rank), rank=rank)",
            "Affine.of(along(inverse, rank - 1, rank), along(shift, rank - 1, rank), rank=rank)",
        ),
    ),
    *mutants_of(
        "recognition/elementwise.py",
        Edit(
            "Sub of a constant adds it",
            "return Affine.of(1.0, -constant, rank=rank)",
            "return Affine.of(1.0, constant, rank=rank)",
        ),
        Edit(
            "a constant minus x keeps the sign of x",
            "return Affine.of(-1.0, constant, rank=rank)",
            "return Affine.of(1.0, constant, rank=rank)",
        ),
        Edit(
            "Div multiplies",
            "return Affine.of(1.0 / constant, rank=rank)",
            "return Affine.of(constant, rank=rank)",
        ),
        Edit("a constant divided by x is an affine", 'and node.op_type != "Div":', ":"),
        Edit(
            "Neg does nothing",
            "return Affine.of(-1.0, rank=rank)\n    operand",
            "return Affine.of(1.0, rank=rank)\n    operand",
        ),
        Edit("forgotten: the constant enlarges x", "if size != 1 and size != dim:", "if False:"),
        Edit("forgotten: the constant raises the rank", "if constant.ndim > rank:", "if False:"),
        Edit(
            "before opset 7 aligned at the end",
            'if opset < 7 and "axis" in node.attributes and array.ndim:',
            "if False:",
        ),
        Edit("forgotten: division by zero", "if not constant.all():", "if False:"),
    ),
    *mutants_of(
        "recognition/chains.py",
        Edit(
            "composed in the wrong order",
            "composed = affine.then(next_affine)",
            "composed = next_affine.then(affine)",
        ),
        Edit(
            "forgotten: another reader in the chain",
            "if y.is_graph_output() or len(uses) != 1:",
            "if y.is_graph_output():",
        ),
        Edit(
            "forgotten: a graph output in the chain",
            "if y.is_graph_output() or len(uses) != 1:",
            "if len(uses) != 1:",
        ),
    ),
    *mutants_of(
        "planning/walk.py",
        Edit("forgotten: a graph output on the way forward", "if source.is_graph_output():", "if False:"),
        Edit(
            "forgotten: a reader in a body on the way forward",
            "if reader.node.graph is not source.graph:",
            "if False:",
        ),
        Edit(
            "forgotten: a caller may replace the constant",
            "if workspace.constants.is_overridable(value):",
            "if False:",
            equivalent="only the reason changes: it is refused as an input then",
        ),
        Edit(
            "operators of other domains are ONNX's",
            'if view.node.domain in ("", "ai.onnx") else None',
            "if True else None",
        ),
        Edit(
            "a virtual node composes the wrong way",
            "walk.composed[node] = _compose(slots[0], virtual(node).affine)",
            "walk.composed[node] = _compose(virtual(node).affine, slots[0])",
        ),
        Edit("a scale passes a bias that stays", "is_bias(virtual(node).affine, x, workspace)", "True"),
    ),
    *mutants_of(
        "planning/agreement.py",
        Edit("forgotten: a graph output", "if value.is_graph_output():", "if False:"),
        Edit("forgotten: a reader in a body", "if reader.node.graph is not value.graph:", "if False:"),
        Edit(
            "forgotten: another reader",
            "if not _is_blind(reader.node, value, whole, workspace, table):",
            "if False:",
        ),
        Edit(
            "every reader is blind",
            "return not crossing.edits_node and all(",
            "return True or all(",
        ),
        Edit("one affine of two is enough", "if not (apart and all(", "if False and not (apart and all("),
        Edit(
            "CastLike reads no element of either operand",
            '(node.op_type == "CastLike" and slot == 1)',
            'node.op_type == "CastLike"',
        ),
    ),
    *mutants_of(
        "planning/dead_bias.py",
        Edit("any bias is dead", "edits=False", "edits=True"),
        Edit(
            "beta forgotten",
            'bias.compute() * view.float_attribute("beta", 1.0)',
            "bias.compute()",
            equivalent="a bias is dead whatever factor it has, unless beta is 0, and then it is no bias",
        ),
        Edit(
            "the bias lies on the last axis",
            '{"Conv": 1, "ConvTranspose": 1, "Gemm": 1}',
            '{"Conv": -1, "ConvTranspose": -1, "Gemm": -1}',
        ),
    ),
    *mutants_of(
        "planning/ranges.py",
        Edit("forgotten: overflow", "if peak > largest:", "if False:"),
        Edit("forgotten: not finite", "if not math.isfinite(peak):", "if False:"),
        Edit("forgotten: subnormal channels", "if lost.any():", "if False:"),
        Edit(
            "forgotten: a float16 sum without its scale",
            "if way.forward and any(np.abs(a.scale).min() < 1.0",
            "if False and any(np.abs(a.scale).min() < 1.0",
        ),
        Edit(
            "forgotten: what stays must fit its type",
            "if dtype is not None and not is_representable(affine, dtype):",
            "if False:",
        ),
        Edit("forgotten: t/s far outside", "< math.sqrt(largest)", "< largest"),
    ),
    *mutants_of(
        "planning/norm_affine.py",
        Edit("β is forgotten", 'shift if view.op_type == "LayerNormalization" else 0.0', "0.0"),
        Edit("γ stays", "((_SCALE, 1.0), (_SHIFT, 0.0))", "((_SHIFT, 0.0),)"),
        Edit("β stays", "((_SCALE, 1.0), (_SHIFT, 0.0))", "((_SCALE, 1.0),)"),
        Edit(
            "the parameters lie on the last axis",
            "return Affine.on_axis(scale, shift, axis=1, rank=rank)",
            "return Affine.on_axis(scale, shift, axis=rank - 1, rank=rank)",
        ),
    ),
    *mutants_of(
        "planning/linear_branches.py",
        Edit(
            "taps at the wrong offset",
            "(begin - own + step * np.arange(size)) // dilation",
            "(step * np.arange(size)) // dilation",
        ),
        Edit(
            "dilation forgotten",
            "(begin - own + step * np.arange(size)) // dilation",
            "(begin - own + np.arange(size)) // dilation",
        ),
        Edit(
            "pads of the first branch",
            "begin = max(branch.begin[axis] for branch in branches)",
            "begin = min(branch.begin[axis] for branch in branches)",
        ),
        Edit(
            "pads behind too large by one",
            "ends.append(max(slacks) + last + 1)",
            "ends.append(max(slacks) + last + 2)",
        ),
        Edit("forgotten: results of one size", "if len(slacks) > 1 and not (", "if False and not ("),
        Edit(
            "groups are those of the first branch",
            "groups = math.gcd(*(branch.groups for branch in branches))",
            "groups = first.groups",
        ),
        Edit(
            "groups widened in the wrong place",
            "own = (channel // out_per_group) % inner",
            "own = (channel // out_per_group) % inner * 0",
        ),
        Edit(
            "the shift of an affine branch is not kept",
            "bias=self.bias * scale + shift)",
            "bias=self.bias * scale)",
        ),
        Edit(
            "the bias of a branch is not scaled", "bias=self.bias * scale + shift)", "bias=self.bias + shift)"
        ),
        Edit("an average is a sum", "np.full(shape, 1.0 / math.prod(kernel))", "np.ones(shape)"),
        Edit(
            "forgotten: padding that does not count",
            'if any((*pads[0], *pads[1])) and not view.int_attribute("count_include_pad", 0):',
            "if False:",
        ),
        Edit("forgotten: ceil_mode", ' or view.int_attribute("ceil_mode", 0):', ":"),
        Edit("a Pad with another value than 0", " or fill.any():", ":"),
        Edit("a Pad on channels", "or any((*before[:2], *after[:2]))", "or False"),
        Edit(
            "forgotten: strides are equal",
            "{(branch.channels, branch.strides, len(branch.shape)) for branch in branches}",
            "{(branch.channels, len(branch.shape)) for branch in branches}",
        ),
        Edit("forgotten: an affine that varies over space", "if set(affine.axes) <= {1}:", "if True:"),
        Edit(
            "forgotten: another reader of a branch",
            "return len(uses) == 1 and not value.is_graph_output()",
            "return not value.is_graph_output()",
        ),
    ),
    *mutants_of(
        "planning/branches.py",
        Edit(
            "the sign of an outer sum is lost",
            "own = outer * sign(node, slot)",
            "own = float(sign(node, slot))",
        ),
        Edit("the second operand of Sub counts as added", "own = outer * sign(node, slot)", "own = outer"),
        Edit(
            "forgotten: another reader of an inner sum",
            "is_sum(producer) and is_private(value):",
            "is_sum(producer):",
        ),
        Edit(
            "the sign of a branch is lost",
            "np.full(branch.bias.shape, term.sign)",
            "np.ones(branch.bias.shape)",
        ),
        Edit(
            "only the first bias",
            "bias=np.sum([branch.bias for branch in branches], axis=0)",
            "bias=branches[0].bias",
        ),
        Edit(
            "others of the sum are lost",
            "others.append(Term(operand.outputs[0], self._sums[operand].sign))",
            "pass",
        ),
        Edit(
            "one term of the others is lost",
            "others += [] if id(operand) in names else [operand]",
            "others += [] if id(operand) in names else [operand][:0]",
        ),
    ),
    *mutants_of(
        "rewriting/lowering.py",
        Edit(
            "epsilon forgotten in γ",
            "gamma, beta = scale * np.sqrt(var + epsilon), shift + scale * mean",
            "gamma, beta = scale * np.sqrt(var), shift + scale * mean",
        ),
        Edit(
            "the mean forgotten in β",
            "gamma, beta = scale * np.sqrt(var + epsilon), shift + scale * mean",
            "gamma, beta = scale * np.sqrt(var + epsilon), shift",
        ),
        Edit(
            "variance 1 beside epsilon",
            "np.full(size, 1.0 - epsilon)",
            "np.full(size, 1.0)",
            equivalent="γ makes up for any variance: it is read from what was written",
        ),
        Edit(
            "Add before Mul",
            '[("Mul", affine.scale)] * affine.has_scale + [("Add", affine.shift)] * affine.has_shift',
            '[("Add", affine.shift)] * affine.has_shift + [("Mul", affine.scale)] * affine.has_scale',
        ),
        Edit(
            "a constant loses its axes behind",
            "return values.reshape(values.shape[axes[0] :]), {}",
            "return values.reshape([n for n in values.shape if n != 1]), {}",
        ),
    ),
    *mutants_of(
        "rewriting/apply.py",
        Edit(
            "a norm ends where its affine was",
            "workspace.sealed.discard(survivor)",
            "pass",
        ),
        Edit(
            "a change of meaning keeps the name",
            "value.name = _changed_name(value, workspace)\n    x, y",
            "pass\n    x, y",
        ),
        Edit(
            "what is left of the affine is forgotten",
            "content.affine, content.touched = plan.route.rest, True",
            "content.touched = True",
        ),
        Edit("a left-over behind the wrong readers", "reader.replace_input_with(slot, output)", "pass"),
        Edit("an operator keeps its type", "node.op_type = crossing.op_type", "pass"),
        Edit("the bias that is dropped stays in the name", "node.resize_inputs(_BIAS_SLOT)", "pass"),
        Edit("attributes are not changed", "node.attributes[name] = unrounded(name, value)", "pass"),
    ),
    *mutants_of(
        "rewriting/branches.py",
        Edit(
            "the sign of a constant term is lost",
            "arrays.append(term.sign * recipe.compute())",
            "arrays.append(recipe.compute())",
        ),
        Edit(
            "constants are an outer product",
            "if total.size > max(array.size for array in arrays):",
            "if False:",
        ),
        Edit("dilations of the merged Conv forgotten", '"dilations": list(layout.dilations),', ""),
        Edit("pads in front only", "[*layout.begin, *layout.end]", "[*layout.begin, *layout.begin]"),
        Edit("others are added whatever their sign", '"Add" if term.sign > 0 else "Sub"', '"Add"'),
        Edit("the bias is forgotten", "if merge.bias.any():", "if False:"),
        Edit("groups of the merged Conv forgotten", '"group": layout.groups,', ""),
    ),
    *mutants_of(
        "rewriting/bypass.py",
        Edit("any two Reshapes undo each other", "and dims == workspace.dims(node.outputs[0])", "and True"),
        Edit(
            "sizes that are not known are equal",
            "and all(isinstance(dim, int) for dim in dims)",
            "and True",
            equivalent="shape inference names every size that it does not know: one name is one size",
        ),
        Edit("forgotten: what was asked to stay", " and output.name not in keep", ""),
        Edit(
            "Dropout in training does nothing",
            "return training is not None and not training.any()",
            "return True",
        ),
        Edit(
            "forgotten: the mask of Dropout is read",
            "any(v.uses() or v.is_graph_output() for v in node.outputs[1:])",
            "False",
        ),
    ),
]
