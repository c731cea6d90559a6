"""RNN, GRU and LSTM: every direction, layout, activation, with sequence_lens and peepholes.

Shapes (layout 0): X [T, N, I], W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], initial states [D, N, H], P [D,
3·H]; Y [T, D, N, H], last states [D, N, H]. Layout 1 puts N first. A step behind a sequence's length gives
zeros and keeps the state. https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.deadline import check_deadline
from normfold.evaluation.dtypes import Array, working
from normfold.evaluation.kernels import activation as act

_Activation = Callable[[Array], Array]
_State = tuple[Array, ...]
_Cell = Callable[[Array, _State], _State]

# name: (function of x, alpha, beta; default alpha; default beta). None: the attribute is required.
_PLAIN: dict[str, _Activation] = {
    "relu": act.relu,
    "tanh": np.tanh,
    "sigmoid": act.sigmoid,
    "softsign": act.softsign,
    "softplus": act.softplus,
}
_ONE: dict[str, tuple[Callable[[Array, float], Array], float | None]] = {
    "leakyrelu": (act.leaky_relu, 0.01),
    "thresholdedrelu": (act.thresholded_relu, 1.0),
    "elu": (act.elu, 1.0),
}
_TWO: dict[str, tuple[Callable[[Array, float, float], Array], float | None, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, None, None),
    "scaledtanh": (lambda x, a, b: np.asarray(a * np.tanh(b * x)), None, None),
    "hardsigmoid": (act.hard_sigmoid, 0.2, 0.5),
}


def _activations(call: NodeCall, defaults: Sequence[str], directions: int) -> list[list[_Activation]]:
    """The activation functions of each direction; alpha and beta are consumed by those that take them."""
    names = call.texts("activations", list(defaults) * directions)
    if len(names) != len(defaults) * directions:
        raise call.refuse(f"{len(names)} activations for {directions} directions")
    alphas, betas = iter(call.numbers("activation_alpha")), iter(call.numbers("activation_beta"))
    found = [_activation(call, name.lower(), alphas, betas) for name in names]
    return [found[start : start + len(defaults)] for start in range(0, len(found), len(defaults))]


def _activation(call: NodeCall, name: str, alphas: Iterator[float], betas: Iterator[float]) -> _Activation:
    def take(values: Iterator[float], default: float | None) -> float:
        value = next(values, default)
        if value is None:
            raise call.refuse(f"activation {name} without its parameters")
        return float(np.float32(value))

    if name in _PLAIN:
        return _PLAIN[name]
    if name in _ONE:
        one, default = _ONE[name]
        alpha = take(alphas, default)
        return lambda x: one(x, alpha)
    if name in _TWO:
        two, first, second = _TWO[name]
        alpha, beta = take(alphas, first), take(betas, second)
        return lambda x: two(x, alpha, beta)
    raise call.refuse(f"activation {name!r}")


def _clipped(call: NodeCall, functions: Sequence[_Activation]) -> list[_Activation]:
    if not call.has("clip"):
        return list(functions)
    bound = call.number("clip")

    def clipped(function: _Activation) -> _Activation:
        return lambda x: function(np.clip(x, -bound, bound))

    return [clipped(function) for function in functions]


class _Layer:
    """What RNN, GRU and LSTM share: operands, directions, the walk over time, the outputs."""

    def __init__(self, call: NodeCall, gates: int, defaults: Sequence[str]) -> None:
        self.call = call
        self.dtype = call.tensor(0).dtype
        self.batch_first = call.integer("layout", 0) == 1
        direction = call.text("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise call.refuse(f"direction {direction!r}")
        self.reverse = {"forward": [False], "reverse": [True]}.get(direction, [False, True])
        x = working(call.tensor(0))
        self.x = x.swapaxes(0, 1) if self.batch_first else x
        self.w, self.r = working(call.tensor(1)), working(call.tensor(2))
        self.hidden = self.r.shape[2]
        bias = call.optional(3)
        count = len(self.reverse)
        if self.w.shape[:2] != (count, gates * self.hidden):
            raise call.refuse(f"W {self.w.shape} does not fit {count} directions of {self.hidden} units")
        zeros = np.zeros((count, 2 * gates * self.hidden), x.dtype)
        self.b = zeros if bias is None else working(bias)
        lengths = call.optional(4)
        steps, batch = self.x.shape[:2]
        self.lengths = np.full(batch, steps) if lengths is None else lengths.astype(np.int64)
        self.functions = [_clipped(call, f) for f in _activations(call, defaults, count)]

    def initial(self, index: int) -> Array:
        """An initial state operand as [D, N, H]; zeros where omitted."""
        given = self.call.optional(index)
        if given is None:
            return np.zeros((len(self.reverse), self.x.shape[1], self.hidden), self.x.dtype)
        return working(given).swapaxes(0, 1) if self.batch_first else working(given)

    def gates(self, direction: int, count: int) -> tuple[list[Array], list[Array], list[Array], list[Array]]:
        """(W, R, input biases, recurrent biases) of a direction, split by gate."""
        w_bias, r_bias = np.split(self.b[direction], 2)
        return (
            np.split(self.w[direction], count),
            np.split(self.r[direction], count),
            np.split(w_bias, count),
            np.split(r_bias, count),
        )

    def walk(self, cells: Sequence[_Cell], states: Sequence[Array]) -> list[Array]:
        """Run each direction's cell over time and lay the outputs out: Y, then the last states."""
        steps, batch = self.x.shape[:2]
        y = np.zeros((steps, len(cells), batch, self.hidden), self.x.dtype)
        last: list[_State] = []
        for direction, cell in enumerate(cells):
            state: _State = tuple(s[direction] for s in states)
            order = range(steps - 1, -1, -1) if self.reverse[direction] else range(steps)
            for step in order:
                check_deadline()
                alive = (step < self.lengths)[:, None]
                new = cell(self.x[step], state)
                state = tuple(np.where(alive, n, s) for n, s in zip(new, state, strict=True))
                y[step, direction] = np.where(alive, new[0], 0)
            last.append(state)
        finals = [np.stack(parts) for parts in zip(*last, strict=True)]
        if self.batch_first:
            y = y.transpose(2, 0, 1, 3)
            finals = [final.swapaxes(0, 1) for final in finals]
        return [array.astype(self.dtype, copy=False) for array in (y, *finals)]


