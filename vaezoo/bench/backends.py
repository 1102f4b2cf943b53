"""The ways to run a model, each as a call that is complete when it returns.

Two regimes, never mixed: "device", where inputs and outputs stay on the device, and "host", numpy in and numpy out on
both sides. ONNX Runtime gets its inputs bound where they lie, as PyTorch does.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vaezoo.bench.workload import Task, Workload
from vaezoo.errors import VaezooError
from vaezoo.export.graphs import Decoder, Encoder, silence
from vaezoo.runtime.manifest import Array, GraphName
from vaezoo.runtime.ort_session import RECORD_PLACEMENT, STOP_SPINNING, Provider, first_line, open_session, placement
from vaezoo.vae import VAE

Run = Callable[[], list[Array] | list[Tensor]]
IOMode = Literal["device", "host"]
IO_MODES: Mapping[IOMode, str] = {"device": "inputs and outputs on the device", "host": "numpy in, numpy out"}
NATIVE = ("eager", "channels-last", "compile", "cuda-graph")
GRAPHS: Mapping[Task, tuple[GraphName, ...]] = {
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "round trip": ("encoder", "decoder"),
}


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What all contestants share.

    Attributes:
        device: "cpu" or "cuda".
        threads: Threads for one operator, on both sides.
        tf32: Whether CUDA may round the factors of products to 10 bits, on both sides.
    """

    device: Provider
    threads: int
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run one task at one batch size.

    Attributes:
        run: Runs once and returns the outputs.
        first: Milliseconds that the first run took, a compilation included where none was made before.
        created: Milliseconds that opening its sessions took; 0 for PyTorch.
        nodes: How many nodes of its graphs each provider runs; empty for PyTorch.
    """

    run: Run
    first: float
    created: float
    nodes: Mapping[str, int]


def start_backend(run: Run, created: float = 0.0, nodes: Mapping[str, int] | None = None) -> Backend:
    """Runs for the first time."""
    start = time.perf_counter()
    with silence():
        run()
    return Backend(run, 1e3 * (time.perf_counter() - start), created, nodes or {})


class RoundTrip(nn.Module):
    """x -> the mean image for its most probable code."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Tensor:
        return self.vae.reconstruct(x)


MODULES: Mapping[Task, type[nn.Module]] = {"encoder": Encoder, "decoder": Decoder, "round trip": RoundTrip}


def native_modules(vae: VAE, task: Task, device: Provider) -> dict[str, nn.Module]:
    """Returns the forms in which PyTorch can run a task: as it is, with other strides, compiled."""
    module = MODULES[task](vae).eval().to(device)
    modules: dict[str, nn.Module] = {"eager": module}
    if any(p.dim() == 4 for p in module.parameters()):
        with contextlib.suppress(RuntimeError):  # a parametrized module, which cannot be copied, goes without
            modules["channels-last"] = copy.deepcopy(module).to(memory_format=torch.channels_last)
    # One graph for each batch size, as for a user who serves that size; a dynamic one is slower.
    modules["compile"] = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    return modules


