"""NF2xx: what verification can say."""

from __future__ import annotations

from normfold.codes._code import Code

VERIFICATION_CODES: tuple[Code, ...] = (
    Code(
        "NF201",
        "float64 proof fails",
        "In float64, with weights before rounding, a part of the folded model computes other values.",
        "The difference is larger than float64 rounding can explain, so the change is not an identity.",
        "Report it; meanwhile --skip the rule that acted on the named value, or --keep the value.",
    ),
    Code(
        "NF202",
        "site is not proven",
        "The proof could not exercise a site, or did not notice an error planted there.",
        "A comparison that would accept an error says nothing; it is not a pass.",
        "Give real inputs with --data or sizes with --shape, or --keep the named value.",
    ),
    Code(
        "NF203",
        "rounding beyond the original's",
        "The folded model is further from the float64 reference than the original's own rounding explains.",
        "An honest fold rounds about as much as the original does.",
        "See the table of errors; look for weights that overflow or lose digits in their type.",
    ),
    Code(
        "NF204",
        "execution provider not exercised",
        "A provider that was asked for is not registered, refused the original, or was given no node.",
        "Nothing is known of how the models behave there.",
        "Install the onnxruntime build that has the provider, or leave out --ep.",
    ),
    Code(
        "NF205",
        "runtime crashed",
        "The process that runs onnxruntime died or did not answer in time.",
        "Neither equality nor a difference was shown there.",
        "Try another onnxruntime version; if it only took long, give smaller sizes with --shape.",
    ),
    Code(
        "NF206",
        "outputs are not finite",
        "An output holds NaN or Inf.",
        "Differences of such values mean nothing.",
        "Give realistic inputs with --data; --allow-nonfinite accepts what the original has too.",
    ),
    Code(
        "NF207",
        "signatures differ",
        "An input or output of one model is missing, new, or of another type or shape in the other.",
        "The folded model could not replace the original.",
        "Compare the named inputs and outputs of the two models.",
    ),
    Code(
        "NF208",
        "no input found",
        "The original accepts none of the inputs that were generated for it.",
        "Without an input nothing can be compared end to end.",
        "Give the sizes with --shape name=… or --dim name=…, or real inputs with --data.",
    ),
    Code(
        "NF209",
        "not covered by the float64 evaluator",
        "The model holds an operator, or a case of one, that the float64 evaluator does not compute.",
        "The part of the model that holds it has no float64 reference.",
        "Where onnxruntime runs the model, its own response to noise judges rounding instead.",
    ),
    Code(
        "NF210",
        "runtime's optimiser changes the original",
        "With graph optimisations on, onnxruntime computes other values for the original than with them off.",
        "The unfolded model is not what it seems in that runtime; the reference has optimisations off.",
        "Nothing to do for the fold. Report it to onnxruntime, or deploy with the optimisation disabled.",
    ),
    Code(
        "NF211",
        "own rounding too large",
        "The original's own rounding error is above 1 % of the output's largest value.",
        "A reference that is this uncertain cannot judge another model.",
        "Give realistic inputs with --data; if the model is float16, verify it before its conversion.",
    ),
    Code(
        "NF212",
        "folded model does not run",
        "The runtime runs the original and rejects the folded model.",
        "The folded model could not replace the original there.",
        "Report it with the runtime's message.",
    ),
    Code(
        "NF213",
        "model is random",
        "The model holds a random operator, or dropout in training mode.",
        "Two runs of the same model differ, so two models cannot be compared.",
        "Export the model in evaluation mode.",
    ),
    Code(
        "NF214",
        "given tolerance exceeded",
        "A difference between the models is within rounding, but beyond --rtol or --atol.",
        "The tolerance that was asked for is tighter than the types allow, or the inputs amplify rounding.",
        "Loosen the tolerance, or compare on realistic inputs with --data.",
    ),
    Code(
        "NF215",
        "runtime's optimiser changes the folded model",
        "With graph optimisations on, onnxruntime computes other values for the folded model.",
        "What would be deployed is not what was proven.",
        "Deploy with the optimisation disabled, or --keep the sites around it.",
    ),
    Code(
        "NF216",
        "verified without onnxruntime",
        "onnxruntime is not installed, so the models were only run in the evaluator.",
        "How a runtime treats the folded model is not known.",
        "Install normfold[cpu] or normfold[cuda].",
    ),
    Code(
        "NF217",
        "where the models part",
        "The first value that differs between the models, although all that it is computed from agrees.",
        "An error there reaches the outputs; what lies behind it only passes it on.",
        "Look at the named nodes; --save-failure DIR saves them with inputs that show the difference.",
    ),
    Code(
        "NF218",
        "label flips",
        "A row of a classifier's scores has another first class, or another set of first classes.",
        "The reference separates the classes by more than rounding can move the scores.",
        "Look at where the models part (NF217); the counts are in the report.",
    ),
)
