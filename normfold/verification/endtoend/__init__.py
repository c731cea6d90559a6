"""Whole models against each other: against float64 references, and on execution providers of onnxruntime."""
