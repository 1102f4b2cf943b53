"""The backends: ways to run a model, each as a call that returns when the run is complete.

There are two IO modes, which are never mixed. With "device", inputs and outputs stay on the device. With "host", both
PyTorch and ONNX Runtime get and return numpy arrays.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vaezoo.bench.result import IOMode, Task
from vaezoo.bench.workload import Workload
from vaezoo.data.base import Batch
from vaezoo.errors import VaezooError
from vaezoo.export.config import DType
from vaezoo.export.graphs import GraphModule, silence
from vaezoo.runtime.manifest import Array
from vaezoo.runtime.ort_session import RECORD_PLACEMENT, STOP_SPINNING, Provider, first_line, open_session, placement
from vaezoo.vae import VAE

if TYPE_CHECKING:
    import onnxruntime as ort

RunFn = Callable[[], list[Array] | list[Tensor]]
IO_MODES: Mapping[IOMode, str] = {"device": "inputs and outputs on the device", "host": "numpy in, numpy out"}
NATIVE = ("eager", "channels-last", "compile", "cuda-graph")
GRAPHS: Mapping[Task, tuple[Literal["encoder", "decoder"], ...]] = {
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "round trip": ("encoder", "decoder"),
}


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """The settings that all backends share.

    Attributes:
        device: "cpu" or "cuda".
        threads: Threads for one operator.
        tf32: Whether CUDA may round the factors of products to 10 bits.
    """

    device: Provider
    threads: int
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run one task at one batch size.

    Attributes:
        run: Runs once and returns the outputs.
        first: Milliseconds of the first run, including the compilation unless it was compiled before.
        created: Milliseconds that opening its sessions took, or 0 for PyTorch.
        nodes: How many nodes of its graphs each provider runs. Empty for PyTorch.
    """

    run: RunFn
    first: float
    created: float
    nodes: Mapping[str, int]


def start_backend(run: RunFn, created: float = 0.0, nodes: Mapping[str, int] | None = None) -> Backend:
    """Runs for the first time and returns the backend."""
    start = time.perf_counter()
    with silence():
        run()
    return Backend(run, 1e3 * (time.perf_counter() - start), created, nodes or {})


class RoundTrip(nn.Module):
    """Maps the encoder's inputs to the outputs of the decoder at the mode of q(z|x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae
        self.names = tuple(dict.fromkeys([*vae.encoder_inputs, *vae.decoder_inputs]))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        batch = Batch(**dict(zip(self.names, inputs, strict=True)))
        params = self.vae.generate(self.vae.infer(batch).mode(), batch)
        outputs = tuple(self.vae.likelihood.outputs(params).values())
        return outputs if len(outputs) > 1 else outputs[0]


def make_module(vae: VAE, task: Task) -> nn.Module:
    """Returns the module of a task."""
    return RoundTrip(vae) if task == "round trip" else GraphModule(vae, task)


class Half(nn.Module):
    """Runs a module in float16. Inputs and outputs are float32, as in a graph that is exported in fp16.

    Args:
        module: It is converted itself, because some modules cannot be copied.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        halves = (x.half() if x.is_floating_point() else x for x in inputs)
        return tuple(y.float() if y.is_floating_point() else y for y in as_list(self.module(*halves)))


def native_modules(vae: VAE, task: Task, device: Provider, dtype: DType = "fp32") -> dict[str, nn.Module]:
    """Returns the modules in which PyTorch can run a task: eager, channels-last, compiled."""
    module = make_module(vae, task).eval().to(device)
    if dtype == "fp16":
        module = Half(module)
    modules: dict[str, nn.Module] = {"eager": module}
    if any(p.dim() == 4 for p in module.parameters()):
        with contextlib.suppress(RuntimeError):  # a parametrized module cannot be copied
            modules["channels-last"] = copy.deepcopy(module).to(memory_format=torch.channels_last)
    # One graph for each batch size, as for a user who serves that size. A dynamic graph is slower.
    modules["compile"] = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    return modules