def native_backends(
    subject: Workload, task: Task, batch: int, regime: IOMode, modules: Mapping[str, nn.Module], setting: BenchConfig
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Returns the contestants in PyTorch, and those left out with the reason."""
    made: dict[str, Backend] = {}
    left_out: dict[str, str] = {}
    x = subject.case(task, batch).inputs
    for name, module in modules.items():
        try:
            made[name] = start_backend(native_run(module, x, regime, setting.device, name == "channels-last"))
        except torch.OutOfMemoryError:
            raise
        except Exception as e:  # a compiler that is missing or fails raises anything
            left_out[name] = f"{type(e).__name__}: {first_line(e)}"
    if setting.device == "cuda" and modules:
        best = modules["compile"] if "compile" in made else modules["eager"]
        try:
            made["cuda-graph"] = start_backend(captured_run(best, x, regime))
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            left_out["cuda-graph"] = f"{type(e).__name__}: {first_line(e)}"
    return made, left_out


def native_run(module: nn.Module, x: Array, regime: IOMode, device: Provider, channels_last: bool) -> Run:
    """Returns a run of a module."""
    there = torch.from_numpy(x).to(device)
    if channels_last and there.dim() == 4:
        there = there.contiguous(memory_format=torch.channels_last)
    if regime == "host":
        return lambda: [o.cpu().numpy() for o in as_list(module(torch.from_numpy(x).to(device)))]
    if device == "cpu":
        return lambda: as_list(module(there))

    def run() -> list[Tensor]:
        outputs = as_list(module(there))
        torch.cuda.synchronize()
        return outputs

    return run


def captured_run(module: nn.Module, x: Array, regime: IOMode) -> Run:
    """Returns a replay of a module that was captured in a CUDA graph, for inputs of one shape."""
    static = torch.from_numpy(x).to("cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a capture wants its kernels chosen and its memory pools warm
        for _ in range(3):
            module(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = as_list(module(static))

    def on_device() -> list[Tensor]:
        graph.replay()
        torch.cuda.synchronize()
        return outputs

    def from_host() -> list[Array]:
        static.copy_(torch.from_numpy(x))
        graph.replay()
        return [o.cpu().numpy() for o in outputs]

    return from_host if regime == "host" else on_device


def onnx_backends(
    subject: Workload, task: Task, batch: int, regime: IOMode, setting: BenchConfig
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Returns the contestants in ONNX Runtime, and those left out with the reason.

    Raises:
        VaezooError: If the device's provider cannot run here.
    """
    made = {f"ort-{setting.device}": onnx_backend(subject, task, batch, regime, setting, {})}
    left_out: dict[str, str] = {}
    if setting.device == "cuda":
        try:
            graphs = {"enable_cuda_graph": "1"}
            made["ort-cuda-graph"] = onnx_backend(subject, task, batch, regime, setting, graphs)
        except VaezooError as e:
            left_out["ort-cuda-graph"] = e.message
        except Exception as e:  # ONNX Runtime's errors have no common class
            left_out["ort-cuda-graph"] = first_line(e)
    return made, left_out


def onnx_backend(
    subject: Workload, task: Task, batch: int, regime: IOMode, setting: BenchConfig, settings: Mapping[str, str]
) -> Backend:
    """Opens the sessions of a task and binds them."""
    if setting.tf32:
        settings = {**settings, "use_tf32": "1"}
    # A user who runs both graphs wants the first to leave the cores to the second; see providers.py.
    entries = RECORD_PLACEMENT | (STOP_SPINNING if task == "round trip" else {})
    start = time.perf_counter()
    sessions = [
        open_session(
            subject.files[part],
            setting.device,
            threads=setting.threads,
            settings=settings,
            entries=entries,
        )
        for part in GRAPHS[task]
    ]
    created = 1e3 * (time.perf_counter() - start)
    nodes: dict[str, int] = {}
    for session in sessions:
        for provider, count in placement(session).items():
            nodes[provider] = nodes.get(provider, 0) + count
    x = subject.case(task, batch).inputs
    if regime == "host" and "enable_cuda_graph" not in settings:
        return start_backend(host_run(subject, task, sessions, x), created, nodes)
    bound = bound_run(subject, task, sessions, batch, x, setting.device, regime)
    return start_backend(bound, created, nodes)


def host_run(subject: Workload, task: Task, sessions: list[Any], x: Array) -> Run:
    """Returns a run with numpy in and out, as `session.run` offers it."""
    names = [session.get_inputs()[0].name for session in sessions]
    if task != "round trip":
        return lambda: list(sessions[0].run(None, {names[0]: x}))

    def run() -> list[Array]:
        (code,) = sessions[0].run([subject.mode], {names[0]: x})
        return list(sessions[1].run(None, {names[1]: code}))

    return run


def bound_run(
    subject: Workload, task: Task, sessions: list[Any], batch: int, x: Array, device: Provider, regime: IOMode
) -> Run:
    """Returns a run with inputs and outputs bound to tensors on the device, one graph's output being the next's input.

    In the host regime, which only a CUDA graph needs here, the input is copied in and the outputs are copied out.
    """
    static = torch.from_numpy(x).to(device)
    current, outputs = static, [static]
    steps = []
    for session, part in zip(sessions, GRAPHS[task], strict=True):
        binding = session.io_binding()
        bind(binding.bind_input, session.get_inputs()[0].name, current, device)
        outputs = []
        for name, example in subject.cases[part].outputs.items():
            outputs.append(torch.empty((batch, *example.shape[1:]), dtype=torch_dtype(example), device=device))
            bind(binding.bind_output, name, outputs[-1], device)
        steps.append((session, binding, current, outputs))  # the tensors, too: a binding does not keep them alive
        if part == "encoder":
            current = outputs[list(subject.cases[part].outputs).index(subject.mode)]
    if device == "cuda":
        torch.cuda.synchronize()  # ONNX Runtime has a stream of its own, which does not wait for PyTorch's

    def on_device() -> list[Tensor]:
        for session, binding, *_ in steps:
            session.run_with_iobinding(binding)  # complete when it returns
        return outputs

    def from_host() -> list[Array]:
        static.copy_(torch.from_numpy(x))
        torch.cuda.synchronize()
        return [o.cpu().numpy() for o in on_device()]

    return from_host if regime == "host" else on_device


def bind(binder: Callable[..., None], name: str, tensor: Tensor, device: Provider) -> None:
    """Binds an input or output of a session to a tensor's memory."""
    dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    binder(name, device, 0, dtype.type, tuple(tensor.shape), tensor.data_ptr())


def torch_dtype(array: Array) -> torch.dtype:
    """Returns the torch type of an array's elements."""
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Returns a module's outputs as a list."""
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
