"""Recurrent layers: GRU (Cho et al. 2014, arXiv 1406.1078) and LSTM (Hochreiter and Schmidhuber 1997).

torch.compile refuses `nn.GRU` and `nn.LSTM` in one graph. It would unroll the functions behind them, and 64 positions
then take minutes to compile. Here the layers are one operator of the graph, which runs the functions of PyTorch as they
are. Its gradient runs them again. Without torch.compile nothing runs twice. An export has the operators GRU and LSTM of
ONNX, so texts have any length.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

Cell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": 1, "lstm": 2}  # vectors that a layer hands on: of an LSTM the output and the cell


class Recurrent(nn.Module):
    """Several recurrent layers of one width.

    Args:
        cell: The kind of layer.
        width: Features of a position.
        layers: Number of layers.
    """

    def __init__(self, cell: Cell, width: int, layers: int) -> None:
        super().__init__()
        self.cell, self.width, self.layers = cell, width, layers
        rows, bound = GATES[cell] * width, 1 / math.sqrt(width)
        shapes = [(rows, width), (rows, width), (rows,), (rows,)] * layers
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes)

    @property
    def state_size(self) -> int:
        """The number of features of all states."""
        return STATES[self.cell] * self.layers * self.width

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs of the last layer, `(B, T, width)`, and the states behind the last position.

        Args:
            x: Features, `(B, T, width)`.
            state: The states before the first position, `(B, state_size)`.
        """
        with torch.autocast(x.device.type, enabled=False):  # a sum over positions loses too much in bfloat16
            states = state.float().reshape(state.shape[0], -1, self.width).transpose(0, 1).contiguous()
            output, states = run_layers(x.float(), states, [*self.weights], self.cell)
            return output, states.transpose(0, 1).flatten(1)


def run_layers(x: Tensor, states: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    """Runs recurrent layers; see `Recurrent.forward`. States are `(STATES * layers, B, width)`."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        output, after = recurrent(x, states, weights, cell)
        return output, after
    return _run(x, states, weights, cell)


def _run(x: Tensor, states: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    """Runs the layers one by one: PyTorch's export of several at once fails for windows of texts."""
    layers, hidden, cells = len(weights) // 4, [], []
    for i in range(layers):
        own, h = weights[4 * i : 4 * i + 4], states[i : i + 1]
        if cell == "gru":
            x, h = torch.gru(x, h, own, True, 1, 0.0, False, False, True)
        else:
            c = states[layers + i : layers + i + 1]
            x, h, c = torch.lstm(x, (h, c), own, True, 1, 0.0, False, False, True)
            cells.append(c)
        hidden.append(h)
    return x, torch.cat([*hidden, *cells])


@torch.library.custom_op("vaezoo::recurrent", mutates_args=())
def recurrent(x: Tensor, states: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    """`run_layers` as one operator."""
    with torch.no_grad():
        output, after = _run(x, states, weights, cell)
    return output.contiguous(), after.contiguous()


@recurrent.register_fake
def _(x: Tensor, states: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), states.new_empty(states.shape)


@torch.library.custom_op("vaezoo::recurrent_gradient", mutates_args=())
def gradient(
    x: Tensor, states: Tensor, weights: list[Tensor], cell: str, by_output: Tensor, by_after: Tensor
) -> list[Tensor]:
    """Returns the gradients by x, the states and the weights, given those by the two outputs."""
    with _autograd(), torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (x, states, *weights)]
        outputs = _run(inputs[0], inputs[1], inputs[2:], cell)
        found = torch.autograd.grad(outputs, inputs, (by_output, by_after))
    return [g.contiguous() for g in found]


def _autograd() -> AbstractContextManager[object]:
    """Lets autograd record inside of an operator, where PyTorch switches it off."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradCPU", "AutogradCUDA", "ADInplaceOrView"):
        excluded = excluded.remove(torch._C._dispatch_key_parse(name))
    guard: AbstractContextManager[object] = torch._C._ForceDispatchKeyGuard(
        torch._C._dispatch_tls_local_include_set(), excluded
    )
    return guard


@gradient.register_fake
def _(x: Tensor, states: Tensor, weights: list[Tensor], cell: str, by_output: Tensor, by_after: Tensor) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (x, states, *weights)]


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: object) -> None:
    x, states, weights, cell = inputs
    ctx.save_for_backward(x, states, *weights)  # type: ignore[misc, arg-type]
    ctx.cell = cell  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, by_output: Tensor, by_after: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], None]:
    x, states, *weights = ctx.saved_tensors  # type: ignore[attr-defined]
    by_x, by_states, *by_weights = gradient(x, states, weights, ctx.cell, by_output, by_after)  # type: ignore[attr-defined]
    return by_x, by_states, by_weights, None


recurrent.register_autograd(_backward, setup_context=_remember)
