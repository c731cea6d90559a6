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
        "The form that is preferred needs another opset, rank, type or static sizes.",
        "The operator does not take these operands, or comes with an opset in which another operator of the "
        "model means something else.",
        "Export with the opset or the static sizes that the reason names, or choose a form with --groupnorm.",
    ),
    Code(
        "NF404",
        "form is not accurate enough",
        "With the form that is preferred, a normalisation or the whole model rounds more than it may.",
        "Forms differ in how much they lose where the mean of an input is far above its deviation. Each is "
        "tried on such inputs before it is taken; the next one, or the original, took its place.",
        "Nothing needs to be done. If inputs never have such means, --allow-unstable takes the form.",
    ),
    Code(
        "NF405",
        "forms were timed",
        "How fast the model is with its normalisations in each form, against leaving them as they are.",
        "Measured on this machine for --tune, which takes the fastest form whose proof passes.",
        "Nothing needs to be done; --groupnorm FORM takes the same form without measuring.",
    ),
    Code(
        "NF406",
        "normalisation that has no other form",
        "A value is divided by a root of a mean square or a variance, but over samples or other axes than "
        "channels and positions, of another value, with another multiple of the mean, or behind an addition.",
        "That is not what GroupNorm and InstanceNorm compute, so none of their forms equals it.",
        "Nothing: it stays as it is. If it was meant to be one of those, train it as that.",
    ),
)
