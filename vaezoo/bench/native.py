"""The backends of PyTorch: eager, channels-last, compiled, and CUDA graphs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from vaezoo.bench.backends import Backend, BenchConfig, RunFn, start_backend
from vaezoo.bench.result import IOMode, Task
from vaezoo.bench.workload import Workload
from vaezoo.core.precision import tf32
from vaezoo.data.base import Batch
from vaezoo.export.config import DType
from vaezoo.export.graphs import GraphModule, silence
from vaezoo.runtime.manifest import Array
from vaezoo.runtime.ort_session import Provider, first_line
from vaezoo.vae import VAE


@contextlib.contextmanager
def torch_settings(config: BenchConfig) -> Iterator[None]:
    """Gives PyTorch the threads and precision of the config and disables gradients. Restores them afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.inference_mode(), tf32(config.tf32):
            yield
    finally:
        torch.set_num_threads(threads)
        torch._dynamo.reset()


def round_trip_inputs(vae: VAE) -> tuple[str, ...]:
    """Returns the names of a round trip's inputs in PyTorch, where a decoder knows the coordinates of its pixels."""
    return tuple(dict.fromkeys([*vae.encoder_inputs, *vae.decoder_inputs]))


class RoundTrip(nn.Module):
    """Maps the encoder's inputs to the outputs of the decoder at the mode of q(z|x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae
        self.names = round_trip_inputs(vae)

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
    torch._dynamo.reset()  # otherwise dynamo stops compiling after a few shapes and runs eagerly

    def prepare(vae: VAE) -> nn.Module:
        module = make_module(vae, task).eval().to(device)
        return Half(module) if dtype == "fp16" else module

    module = prepare(vae)
    modules: dict[str, nn.Module] = {"eager": module}
    if any(p.dim() == 4 for p in module.parameters()):
        with contextlib.suppress(RuntimeError):  # a parametrized module cannot be copied
            # The model is copied and not the module of the task, whose function would still run the original.
            modules["channels-last"] = prepare(copy.deepcopy(vae)).to(memory_format=torch.channels_last)
    # One graph for each batch size, as for a user who serves that size. A dynamic graph is slower.
    modules["compile"] = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    return modules


def native_backends(
    workload: Workload, task: Task, batch: int, io_mode: IOMode, modules: Mapping[str, nn.Module], config: BenchConfig
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Returns the PyTorch backends, and the reasons of those that were skipped."""
    backends: dict[str, Backend] = {}
    skipped: dict[str, str] = {}
    case = workload.case(task, batch)
    names: tuple[str, ...] = tuple(case.inputs)
    if task == "round trip" and workload.vae is not None:
        names = round_trip_inputs(workload.vae)
    inputs = [case.inputs[name] for name in names]
    for name, module in modules.items():
        try:
            run = native_run(module, inputs, io_mode, config.device, name == "channels-last")
            with silence():  # compilers print and warn
                backends[name] = start_backend(run)
        except torch.OutOfMemoryError:
            raise
        except Exception as e:  # a missing or failing compiler may raise anything
            skipped[name] = f"{type(e).__name__}: {first_line(e)}"
    if config.device == "cuda" and modules:
        best = modules["compile"] if "compile" in backends else modules["eager"]
        try:
            run = captured_run(best, inputs, io_mode)
            with silence():
                backends["cuda-graph"] = start_backend(run)
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


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Returns a module's outputs as a list."""
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