def native_backends(
    workload: Workload, task: Task, batch: int, io_mode: IOMode, modules: Mapping[str, nn.Module], config: BenchConfig
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Returns the PyTorch backends, and the reasons of those that were skipped."""
    backends: dict[str, Backend] = {}
    skipped: dict[str, str] = {}
    inputs = list(workload.case(task, batch).inputs.values())
    for name, module in modules.items():
        try:
            backends[name] = start_backend(native_run(module, inputs, io_mode, config.device, name == "channels-last"))
        except torch.OutOfMemoryError:
            raise
        except Exception as e:  # a missing or failing compiler may raise anything
            skipped[name] = f"{type(e).__name__}: {first_line(e)}"
    if config.device == "cuda" and modules:
        best = modules["compile"] if "compile" in backends else modules["eager"]
        try:
            backends["cuda-graph"] = start_backend(captured_run(best, inputs, io_mode))
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            skipped["cuda-graph"] = f"{type(e).__name__}: {first_line(e)}"
    return backends, skipped


def native_run(
    module: nn.Module, inputs: Sequence[Array], io_mode: IOMode, device: Provider, channels_last: bool
) -> RunFn:
    """Returns a call that runs a module."""
    on_device = [torch.from_numpy(array).to(device) for array in inputs]
    if channels_last:
        on_device = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in on_device]
    if io_mode == "host":
        return lambda: [
            output.cpu().numpy()
            for output in as_list(module(*(torch.from_numpy(array).to(device) for array in inputs)))
        ]
    if device == "cpu":
        return lambda: as_list(module(*on_device))

    def run() -> list[Tensor]:
        outputs = as_list(module(*on_device))
        torch.cuda.synchronize()
        return outputs

    return run


def captured_run(module: nn.Module, inputs: Sequence[Array], io_mode: IOMode) -> RunFn:
    """Captures a module in a CUDA graph for one input shape. Returns a call that replays it."""
    static = [torch.from_numpy(array).to("cuda") for array in inputs]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels must be chosen and memory pools filled before the capture
        for _ in range(3):
            module(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = as_list(module(*static))

    def run_on_device() -> list[Tensor]:
        graph.replay()
        torch.cuda.synchronize()
        return outputs

    def run_from_host() -> list[Array]:
        for tensor, array in zip(static, inputs, strict=True):
            tensor.copy_(torch.from_numpy(array))
        graph.replay()
        return [output.cpu().numpy() for output in outputs]

    return run_from_host if io_mode == "host" else run_on_device


def onnx_backends(
    workload: Workload, task: Task, batch: int, io_mode: IOMode, config: BenchConfig
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Returns the ONNX Runtime backends, and the reasons of those that were skipped.

    Raises:
        VaezooError: If the device's provider cannot run here.
    """
    backends = {f"ort-{config.device}": onnx_backend(workload, task, batch, io_mode, config, {})}
    skipped: dict[str, str] = {}
    if config.device == "cuda":
        try:
            options = {"enable_cuda_graph": "1"}
            backends["ort-cuda-graph"] = onnx_backend(workload, task, batch, io_mode, config, options)
        except VaezooError as e:
            skipped["ort-cuda-graph"] = e.message
        except Exception as e:  # ONNX Runtime's errors have no common base class
            skipped["ort-cuda-graph"] = first_line(e)
    return backends, skipped


def onnx_backend(
    workload: Workload,
    task: Task,
    batch: int,
    io_mode: IOMode,
    config: BenchConfig,
    provider_options: Mapping[str, str],
) -> Backend:
    """Opens the sessions of a task and returns the backend that runs them."""
    if config.tf32:
        provider_options = {**provider_options, "use_tf32": "1"}
    # In a round trip, the threads of the first session must leave the cores to the second; see ort_session.py.
    entries = RECORD_PLACEMENT | (STOP_SPINNING if task == "round trip" else {})
    start = time.perf_counter()
    sessions = [
        open_session(
            workload.files[graph],
            config.device,
            threads=config.threads,
            provider_options=provider_options,
            entries=entries,
        )
        for graph in GRAPHS[task]
    ]
    created = 1e3 * (time.perf_counter() - start)
    nodes: dict[str, int] = {}
    for session in sessions:
        for provider, count in placement(session).items():
            nodes[provider] = nodes.get(provider, 0) + count
    inputs = workload.case(task, batch).inputs
    # A CUDA graph replays with fixed addresses, so it needs bound tensors in both IO modes.
    if io_mode == "host" and "enable_cuda_graph" not in provider_options:
        return start_backend(host_run(workload, task, sessions, inputs), created, nodes)
    run = bound_run(workload, task, sessions, batch, inputs, config.device, io_mode)
    return start_backend(run, created, nodes)


def host_run(
    workload: Workload, task: Task, sessions: list[ort.InferenceSession], inputs: Mapping[str, Array]
) -> RunFn:
    """Returns a call that runs the sessions with numpy arrays, as `session.run` does."""
    if task != "round trip":
        return lambda: list(sessions[0].run(None, dict(inputs)))
    encoder, decoder = sessions
    encoder_inputs = {tensor.name: inputs[tensor.name] for tensor in encoder.get_inputs()}
    others = {tensor.name: inputs[tensor.name] for tensor in decoder.get_inputs() if tensor.name != "z"}

    def run() -> list[Array]:
        (z,) = encoder.run([workload.mode], encoder_inputs)
        return list(decoder.run(None, {"z": z, **others}))

    return run


def bound_run(
    workload: Workload,
    task: Task,
    sessions: list[ort.InferenceSession],
    batch: int,
    inputs: Mapping[str, Array],
    device: Provider,
    io_mode: IOMode,
) -> RunFn:
    """Returns a call that runs the sessions with inputs and outputs bound to tensors on the device.

    In a round trip, the encoder's output is the decoder's input. In IO mode "host", which only CUDA graphs use here,
    the inputs are copied in and the outputs are copied out.
    """
    static = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    available, outputs = dict(static), list(static.values())
    steps = []
    for session, graph in zip(sessions, GRAPHS[task], strict=True):
        binding = session.io_binding()
        for tensor in session.get_inputs():
            bind(binding.bind_input, tensor.name, available[tensor.name], device)
        outputs, examples = [], workload.cases[graph].outputs
        for name, example in examples.items():
            outputs.append(torch.empty((batch, *example.shape[1:]), dtype=torch_dtype(example), device=device))
            bind(binding.bind_output, name, outputs[-1], device)
        if graph == "encoder":
            available["z"] = outputs[list(examples).index(workload.mode)]
        steps.append((session, binding, dict(available), outputs))  # a binding does not keep its tensors alive
    if device == "cuda":
        torch.cuda.synchronize()  # ONNX Runtime's stream does not wait for PyTorch's

    def run_on_device() -> list[Tensor]:
        for session, binding, *_ in steps:
            session.run_with_iobinding(binding)  # returns when the run is complete
        return outputs

    def run_from_host() -> list[Array]:
        for name, tensor in static.items():
            tensor.copy_(torch.from_numpy(inputs[name]))
        torch.cuda.synchronize()
        return [output.cpu().numpy() for output in run_on_device()]

    return run_from_host if io_mode == "host" else run_on_device


def bind(binder: Callable[..., None], name: str, tensor: Tensor, device: Provider) -> None:
    """Binds an input or output of a session to a tensor's memory."""
    dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    binder(name, device, 0, dtype.type, tuple(tensor.shape), tensor.data_ptr())


def torch_dtype(array: Array) -> torch.dtype:
    """Returns the torch dtype of an array."""
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Returns a module's outputs as a list."""
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
