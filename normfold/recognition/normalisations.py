"""Normalisations whose statistics depend on the input: reported, never folded away."""

from __future__ import annotations

from normfold.reporting.report import Site

_KINDS = {
    ("", "InstanceNormalization"): "instancenorm",
    ("", "LayerNormalization"): "layernorm",
    ("", "GroupNormalization"): "groupnorm",
    ("", "RMSNormalization"): "rmsnorm",
    ("", "LpNormalization"): "lpnorm",
    ("", "MeanVarianceNormalization"): "meanvariancenorm",
    ("", "LRN"): "lrn",
    ("com.microsoft", "GroupNorm"): "groupnorm",
    ("com.microsoft", "SkipGroupNorm"): "groupnorm",
    ("com.microsoft", "SkipLayerNormalization"): "layernorm",
    ("com.microsoft", "EmbedLayerNormalization"): "layernorm",
    ("com.microsoft", "SimplifiedLayerNormalization"): "rmsnorm",
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): "rmsnorm",
}


def kind_of(domain: str, op_type: str) -> str | None:
    """``layernorm`` for LayerNormalization and so on; ``None`` for any other operator."""
    return _KINDS.get(("" if domain == "ai.onnx" else domain, op_type))


def kept_site(name: str, kind: str, operators: tuple[str, ...]) -> Site:
    return Site(
        name, kind, "kept", code="NF121", reason="its statistics depend on the input", nodes=operators
    )
