"""NF4xx: what is said of normalisations with statistics of their input, and of the forms they are given."""

from __future__ import annotations

from normfold.codes._code import Code

GROUPNORM_CODES: tuple[Code, ...] = (
    Code(
        "NF401",
        "look-alike of a normalisation",
        "It divides by something else than one root of a variance and an epsilon, for example by σ + ε.",
        "That is not what GroupNorm, InstanceNorm or LayerNorm compute, so no other form of them equals it.",
        "Train with the epsilon inside the root: (x − μ) / √(σ² + ε).",
    ),
    Code(
        "NF402",
        "inner value is read elsewhere",
        "A mean, a variance or another value inside a spelled-out normalisation is read by something else.",
        "The spelled-out nodes would have to stay beside the new form.",
        "Compute the value separately, or pass --groupnorm keep.",
    ),
    Code(
        "NF403",
        "form is not valid here",
        "The form that the target prefers needs another opset, rank, type or static sizes.",
        "The operator does not exist in this model's opset, or does not take these operands.",
        "Export with the opset or the static sizes that the reason names, or choose a form with --groupnorm.",
    ),
    Code(
        "NF404",
        "form is not accurate enough",
        "With the forms that the target prefers, the folded model rounds more than the bound allows.",
        "Forms differ in how much they lose on inputs with a large mean.",
        "Normalisations were left as they are. Choose a form with --groupnorm to see which passes.",
    ),
)
