"""Faster forms of a function of tensors: compiled, and replayed from a CUDA graph; or itself, where that fails."""

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

WARMUP_CALLS = 3  # calls before a capture: lazy initialisations must not fall into it


class Compiled(Generic[P, R]):
    """A function that `torch.compile` has made one graph of, backward passes included; itself where that fails.

    Random numbers are drawn as the function alone would draw them.

    Args:
        function: Changes tensors only in place, and reads none on the host.
        any_shape: Looks at the shapes of the arguments before each call; they otherwise have to be the same in all.
    """

    def __init__(self, function: Callable[P, R], *, any_shape: bool = False) -> None:
        self.plain = function
        options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
        if not any_shape:
            options["guard_filter_fn"] = value_guards
        self.function: Callable[P, R] = torch.compile(clone_code(function), fullgraph=True, options=options)
        self.tried = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        first, self.tried = not self.tried, True
        state = torch.get_rng_state() if first else None
        try:
            with compiling() if first else nullcontext():
                return self.function(*args, **kwargs)
        except Exception as e:
            # What cannot be compiled is told before anything is computed: by any error at first, later by dynamo's.
            failed = first or isinstance(e, torch._dynamo.exc.TorchDynamoException)
            if not failed or isinstance(e, VaezooError) or is_out_of_memory(e):
                raise
            warn("compiled", e)
        if state is not None:
            torch.set_rng_state(state)
        self.function = self.plain
        return self.function(*args, **kwargs)


class CUDAGraphWrapper:
    """A function of tensors whose kernels are launched together, from a CUDA graph; itself where it cannot be captured.

    The first calls run as they are, on a stream of their own. Random numbers follow the seed of each call.

    Args:
        function: Returns nothing, allocates nothing that must last, and never waits for the device.
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
        for place, given in zip(self.inputs, inputs, strict=True):
            if place is not None and given is not None:
                place.copy_(given, non_blocking=True)
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
            warn("captured in a CUDA graph", e)
            return
        self.graph = graph


def clone_code(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function that calls another and shares its code with no third.

    PyTorch counts what it compiles by code, not by function, and gives up after the eighth time: a program that trains
    nine models is not one that recompiles one of them.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    call.__code__ = call.__code__.replace()
    return call


def value_guards(guards: Sequence[Any]) -> list[bool]:
    """Tells which of the things that the graph relies on are looked at before each call: Python's numbers and texts.

    An objective may count in Python. Tensors, modules and classes stay what they are while a training runs, and looking
    at all of them took a twentieth of a small network's step.
    """
    return [guard.guard_type in ("CONSTANT_MATCH", "EQUALS_MATCH") for guard in guards]


def warn(what: str, error: Exception) -> None:
    """Warns that something is not done, and why."""
    cause = getattr(error, "inner_exception", error)  # of a BackendCompilerFailed, whose own text begins with its name
    message = f"the step cannot be {what}, the run goes on without: {first_line(cause)}"
    warnings.warn(message, VaezooWarning, stacklevel=2)


@contextmanager
def compiling() -> Iterator[None]:
    """Lets a compiled function take gradients, for which PyTorch has to be 2.11, and keeps the compiler from logging.

    What it logs is what it finds on this machine, a missing CUDA for one; our warning says what matters. It may take a
    minute, so a signal ends it at once: all is saved before the first step. Of several ranks none may leave alone.
    """
    config, before = torch._dynamo.config, logging.root.manager.disable
    logging.disable(logging.WARNING)
    leaving = signals.allow_signals() if distributed.world_size() == 1 else nullcontext()
    tracing = config.patch(trace_autograd_ops=True) if hasattr(config, "trace_autograd_ops") else nullcontext()
    try:
        with leaving, tracing:
            yield
    finally:
        logging.disable(before)