def rnn(call: NodeCall) -> Sequence[Array]:
    """RNN: ``H = f(X·Wᵀ + H·Rᵀ + Wb + Rb)``."""
    layer = _Layer(call, 1, ["Tanh"])

    def cell_of(direction: int) -> _Cell:
        (w,), (r,), (wb,), (rb,) = layer.gates(direction, 1)
        (f,) = layer.functions[direction]
        return lambda x, state: (f(x @ w.T + state[0] @ r.T + wb + rb),)

    return layer.walk([cell_of(d) for d in range(len(layer.reverse))], [layer.initial(5)])


def gru(call: NodeCall) -> Sequence[Array]:
    """GRU, gates in the order z, r, h: ``H = (1 − z) ⊙ h + z ⊙ H``."""
    layer = _Layer(call, 3, ["Sigmoid", "Tanh"])
    linear_before_reset = call.integer("linear_before_reset", 0)

    def cell_of(direction: int) -> _Cell:
        (wz, wr, wh), (rz, rr, rh), (bz, br, bh), (cz, cr, ch) = layer.gates(direction, 3)
        f, g = layer.functions[direction]

        def cell(x: Array, state: _State) -> _State:
            (h,) = state
            update = f(x @ wz.T + h @ rz.T + bz + cz)
            reset = f(x @ wr.T + h @ rr.T + br + cr)
            recurrent = reset * (h @ rh.T + ch) if linear_before_reset else (reset * h) @ rh.T + ch
            return ((1 - update) * g(x @ wh.T + recurrent + bh) + update * h,)

        return cell

    return layer.walk([cell_of(d) for d in range(len(layer.reverse))], [layer.initial(5)])


def lstm(call: NodeCall) -> Sequence[Array]:
    """LSTM, gates in the order i, o, f, c, peepholes in the order i, o, f."""
    layer = _Layer(call, 4, ["Sigmoid", "Tanh", "Tanh"])
    peepholes = call.optional(7)
    shape = (len(layer.reverse), 3 * layer.hidden)
    p = np.zeros(shape, layer.x.dtype) if peepholes is None else working(peepholes)
    input_forget = call.integer("input_forget", 0)
    bound = call.number("clip", np.inf)

    def cell_of(direction: int) -> _Cell:
        (wi, wo, wf, wc), (ri, ro, rf, rc), inner, outer = layer.gates(direction, 4)
        bi, bo, bf, bc = (a + b for a, b in zip(inner, outer, strict=True))
        pi, po, pf = np.split(p[direction], 3)
        f, g, h = layer.functions[direction]

        def cell(x: Array, state: _State) -> _State:
            hidden, memory = state
            i = f(x @ wi.T + hidden @ ri.T + bi + pi * memory)
            forget = 1 - i if input_forget else f(x @ wf.T + hidden @ rf.T + bf + pf * memory)
            new = forget * memory + i * g(x @ wc.T + hidden @ rc.T + bc)
            if np.abs(new).max(initial=0) > bound:
                raise call.refuse("clip on the cell state, which onnxruntime does not do")
            o = f(x @ wo.T + hidden @ ro.T + bo + po * new)
            return o * h(new), new

        return cell

    return layer.walk([cell_of(d) for d in range(len(layer.reverse))], [layer.initial(5), layer.initial(6)])


KERNELS: dict[tuple[str, str], Kernel] = {("", "RNN"): rnn, ("", "GRU"): gru, ("", "LSTM"): lstm}
