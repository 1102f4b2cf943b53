"""The backends: ways to run a model, each as a call that returns when the run is complete.

Those of PyTorch are in native.py. This module does without torch, as the measurement of an export does.

There are two IO modes, which are never mixed. With "device", inputs and outputs stay on the device. With "host", both
PyTorch and ONNX Runtime get and return numpy arrays.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vaezoo.bench.result import IOMode, Task
from vaezoo.bench.workload import Workload
from vaezoo.errors import VaezooError
from vaezoo.runtime.manifest import Array
from vaezoo.runtime.ort_session import RECORD_PLACEMENT, STOP_SPINNING, Provider, first_line, open_session, placement

if TYPE_CHECKING:
    import onnxruntime as ort
    from torch import Tensor

RunFn = Callable[[], "list[Array] | list[Tensor] | list[ort.OrtValue]"]
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


def default_threads() -> int:
    """Returns the number of threads that PyTorch would take, or that of the cores where PyTorch is not installed."""
    with contextlib.suppress(ImportError):
        import torch

        return torch.get_num_threads()
    return os.cpu_count() or 1


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
    run()
    return Backend(run, 1e3 * (time.perf_counter() - start), created, nodes or {})


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
    """Returns a call that runs the sessions with inputs and outputs bound to memory on the device.

    In a round trip, the encoder's output is the decoder's input. In IO mode "host", which only CUDA graphs use here,
    the inputs are copied in and the outputs are copied out.
    """
    import onnxruntime as ort

    static = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in inputs.items()}
    available, outputs = dict(static), list(static.values())
    steps = []
    for session, graph in zip(sessions, GRAPHS[task], strict=True):
        binding = session.io_binding()
        for tensor in session.get_inputs():
            binding.bind_ortvalue_input(tensor.name, available[tensor.name])
        outputs, examples = [], workload.cases[graph].outputs
        for name, example in examples.items():
            shape = (batch, *example.shape[1:])
            outputs.append(ort.OrtValue.ortvalue_from_shape_and_type(shape, example.dtype.type, device, 0))
            binding.bind_ortvalue_output(name, outputs[-1])
        if graph == "encoder":
            available["z"] = outputs[list(examples).index(workload.mode)]
        steps.append((session, binding, dict(available), outputs))  # a binding does not keep its values alive

    def run_on_device() -> list[ort.OrtValue]:
        for session, binding, *_ in steps:
            session.run_with_iobinding(binding)  # returns when the run is complete
        return outputs

    def run_from_host() -> list[Array]:
        for name, value in static.items():
            value.update_inplace(inputs[name])
        return [output.numpy() for output in run_on_device()]

    return run_from_host if io_mode == "host" else run_on_device


def to_numpy(output: Array | Tensor | ort.OrtValue) -> Array:
    """Returns a copy of an output. Backends may overwrite their outputs in the next run."""
    array = output if isinstance(output, np.ndarray) else output.cpu() if hasattr(output, "cpu") else output
    return np.array(array if isinstance(array, np.ndarray) else array.numpy())
