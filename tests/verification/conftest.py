"""Hand-made pairs of models: a normalisation after a linear operator, folded with numpy, rightly or
wrongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from normfold.reporting.report import Site

Exact = Mapping[str, Callable[[], np.ndarray]]


@dataclass
class Pair:
    """A model, its fold, the exact constants of the fold, and the sites it acted on."""

    original: ir.Model
    folded: ir.Model
    exact: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)


def model_of(text: str, initializers: Mapping[str, np.ndarray]) -> ir.Model:
    """A model from ONNX text, with initializers added to its main graph."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()
    )
    return ir.from_proto(proto)


def no_refold(model: ir.Model) -> tuple[ir.Model, Exact]:
    """A fold that finds nothing to do."""
    return model.clone(), {}


class ConvBatchNorm:
    """``x -> Conv -> BatchNormalization -> y`` and its fold, with knobs for what can be done wrong.

    Attributes:
        channels: output channels.
        weight, gamma, beta, mean, variance: parameters, float32.
        epsilon: of the normalisation.
    """

    def __init__(
        self,
        channels: int = 6,
        *,
        inputs: int = 4,
        kernel: int = 3,
        epsilon: float = 1e-5,
        seed: int = 0,
        tail: str = "",
        sizes: str = "1, {inputs}, 9, 9",
    ) -> None:
        rng = np.random.default_rng(seed)
        self.channels, self.kernel, self.epsilon = channels, kernel, epsilon
        self.tail, self.dims = tail, sizes.format(inputs=inputs)
        self.weight = rng.standard_normal((channels, inputs, kernel, kernel)).astype(np.float32) / kernel
        self.gamma = rng.uniform(0.5, 1.5, channels).astype(np.float32) * rng.choice([-1, 1], channels)
        self.gamma = self.gamma.astype(np.float32)
        self.beta = rng.standard_normal(channels).astype(np.float32)
        self.mean = rng.standard_normal(channels).astype(np.float32)
        self.variance = rng.uniform(0.5, 2.0, channels).astype(np.float32)

    def folded_constants(self, epsilon: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of the folded Conv, in float64."""
        eps = np.float64(np.float32(self.epsilon if epsilon is None else epsilon))
        scale = self.gamma.astype(np.float64) / np.sqrt(self.variance.astype(np.float64) + eps)
        weight = self.weight.astype(np.float64) * scale[:, None, None, None]
        return weight, self.beta.astype(np.float64) - self.mean.astype(np.float64) * scale

    def original(self) -> ir.Model:
        last = "y" if not self.tail else "b"
        tail = f"y = {self.tail}(b)" if self.tail else ""
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{self.dims}] x) => (float[N, C, H, W] y) {{
            c = Conv<pads = [1, 1, 1, 1]>(x, w)
            {last} = BatchNormalization<epsilon = {self.epsilon}>(c, gamma, beta, mean, variance)
            {tail}
        }}"""
        arrays = {
            "w": self.weight,
            "gamma": self.gamma,
            "beta": self.beta,
            "mean": self.mean,
            "variance": self.variance,
        }
        return model_of(text, arrays)

    def folded(self, weight: np.ndarray, bias: np.ndarray, pads: str = "1, 1, 1, 1") -> ir.Model:
        last = "y" if not self.tail else "b"
        tail = f"y = {self.tail}(b)" if self.tail else ""
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{self.dims}] x) => (float[N, C, H, W] y) {{
            {last} = Conv<pads = [{pads}]>(x, w_folded, b_folded)
            {tail}
        }}"""
        return model_of(text, {"w_folded": weight.astype(np.float32), "b_folded": bias.astype(np.float32)})

    def pair(self, edit: Callable[[np.ndarray, np.ndarray], None] | None = None, **fold: float) -> Pair:
        """The original and its fold; ``edit`` may spoil the exact weight and bias in place."""
        weight, bias = self.folded_constants(**fold)
        if edit is not None:
            edit(weight, bias)
        last = "y" if not self.tail else "b"
        return Pair(
            self.original(),
            self.folded(weight, bias),
            {"w_folded": lambda: weight, "b_folded": lambda: bias},
            [Site(last, "batchnorm", "folded", rule="conv", nodes=("BatchNormalization",))],
        )


@pytest.fixture
def conv_bn() -> type[ConvBatchNorm]:
    return ConvBatchNorm
