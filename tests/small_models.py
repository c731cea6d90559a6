"""Models that are folded in no time, for tests of what happens around a fold."""

from __future__ import annotations

from onnx import ModelProto, parser

_CONV_BATCHNORM = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
<float[2, 2, 1, 1] w = {1, 2, 3, FACTOR}, float[2] g = {1.5, -0.5}, float[2] b = {0.25, 1},
 float[2] m = {0.5, 2}, float[2] v = {0.75, 3}>
{
    c = Conv(x, w)
    n = BatchNormalization(c, g, b, m, v)
    y = Relu(n)
}
"""


def foldable(factor: float = 4) -> ModelProto:
    """Conv → BatchNormalization → Relu; every factor makes another model."""
    return parser.parse_model(_CONV_BATCHNORM.replace("FACTOR", str(factor)))
