"""Which operands stay in the model's own precision in a float64 evaluation.

Operands that decide shapes, sizes, axes or indices must decide as the original does: floor(0.1f · 30) in
double is not what the model computes. They, and operands whose schema has no double, are computed natively,
with everything they depend on.
"""

from __future__ import annotations

_EVERY = frozenset(range(64))

_NATIVE_SLOTS: dict[tuple[str, str], frozenset[int]] = {
    ("", op_type): frozenset(slots)
    for op_type, slots in {
        "AffineGrid": {1},
        "BlackmanWindow": {0},
        "CenterCropPad": {1},
        "Col2Im": {1, 2},
        "Compress": {1},
        "ConstantOfShape": {0},
        "CumProd": {1},
        "CumSum": {1},
        "DFT": {1, 2},
        "DequantizeLinear": {2},
        "Dropout": {1, 2},
        "DynamicQuantizeLinear": {0},
        "Expand": {1},
        "GRU": {4},
        "Gather": {1},
        "GatherElements": {1},
        "GatherND": {1},
        "HammingWindow": {0},
        "HannWindow": {0},
        "If": {0},
        "LSTM": {4},
        "Loop": {0, 1},
        "MaxUnpool": {1, 2},
        "MelWeightMatrix": {0, 1, 2, 3, 4},
        "NonMaxSuppression": _EVERY,
        "OneHot": {0, 1},
        "Pad": {1, 3},
        "QLinearConv": _EVERY,
        "QLinearMatMul": _EVERY,
        "QuantizeLinear": {1, 2},
        "RNN": {4},
        "Range": {0, 1, 2},
        "Reshape": {1},
        "Resize": {1, 2, 3},
        "ReverseSequence": {1},
        "RoiAlign": {2},
        "STFT": {1, 3},
        "ScatterElements": {1},
        "ScatterND": {1},
        "Scatter": {1},
        "SequenceAt": {1},
        "SequenceErase": {1},
        "SequenceInsert": {2},
        "Slice": {1, 2, 3, 4},
        "Split": {1},
        "SplitToSequence": {1},
        "Squeeze": {1},
        "TensorScatter": {2},
        "Tile": {1, 2},
        "TopK": {1},
        "Trilu": {1},
        "Unsqueeze": {1},
        "Upsample": {1},
        **{
            f"Reduce{kind}": {1}
            for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
        },
    }.items()
}


def native_slots(domain: str, op_type: str) -> frozenset[int]:
    """Input positions of an operator that are computed in the model's own precision.

    Range is among them for its count; its elements are then computed in double from the native operands.
    """
    return _NATIVE_SLOTS.get((domain, op_type), frozenset())
