"""Which way an affine goes, what it may cost, and shifts that go to another branch of a sum."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "planning/sums.py",
        Edit(
            "the second operand of Sub counts as added",
            'return -1 if node.op_type == "Sub" and slot == 1 else 1',
            "return 1",
        ),
        Edit(
            "the first operand of Sub is subtracted too",
            'return -1 if node.op_type == "Sub" and slot == 1 else 1',
            'return -1 if node.op_type == "Sub" else 1',
        ),
        Edit("a sum of another domain is ONNX's", ' and node.domain in ("", "ai.onnx")', ""),
    ),
    *mutants_of(
        "planning/sideways.py",
        Edit(
            "the sign of the other operand is lost",
            "sign(reader.node, slot) * shift.shift, rank=shift.rank)",
            "shift.shift, rank=shift.rank)",
        ),
        Edit("forgotten: a graph output", "if value.is_graph_output():", "if False:"),
        Edit("forgotten: a reader that is no sum", "if not is_sum(use.node):", "if False:"),
        Edit(
            "forgotten: a sum that reads it twice",
            "or use.node in way.crossings:",
            "or False:",
            equivalent="the other operand is asked twice then, which bars the route with another reason",
        ),
        Edit("forgotten: a sum in a body", "if use.node.graph is not value.graph or", "if"),
        Edit(
            "forgotten: an operand that is broadcast",
            "if slot != own and fits(shift, reader, slot)]",
            "if slot != own]",
        ),
        Edit(
            "the operand that brings it takes it",
            "if slot != own and fits(shift, reader, slot)]",
            "if fits(shift, reader, slot)]",
        ),
        Edit("the value behind a sum keeps its name", "way.renamed.append(output)", "pass"),
        Edit("the shift arrives as it left", "arriving = crossing.affines[0]", "arriving = shift"),
    ),
    *mutants_of(
        "planning/crossing.py",
        Edit("any axis is allowed", "if outside:", "if False:"),
    ),
    *mutants_of(
        "planning/numbers.py",
        Edit("the range of float32 for every type", "ml_dtypes.finfo(dtype.numpy())", "np.finfo(np.float32)"),
        Edit(
            "forgotten: an attribute of a double is a float32",
            "if output_type(node) == ir.DataType.DOUBLE and float(np.float32(value)) != value:",
            "if False:",
        ),
        Edit(
            "a constant loses its axes behind",
            "values.shape[axes[0] :] if axes else ()",
            "[n for n in values.shape if n != 1]",
        ),
        Edit("forgotten: an affine that varies", "if affine.axes:", "if False:"),
    ),
    *mutants_of(
        "planning/routes.py",
        Edit(
            "the scale goes back with the shift that stays behind it",
            "yield Route(early, scale, None, deposit)",
            "yield Route(shift, scale, None, deposit)",
        ),
        Edit(
            "the shift goes ahead as it is in front",
            "yield Route(scale, shift, None, deposit)",
            "yield Route(scale, early or shift, None, deposit)",
        ),
        Edit(
            "forgotten: t/s far outside the range",
            "if dtype is not None and not safe_shift(early.shift, dtype):",
            "if False:",
        ),
        Edit(
            "forgotten: a scale of zero",
            "if early is None:\n            raise",
            "if False:\n            raise",
        ),
        Edit("forgotten: what was asked to stay", "if is_kept(node, self._keep):", "if False:"),
        Edit(
            "forgotten: the range of what is left",
            "self._check_affine(deposit.affine, deposit.value)",
            "pass",
        ),
        Edit("forgotten: two walks through one node", "if twice is not None:", "if False:"),
        Edit("a plan that costs more", "if not found.pays:", "if False:"),
        Edit(
            "forgotten: the affine of a fused LayerNormalization",
            "if self._anchored_stay and virtual(site).anchored:",
            "if False:",
        ),
        Edit(
            "the range of an edit is not looked at",
            "check_ranges(NodeView(node, self._workspace), crossing)",
            "pass",
        ),
        Edit("sums in float16 are not looked at", "check_sums(walk, self._workspace)", "pass"),
    ),
    *mutants_of(
        "planning/cost.py",
        Edit("any shift is a bias", "and set(affine.shift_axes) <= {affine.rank - 1}", "and True"),
        Edit("a scale is a bias", "and not affine.has_scale\n", "\n"),
        Edit(
            "more elements are fewer",
            "return left is not None and any(left.values())",
            "return left is not None",
        ),
        Edit(
            "a BatchNormalization on any axis",
            "return affine.axes == (1,) or (per_channel and not affine.axes)",
            "return True",
        ),
        Edit(
            "equal numbers cost more than others",
            "return affine.axes == (1,) or (per_channel and not affine.axes)",
            "return affine.axes == (1,)",
        ),
        Edit(
            "one that was a BatchNormalization varies anywhere",
            "return set(affine.axes) <= {1}",
            "return True",
        ),
    ),
]
