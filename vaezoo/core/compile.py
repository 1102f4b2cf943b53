"""Functions of tensors made faster by torch.compile and CUDA graphs, with the plain function as a fallback."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.memory import is_out_of_memory
from vaezoo.errors import VaezooError, VaezooWarning, first_line

P = ParamSpec("P")
R = TypeVar("R")

WARMUP_CALLS = 3  # calls before a capture, because lazy initialisation must not be captured


class Compiled(Generic[P, R]):
    """A function compiled to one graph, including its backward passes. If compilation fails, the plain function runs.

    Random numbers are the same as those of the plain function.

    Args:
        function: It changes tensors only in place and reads none on the host.
        dynamic_shapes: Check the shapes of the arguments at each call. Otherwise they must be the same at all calls.
    """

    def __init__(self, function: Callable[P, R], *, dynamic_shapes: bool = False) -> None:
        self.plain = function
        options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
        if not dynamic_shapes:
            options["guard_filter_fn"] = value_guards
        self.function: Callable[P, R] = torch.compile(clone_code(function), fullgraph=True, options=options)
        self.called = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        first_call, self.called = not self.called, True
        rng_state = torch.get_rng_state() if first_call else None
        try:
            with compiling() if first_call else nullcontext():
                return self.function(*args, **kwargs)
        except Exception as e:
            # Compilation fails before anything is computed: with any error at the first call, later with dynamo's own.
            failed = first_call or isinstance(e, torch._dynamo.exc.TorchDynamoException)
            if not failed or isinstance(e, VaezooError) or is_out_of_memory(e):
                raise
            warn_fallback("compiled", e)
        if rng_state is not None:
            torch.set_rng_state(rng_state)
        self.function = self.plain
        return self.function(*args, **kwargs)


class CUDAGraphWrapper:
    """A function of tensors that is replayed from a CUDA graph. If it cannot be captured, the plain function runs.

    The first calls run the function itself, on a separate stream. Random numbers follow the seed of each call.

    Args:
        function: It returns nothing, allocates nothing that must last, and never waits for the device.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor | None, ...] = ()
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: Tensor | None) -> None:
        self.calls += 1
        if self.calls <= WARMUP_CALLS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.calls == WARMUP_CALLS + 1:
            self._capture(inputs)
        if self.graph is None:
            self.function(*inputs)
            return
        for static, value in zip(self.inputs, inputs, strict=True):
            if static is not None and value is not None:
                static.copy_(value, non_blocking=True)
        self.graph.replay()

    def _capture(self, inputs: tuple[Tensor | None, ...]) -> None:
        self.inputs = tuple(t if t is None else t.clone() for t in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.function(*self.inputs)
        except RuntimeError as e:
            if is_out_of_memory(e):
                raise
            warn_fallback("captured in a CUDA graph", e)
            return
        self.graph = graph


def clone_code(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function that calls another one and shares its code object with no other function.

    PyTorch counts compilations by code object and gives up after the eighth. A program that trains nine models would
    count as one function that is compiled again and again.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    call.__code__ = call.__code__.replace()
    return call


def value_guards(guards: Sequence[Any]) -> list[bool]:
    """Selects the guards that are checked before each call: Python's numbers and strings.

    An objective may count in Python. Tensors, modules and classes do not change during a training. Checking all of them
    took 5 % of a small network's step.
    """
    return [guard.guard_type in ("CONSTANT_MATCH", "EQUALS_MATCH") for guard in guards]


def warn_fallback(what: str, error: Exception) -> None:
    """Warns that the plain function runs, and why."""
    cause = getattr(error, "inner_exception", error)  # of a BackendCompilerFailed, whose text starts with its own name
    message = f"the step cannot be {what}, so the plain step runs: {first_line(cause)}"
    warnings.warn(message, VaezooWarning, stacklevel=2)


@contextmanager
def compiling() -> Iterator[None]:
    """Allows gradients inside a compiled function (PyTorch 2.11 and newer) and silences the compiler's log.

    The log is about the machine, for example a missing CUDA. Our warning says what matters. Compilation may take a
    minute, so a signal ends it at once: everything is saved before the first step. With several processes none may
    leave alone, so they finish compiling.
    """
    config, level_before = torch._dynamo.config, logging.root.manager.disable
    logging.disable(logging.WARNING)
    interruptible = signals.allow_signals() if distributed.world_size() == 1 else nullcontext()
    gradients = config.patch(trace_autograd_ops=True) if hasattr(config, "trace_autograd_ops") else nullcontext()
    try:
        with interruptible, gradients:
            yield
    finally:
        logging.disable(level_before)
