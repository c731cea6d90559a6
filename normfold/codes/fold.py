"""NF1xx: why a normalisation or an affine stays in the graph."""

from __future__ import annotations

from normfold.codes._code import Code

FOLD_CODES: tuple[Code, ...] = (
    Code(
        "NF100",
        "would be folded",
        "A fold would take this site out of the graph, or move it where it costs less.",
        "The check fails as long as the model is not in its folded form.",
        "Run normfold fold, and keep what it writes.",
    ),
    Code(
        "NF101",
        "parameters computed at run time",
        "A scale, shift, mean or variance is not a constant of the model.",
        "Only constants can be folded into a weight: a value computed from the input differs from run to "
        "run.",
        "Export the model with its parameters as initializers; if they come from an expression of "
        "weights, report it as a bug.",
    ),
    Code(
        "NF102",
        "parameter may be overridden by the caller",
        "An initializer is also a graph input, and the IR version is 4 or later.",
        "A caller may feed another value for it, which a fold would ignore.",
        "Pass --freeze-initializers if nobody feeds it, or export with keep_initializers_as_inputs=False.",
    ),
    Code(
        "NF103",
        "another reader",
        "The value in front of the affine is also read by another node.",
        "Changing the weight that produces it would change what the other reader sees.",
        "Nothing, if the other reader is meant; the affine may still go forward if every reader of its "
        "result can take it.",
    ),
    Code(
        "NF104",
        "read inside a subgraph",
        "An If, Loop or Scan body reads the value from outside.",
        "The body would see the changed value.",
        "Move the affine behind the control flow, or pass the value into the body in its final form.",
    ),
    Code(
        "NF105",
        "graph output",
        "The value that would change its meaning is an output of the model.",
        "Callers read it.",
        "Remove the output if nobody needs it.",
    ),
    Code(
        "NF106",
        "graph input",
        "The affine stands on an input of the model, and what follows cannot absorb it.",
        "There is no weight in front of it.",
        "Apply it in the preprocessing, or put a linear layer behind it.",
    ),
    Code(
        "NF107",
        "training semantics",
        "The normalisation uses the statistics of the batch.",
        "Its result depends on the other samples of the batch; it is not a constant affine.",
        "Call model.eval() and export again (TorchScript: training=TrainingMode.EVAL).",
    ),
    Code(
        "NF108",
        "not finite",
        "A parameter, or the weight that the fold would make, is NaN or infinite, or the affine divides "
        "by zero.",
        "Folding would spread it over a whole weight.",
        "Look for a diverged layer in training; normfold consistency names it.",
    ),
    Code(
        "NF109",
        "variance + epsilon not positive",
        "A running variance is so negative that its square root does not exist.",
        "The layer's output is NaN or infinite there; a fold would hide where it came from.",
        "Recompute the statistics: normfold calibrate.",
    ),
    Code(
        "NF110",
        "axis that the weight does not have",
        "The affine varies on an axis along which the linear operator has no parameters.",
        "One weight cannot scale that axis: think of a constant of shape [W] behind a Conv, which varies "
        "along the width.",
        "Give the constant the shape [C, 1, 1] if it was meant per channel.",
    ),
    Code(
        "NF111",
        "outside the range of the type",
        "The folded constant would overflow, a channel would shrink into subnormal numbers, or a factor that "
        "is not 1 would round to 1.",
        "The result would be infinite, would have lost its digits, or would be nothing to the next fold.",
        "Fold in float32 first and convert to float16 afterwards.",
    ),
    Code(
        "NF112",
        "shape not known",
        "The rank or the type of a value could not be inferred.",
        "Without it there is no telling which axis a constant varies on.",
        "Export with shapes, or give the custom operator in front a shape inference.",
    ),
    Code(
        "NF113",
        "constant does not fit",
        "A constant may enlarge the value that it is applied to, or has another number of channels.",
        "It is then no affine of that value: broadcasting makes copies.",
        "Make the dimension static if it is known.",
    ),
    Code(
        "NF114",
        "does not cross this operator",
        "The operator in the way does not commute with a per-channel affine, or normfold has no rule for it.",
        "f(s·x + t) is not s'·f(x) + t' for it.",
        "Nothing for a non-linearity; for an operator that does commute, ask for a rule.",
    ),
    Code(
        "NF115",
        "weight computed at run time",
        "The weight of the linear operator is not a constant.",
        "There is nothing to fold into.",
        "Export the weight as an initializer.",
    ),
    Code(
        "NF116",
        "zero padding in the way",
        "The operator pads with zeros, and a shift in front of it does not touch the padding.",
        "At the border the result would be wrong: padded zeros stay zeros.",
        "Nothing exact; the scale may still be folded. Padding by an explicit Pad with the right value "
        "would allow it.",
    ),
    Code(
        "NF117",
        "sign of the scale",
        "The operator commutes only with a positive scale, and some channel's is negative or zero.",
        "max(s·x) is s·max(x) only for s > 0.",
        "Nothing exact.",
    ),
    Code(
        "NF118",
        "no bias to take the shift",
        "The operator has no place for a shift.",
        "MatMul has no bias; the shift remains as an Add, which runtimes fuse.",
        "Nothing to do: it is the cheapest exact form.",
    ),
    Code(
        "NF119",
        "readers ask for different affines",
        "Several readers of one value would need it changed in different ways.",
        "One value can take one affine only.",
        "Nothing exact.",
    ),
    Code(
        "NF120",
        "asked to stay",
        "The site was named with --keep.",
        "You asked for it.",
        "Leave out --keep.",
    ),
    Code(
        "NF121",
        "statistics depend on the input",
        "The normalisation computes mean and variance from its input.",
        "It is not a constant affine and cannot be folded away.",
        "Nothing; its scale and shift may still be merged with neighbours.",
    ),
    Code(
        "NF122",
        "would cost more",
        "The fold is exact but the result would touch more elements or hold more constants.",
        "normfold never makes a model slower.",
        "Nothing to do.",
    ),
    Code(
        "NF123",
        "too far from a weight",
        "Hundreds of nodes lie between the affine and anything that could absorb it.",
        "Planning time is kept linear in the size of the model.",
        "Report the model; the limit can be raised.",
    ),
    Code(
        "NF124",
        "quantised weight",
        "The weight comes through DequantizeLinear, and its scale cannot take the affine exactly.",
        "Only a factor on the quantised axis fits into the scale; folding into the weight would undo the "
        "quantisation.",
        "Fold before quantising.",
    ),
    Code(
        "NF125",
        "rule switched off",
        "A rule that would act here was named with --skip.",
        "You asked for it.",
        "Leave out --skip.",
    ),
    Code(
        "NF126",
        "subgraph boundary",
        "The value comes into an If, Loop or Scan body from outside.",
        "Its producer serves other readers in another scope.",
        "Nothing exact.",
    ),
    Code(
        "NF127",
        "zero scale",
        "A channel's scale is zero, so a shift behind it cannot be moved in front of it.",
        "t / s does not exist.",
        "Prune the dead channel.",
    ),
    Code(
        "NF128",
        "part of a fused kernel",
        "The node belongs to a spelled-out LayerNormalization or Gelu, or to a normalisation that would "
        "no longer be one with an affine inside of it, or with a scale on another axis.",
        "Runtimes recognise the whole spelling and run it as one kernel, which is faster than what "
        "taking a constant out of it would save.",
        "Pass --fold-norm-affine to let the scale and shift of a LayerNormalization go forward all the same.",
    ),
    Code(
        "NF129",
        "its fold rounds too much",
        "The two models do not differ in float64, but on the inputs of the proof the folded one is further "
        "from it in its own type than the bound allows, or not finite.",
        "Where the original comes out as exactly zero, behind a Relu that lets nothing pass for one, folded "
        "numbers cancel only up to rounding.",
        "Prove on inputs that the model is meant for (--data).",
    ),
)
