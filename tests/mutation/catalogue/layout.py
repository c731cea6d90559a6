"""Operators that move, copy or take elements."""

from __future__ import annotations

from tests.mutation.mutant import Edit, mutants_of

MUTANTS = [
    *mutants_of(
        "planning/operators/transpose.py",
        Edit(
            "backward and forward exchanged",
            "inverse = [permutation.index(axis) for axis in range(len(permutation))]",
            "inverse = permutation",
        ),
        Edit("the default permutation is none", "list(reversed(range(rank)))", "list(range(rank))"),
    ),
    *mutants_of(
        "planning/operators/reshape.py",
        Edit(
            "Flatten at the axis behind",
            "Size.product(before[:axis]), Size.product(before[axis:])",
            "Size.product(before[:axis - 1]), Size.product(before[axis - 1:])",
        ),
        Edit(
            "backward carries like forward",
            "carried(wanted[0], axes.reversed(), _described(node))",
            "carried(wanted[0], axes, _described(node))",
        ),
    ),
    *mutants_of(
        "preparation/shape_expressions.py",
        Edit(
            "0 in the target is no copy",
            "elif word.number == 0 and copies and axis < len(before):",
            "elif False:",
        ),
        Edit(
            "allowzero is ignored",
            'copies = node.int_attribute("allowzero", 0) == 0',
            "copies = True",
            equivalent="a dimension of 0 makes a value without elements, which nothing can tell apart",
        ),
        Edit(
            "the remainder is a copy",
            "target[remainder] = Size.product(before).divided_by(others) or target[remainder]",
            "target[remainder] = before[min(remainder, len(before) - 1)]",
        ),
    ),
    *mutants_of(
        "planning/operators/_layout.py",
        Edit(
            "axes cut from the front only",
            "for ours, theirs in (fronts, backs):",
            "for ours, theirs in (fronts,):",
        ),
        Edit(
            "any axes of one size correspond",
            "for j, b in enumerate(theirs) if a == b}",
            "for j, b in enumerate(theirs) if a == b or (i == j and i < min(len(ours), len(theirs)) - 1)}",
        ),
        Edit(
            "tiled where it has to repeat",
            "repeated = np.repeat(flat, common // count, axis=1)",
            "repeated = np.tile(flat, (1, common // count, 1))",
        ),
        Edit(
            "repeated where it has to tile",
            "tiled = np.tile(flat, (1, common // period, 1))",
            "tiled = np.repeat(flat, common // period, axis=1)",
        ),
        Edit(
            "forgotten: every period is the same",
            "return first if alike(tiled, first[:, None]).all() else None",
            "return first",
        ),
        Edit(
            "forgotten: every share is the same",
            "return first if alike(repeated, first[:, :, None]).all() else None",
            "return first",
        ),
        Edit(
            "parts that ask differently on one number",
            "and all(a.shape == first.shape and alike(a, first).all() for a in arrays):",
            "and all(a.shape == first.shape for a in arrays):",
        ),
        Edit(
            "a negative axis counts from 1",
            "return axis + rank if axis < 0 else axis",
            "return axis + rank - 1 if axis < 0 else axis",
        ),
        Edit("forgotten: empty axes", "if 0 in self.before or 0 in self.after:", "if False:"),
    ),
    *mutants_of(
        "planning/operators/concat.py",
        Edit("parts of the wrong input", "partial(part, slot=i)", "partial(part, slot=len(slots) - 1 - i)"),
        Edit(
            "the default axis is 0",
            'node.int_attribute("axis", 1)',
            'node.int_attribute("axis", 0)',
            equivalent="before opset 4 only, which has no test models: from then on the axis is required",
        ),
        Edit(
            "an input that brings nothing brings what the first does",
            "given.get(slot, nothing)",
            "given.get(slot, next(iter(given.values())))",
        ),
        Edit("forgotten: the parts differ", "if axis not in affine.axes:", "if True:"),
    ),
    *mutants_of(
        "planning/operators/slice_split.py",
        Edit(
            "unread elements are asked for the wrong scale",
            "scale = self._put(scale, axis, 1.0, node)",
            "scale = self._put(scale, axis, 0.5, node)",
            equivalent="unread elements are free: whatever they are asked for, nothing shows it",
        ),
        Edit(
            "a Slice takes from the start",
            "range(size)[starts[place] : ends[place] : steps[place]]",
            "range(size)[: ends[place] - starts[place] : steps[place]]",
        ),
        Edit(
            "steps ignored",
            "range(size)[starts[place] : ends[place] : steps[place]]",
            "range(size)[starts[place] : ends[place]]",
        ),
        Edit(
            "the parts of a Split in reverse",
            "array.take(range(starts[index], starts[index + 1]) or [0], axis=axis)",
            "array.take(range(starts[-index - 2], starts[-index - 1]) or [0], axis=axis)",
        ),
        Edit("equal parts rounded down", "part = -(-size // count)", "part = size // count"),
        Edit("bounds laid on the wrong axis", "place = self._axes(node, rank).index(axis)", "place = 0"),
        Edit(
            "a backward Slice fills the wrong places",
            "np.moveaxis(whole, axis, 0)[read] = np.moveaxis(array, axis, 0)",
            "np.moveaxis(whole, axis, 0)[: len(read)] = np.moveaxis(array, axis, 0)",
        ),
    ),
    *mutants_of(
        "planning/operators/gather.py",
        Edit(
            "places that read one element ask differently",
            "if not alike(whole.take(indices.reshape(-1), axis=axis), wanted).all():",
            "if False:",
        ),
        Edit(
            "gathered along the axis behind",
            "return array.take(indices, axis=axis)",
            "return array.take(indices - 1, axis=axis)",
        ),
        Edit(
            "the axes of the indices are lost",
            "*[1] * node.rank(1), *array.shape[axis + 1 :]",
            "1, *array.shape[axis + 1 :]",
        ),
        Edit(
            "scattered in order",
            "np.moveaxis(whole, axis, 0)[indices.reshape(-1)] =",
            "np.moveaxis(whole, axis, 0)[np.sort(indices.reshape(-1))] =",
        ),
    ),
    *mutants_of(
        "planning/operators/expand_tile.py",
        Edit("forgotten: an axis that is copied", "if own == 1:", "if False:"),
        Edit(
            "Tile repeats each element",
            "np.concatenate([array] * count, axis=axis)",
            "np.repeat(array, count, axis=axis)",
        ),
        Edit(
            "forgotten: the period of X",
            "if not all(alike(part, parts[0]).all() for part in parts):",
            "if False:",
        ),
        Edit("new axes of an Expand behind", "new = array.ndim - rank", "new = 0"),
    ),
    *mutants_of(
        "planning/operators/squeeze.py",
        Edit(
            "axes put back at the end",
            "new = {normalised(axis, rank) for axis in axes}",
            "new = set(range(rank - len(axes), rank))",
        ),
        Edit(
            "forgotten: negative axes count from the result",
            "gone = {normalised(axis, array.ndim) for axis in axes}",
            "gone = {abs(axis) for axis in axes}",
        ),
        Edit(
            "without axes nothing is squeezed",
            "return [axis for axis, dim in enumerate(dims) if dim == 1]",
            "return []",
        ),
    ),
    *mutants_of(
        "planning/operators/depth_to_space.py",
        Edit("DCR and CRD exchanged", '"mode", "DCR") == "DCR"', '"mode", "DCR") != "DCR"'),
        Edit("the default mode is CRD", '"mode", "DCR")', '"mode", "CRD")'),
        Edit("forgotten: the same within a block", "if not alike(laid, first).all():", "if False:"),
        Edit("forgotten: uniform over the pixels", "if array.shape[2:] != (1, 1):", "if False:"),
        Edit(
            "channels tiled where they repeat",
            "return ([1, 2, 0], [2, 0, 1]) if depth_first else ([0, 1, 2], [0, 1, 2])",
            "return ([0, 1, 2], [0, 1, 2]) if depth_first else ([0, 1, 2], [0, 1, 2])",
        ),
    ),
    *mutants_of(
        "planning/operators/pad.py",
        Edit(
            "the pad value is not scaled",
            "after = _one_number((affine.scale * before + affine.shift)[met], node)",
            "after = _one_number((0 * affine.scale + before + affine.shift)[met], node)",
        ),
        Edit(
            "the pad value is not shifted",
            "after = _one_number((affine.scale * before + affine.shift)[met], node)",
            "after = _one_number((affine.scale * before + 0 * affine.shift)[met], node)",
        ),
        Edit(
            "forgotten: one pad value for all channels",
            "if not alike(values, values.flat[:1]).all():",
            "if False:",
        ),
        Edit(
            "forward the pad value is moved, not moved back", "value - affine.shift)", "value + affine.shift)"
        ),
        Edit(
            "pads in front and behind exchanged",
            "(pads[index], pads[index + len(axes)])",
            "(pads[index + len(axes)], pads[index])",
        ),
        Edit("forgotten: cropped axes", "if min(widths[axis]) < 0:", "if False:"),
        Edit(
            "padded elements of a varying axis get the wrong shift",
            "_widened(affine, widths, before - after)",
            "_widened(affine, widths, after - before)",
        ),
        Edit(
            "an infinity keeps its sign", "if affine.has_scale and not (affine.scale > 0).all():", "if False:"
        ),
        Edit("forgotten: edge padding of a varying axis", "if set(affine.axes) & set(padded):", "if False:"),
    ),
    *mutants_of(
        "planning/operators/resize.py",
        Edit("forgotten: resized axes", "if not _keeps(node, axis):", "if False:"),
        Edit(
            "an axis keeps its places at any scale",
            "and scales[position] == 1.0",
            "and scales[position] >= 1.0",
        ),
        Edit("forgotten: reading outside", "if affine.has_shift:", "if False:"),
        Edit(
            "forgotten: the extrapolation value",
            'if node.float_attribute("extrapolation_value", 0.0) != 0.0:',
            "if False:",
        ),
        Edit("a region of interest beyond 1", "(roi >= 0) & (roi <= 1)", "(roi >= 0)"),
        Edit(
            "half a pixel moves nothing",
            '_ALWAYS_MOVES = (_CROP, "tf_half_pixel_for_nn")',
            "_ALWAYS_MOVES = (_CROP,)",
        ),
    ),
]
