"""What rules stand on: constants, sizes, axes; and what gives a folded model its normalisations back."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "preparation/constants.py",
        Edit("a dequantised weight is a constant", '"DequantizeLinear",\n', ""),
        Edit("a random number is a constant", '"RandomNormal",\n', ""),
        Edit("forgotten: Dropout in training", "and not _is_active_dropout(node)", "and True"),
        Edit(
            "operators of other domains are constants",
            'node.domain in ("", "ai.onnx")\n        and node.op_type not in _NEVER_CONSTANT',
            "node.op_type not in _NEVER_CONSTANT",
        ),
    ),
    *mutants_of(
        "preparation/constant64.py",
        Edit(
            "rows are scaled from the first on",
            "(aligned if len(aligned) == 1 else aligned[part])",
            "aligned[: part.stop - part.start]",
        ),
        Edit(
            "a factor is aligned in front",
            "factor.reshape((1,) * (len(self.shape) - factor.ndim) + factor.shape)",
            "factor.reshape(factor.shape + (1,) * (len(self.shape) - factor.ndim))",
        ),
        Edit("columns that contract are averaged", "(block * laid).sum(axis)", "(block * laid).mean(axis)"),
        Edit(
            "rows that contract are averaged",
            "(block * laid[start : start + len(block)]).sum(0)",
            "(block * laid[start : start + len(block)]).mean(0)",
        ),
        Edit(
            "each block contracts with the first factors",
            "laid[start : start + len(block)]",
            "laid[: len(block)]",
        ),
        Edit("only the last block of rows counts", "total = total + (block", "total = (block"),
        Edit("bfloat16 rounded twice", "if dtype != ir.DataType.BFLOAT16:", "if True:"),
    ),
    *mutants_of(
        "preparation/sizes.py",
        Edit("a remainder is dropped", "or self.factor % other.factor:", ":"),
        Edit("a symbol that is not there is divided out", "return None if theirs - mine else", "return"),
        Edit("factors add up", "_size(self.factor * other.factor,", "_size(self.factor + other.factor,"),
    ),
    *mutants_of(
        "preparation/reductions.py",
        Edit("negative axes stay negative", "sorted({axis % rank for axis in axes})", "sorted(set(axes))"),
        Edit(
            "noop_with_empty_axes ignored",
            'return () if node.int_attribute("noop_with_empty_axes", 0) else',
            "return",
        ),
        Edit(
            "ReduceSum takes its axes from opset 18 on",
            "_REDUCE_SUM_TAKES_AXES = 13",
            "_REDUCE_SUM_TAKES_AXES = 18",
        ),
    ),
    *mutants_of(
        "preparation/shape_expressions.py",
        Edit(
            "Slice of a shape from its start",
            "return found[starts[0] : ends[0] : steps[0]]",
            "return found[: ends[0] : steps[0]]",
        ),
        Edit(
            "start of Shape ignored",
            'return found[node.int_attribute("start", 0) : end]',
            "return found[:end]",
        ),
        Edit("Sub of sizes adds them", "_literal(lambda a, b: a - b)", "_literal(lambda a, b: a + b)"),
        Edit(
            "Div of sizes multiplies",
            '"Div": _elementwise(_quotient)',
            '"Div": _elementwise(lambda a, b: a * b)',
        ),
        Edit(
            "a Cast to a float keeps the size",
            "if source in integers and target in integers else None",
            "if True else None",
        ),
        Edit("parts of a Concat in reverse", "joined.extend(part)", "joined[:0] = part"),
    ),
    *mutants_of(
        "preparation/bounds.py",
        Edit(
            "a broadcast is as large as its larger operand",
            "return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))",
            "return largest",
        ),
        Edit("windows hold every element once", "return total * math.prod(kernel or ())", "return total"),
        Edit("Expand keeps the size", '"Erf",', '"Erf", "Expand",'),
        Edit("NonZero keeps the size", "return largest * _PER_ELEMENT[node.op_type]", "return largest"),
    ),
    *mutants_of(
        "rewriting/expressions.py",
        Edit(
            "forgotten: a graph output",
            "and not value.is_graph_output()\n        and constants",
            "and constants",
        ),
        Edit("forgotten: it takes more room", " or math.prod(constant.shape) > freed:", ":"),
        Edit(
            "a leaf that others read is freed",
            "if all(use.node in nodes for use in leaf.uses()))",
            "if True)",
        ),
    ),
    *mutants_of(
        "rewriting/initializers.py",
        Edit(
            "forgotten: what was unused before",
            "if node not in nodes and _is_dead(node):",
            "if _is_dead(node):",
        ),
        Edit(
            "names that are taken",
            "if old is None or old.name in taken or not old.name:",
            "if old is None or not old.name:",
        ),
        Edit("not listed as inputs before IR version 4", "graph.inputs.append(value)", "pass"),
        Edit("an initializer that a caller may replace goes", "or value in overridable or", "or"),
    ),
    *mutants_of(
        "rewriting/untiling.py",
        Edit(
            "forgotten: what was asked to stay",
            "and not any(is_kept(member) for member in found.nodes):",
            ":",
        ),
        Edit("the parameters stay tiled", "enumerate((found.x, *found.parameters))", "enumerate((found.x,))"),
    ),
    *mutants_of(
        "rewriting/raising.py",
        Edit("a chain that does nothing gives its result", "chain.y.replace_all_uses_with(chain.x)", "pass"),
    ),
    *mutants_of(
        "consistency/unfolding.py",
        Edit(
            "epsilon forgotten", "forward = scale / np.sqrt(var + epsilon)", "forward = scale / np.sqrt(var)"
        ),
        Edit(
            "the mean is subtracted", "origin = mean - shift * backward", "origin = -mean - shift * backward"
        ),
        Edit("the shift is added", "origin = mean - shift * backward", "origin = mean + shift * backward"),
        Edit("the inverse is the normalisation", "backward = 1.0 / forward", "backward = forward"),
        Edit(
            "constants on the last axis",
            "along(values, 1, len(dims))[0]",
            "along(values, len(dims) - 1, len(dims))[0]",
        ),
        Edit(
            "forgotten: γ of zero",
            "if not (np.isfinite(backward).all() and np.isfinite(origin).all()):",
            "if False:",
        ),
        Edit(
            "forgotten: the number of channels",
            "if isinstance(dims[1], int) and dims[1] != scale.size:",
            "if False:",
        ),
        Edit(
            "forgotten: further affines in the chain",
            "if y is None or y.producer() is None or not record.alone:",
            "if y is None or y.producer() is None:",
        ),
        Edit("every reader gets it back", "if _leads_to(use.node, record.into)]", "]"),
        Edit(
            "the normalisation behind its inverse",
            "parts.norm.replace_input_with(0, x)\n"
            "    parts.scaled.replace_input_with(0, parts.norm.outputs[0])",
            "parts.scaled.replace_input_with(0, x)\n"
            "    parts.norm.replace_input_with(0, parts.shifted.outputs[0])",
        ),
    ),
]
