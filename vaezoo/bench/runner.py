"""Run a benchmark: every task at every batch size in both IO modes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vaezoo.bench.backends import IO_MODES, NATIVE, Backend, BenchConfig, onnx_backends, to_numpy
from vaezoo.bench.compare import SCHEMA
from vaezoo.bench.result import BenchResult, BenchRow, Bound, IOMode, OnnxFields, Task
from vaezoo.bench.timer import MIN_RUNS, measure, summarize
from vaezoo.bench.workload import TASKS, Workload
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.memory import is_out_of_memory
from vaezoo.errors import ParityError, VaezooError
from vaezoo.export.cases import Case
from vaezoo.export.tolerance import Tolerance, compare_output
from vaezoo.runtime.ort_session import Provider

BATCHES = (1, 8, 64, 256, 1024)
PACKAGES = ("vaezoo", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")
COPY_SHARE = 0.3  # copies bound a row if they take at least this share of its time
CALL_SHARE = 0.5  # calls bound a row if they take at least this share of its time
PASSES = 2  # over everything, minutes apart: a disturbance of the machine during one of them shows in the spread


class Key(NamedTuple):
    """What identifies a row."""

    task: Task
    batch: int
    io_mode: IOMode
    backend: str


@dataclass(frozen=True, slots=True)
class Samples:
    """The timed runs of one backend at one task, batch size and IO mode.

    Attributes:
        backend: The backend.
        max_abs: Its largest difference from the model.
        times: Seconds of each run.
    """

    backend: Backend
    max_abs: float
    times: list[float]


def bench(
    workload: Workload,
    config: BenchConfig,
    batches: Sequence[int] = BATCHES,
    *,
    tasks: Sequence[Task] = TASKS,
    seconds: float = 1.0,
    passes: int = PASSES,
    io_modes: Sequence[IOMode] = tuple(IO_MODES),
    on_progress: Callable[[str], None] = lambda step: None,
) -> BenchResult:
    """Measures a model.

    Args:
        workload: The model.
        config: Device, threads and precision of all backends.
        batches: Batch sizes.
        tasks: Tasks.
        seconds: Timed seconds for each backend, task, batch size and IO mode.
        passes: Passes over everything, among which the timed seconds are divided.
        io_modes: IO modes. On the CPU they hardly differ.
        on_progress: Called with a description of the next step.

    Returns:
        The result, for JSON.

    Raises:
        ParityError: If a backend computes something else than the model.
        VaezooError: If the device cannot run here, or a batch does not fit in its memory.
    """
    samples: dict[Key, Samples] = {}
    skipped: dict[str, str] = {}
    with settings(workload, config):
        for number in range(passes):
            for task in (task for task in tasks if task in workload.cases):
                for batch in sorted(set(batches)):
                    on_progress(f"{task}, batch {batch}, pass {number + 1} of {passes}")
                    new = measure_backends(workload, config, task, batch, seconds, passes, io_modes, skipped)
                    for key, s in new.items():
                        samples.setdefault(key, Samples(s.backend, s.max_abs, [])).times.extend(s.times)
    about = environment(PACKAGES)
    if config.device == "cuda":
        with contextlib.suppress(ImportError):  # it asks PyTorch, without which an export runs too
            about["gpu"] = gpu_environment()
    return {
        "schema": SCHEMA,
        "environment": about,
        "setting": {
            "device": config.device,
            "threads": config.threads,
            "tf32": config.tf32,
            "seconds": seconds,
            "passes": passes,
        },
        "model": workload.entry,
        "rows": make_rows(samples, config.device),
        "skipped": skipped,
    }


def measure_backends(
    workload: Workload,
    config: BenchConfig,
    task: Task,
    batch: int,
    seconds: float,
    passes: int,
    io_modes: Sequence[IOMode],
    skipped: dict[str, str],
) -> dict[Key, Samples]:
    """Makes one pass over all backends of a task and batch size; see `bench`.

    Backends that fail are added to `skipped` with the reason.
    """
    run_natively = native_side(workload, task, config)
    backends: dict[Key, Backend] = {}
    try:
        for io_mode in io_modes:
            native, native_skipped = run_natively(batch, io_mode)
            onnx, onnx_skipped = onnx_backends(workload, task, batch, io_mode, config)
            backends |= {Key(task, batch, io_mode, name): backend for name, backend in (native | onnx).items()}
            for name, reason in (native_skipped | onnx_skipped).items():
                skipped[f"{name}, {task}, batch {batch}, {io_mode}"] = reason
        max_abs = check_outputs(workload.case(task, batch), backends, workload, config)
        runs = {key: backend.run for key, backend in backends.items()}
        times = measure(runs, seconds / passes, MIN_RUNS // passes)
    except (RuntimeError, MemoryError) as e:  # PyTorch and ONNX Runtime have no common error for it
        if not is_out_of_memory(e):
            raise
        raise VaezooError(
            f"batch {batch} does not fit in the memory of {config.device}", "give smaller sizes with --batch"
        ) from e
    return {key: Samples(backends[key], max_abs[key], times[key]) for key in backends}


def native_side(
    workload: Workload, task: Task, config: BenchConfig
) -> Callable[[int, IOMode], tuple[dict[str, Backend], dict[str, str]]]:
    """Returns the function that starts PyTorch's backends for a batch size and an IO mode. An export has none."""
    if workload.vae is None:
        return lambda batch, io_mode: ({}, {})
    from vaezoo.bench import native

    modules = native.native_modules(workload.vae, task, config.device, workload.config.dtype)
    return lambda batch, io_mode: native.native_backends(workload, task, batch, io_mode, modules, config)


def settings(workload: Workload, config: BenchConfig) -> contextlib.AbstractContextManager[None]:
    """Returns the context in which a workload is measured: PyTorch's settings, if PyTorch is measured."""
    if workload.vae is None:
        return contextlib.nullcontext()
    from vaezoo.bench.native import torch_settings

    return torch_settings(config)


def check_outputs(
    case: Case, backends: Mapping[Key, Backend], workload: Workload, config: BenchConfig
) -> dict[Key, float]:
    """Returns each backend's largest difference from the model. Raises ParityError if one is out of tolerance."""
    tolerance = Tolerance(workload.config.dtype, config.device, tf32=config.tf32)
    max_abs: dict[Key, float] = {}
    for key, backend in backends.items():
        outputs = [to_numpy(output) for output in backend.run()]
        try:
            rows = [
                compare_output(key.task, key.backend, name, expected, actual, tolerance)
                for (name, expected), actual in zip(case.outputs.items(), outputs, strict=True)
            ]
        except ParityError as e:
            raise ParityError(e.message, "see 'vaezoo doctor': times of wrong outputs mean nothing") from e
        max_abs[key] = max(row.max_abs for row in rows)
    return max_abs


def make_rows(samples: Mapping[Key, Samples], device: Provider) -> list[BenchRow]:
    """Returns the rows of the result, sorted."""
    measurements = {key: summarize(s.times) for key, s in samples.items()}
    p50 = {key: measurement.p50 for key, measurement in measurements.items()}
    bounds = find_bounds(p50, device)
    rows = []
    for key in sorted(samples, key=sort_key):
        measurement, backend = measurements[key], samples[key].backend
        extra: OnnxFields = {}
        if backend.nodes:
            extra |= {"created": round(backend.created, 3), "nodes": dict(backend.nodes)}
            native = {name: p50[k] for name in NATIVE if (k := key._replace(backend=name)) in p50}
            if "eager" in native:
                best = min(native, key=lambda name: native[name])
                extra |= {
                    "over_eager": round(native["eager"] / p50[key], 3),
                    "over_best": round(native[best] / p50[key], 3),
                    "best": best,
                }
        row: BenchRow = {
            "task": key.task,
            "batch": key.batch,
            "io_mode": key.io_mode,
            "backend": key.backend,
            **measurement.as_dict(),
            "spread": round(measurement.spread, 4),
            "images_per_s": round(1e3 * key.batch / p50[key], 1),
            "max_abs": samples[key].max_abs,
            "first": round(backend.first, 3),
            **extra,
            "bound": bounds[key],
        }
        rows.append(row)
    return rows


def sort_key(key: Key) -> tuple[int, int, int, int]:
    """Returns the order of rows: by task, IO mode and batch size, PyTorch before ONNX Runtime."""
    position = NATIVE.index(key.backend) if key.backend in NATIVE else len(NATIVE) + len(key.backend)
    return TASKS.index(key.task), list(IO_MODES).index(key.io_mode), key.batch, position


def find_bounds(p50: Mapping[Key, float], device: Provider) -> dict[Key, Bound]:
    """Returns what bounds the speed of each row, given the medians.

    - "arithmetic" grows with the batch. Its cost for one image is estimated at the largest batch, on the device.
    - "calls" are the time beyond arithmetic: Python, dispatch and, on a GPU, launches.
    - "copies" are what IO mode "host" takes on a GPU beyond IO mode "device".
    """
    bounds: dict[Key, Bound] = {}
    for key, time in p50.items():
        largest = max(k.batch for k in p50 if (k.task, k.backend) == (key.task, key.backend))
        on_device = p50.get(key._replace(io_mode="device"), time) if device == "cuda" else time
        arithmetic = p50.get(key._replace(io_mode="device", batch=largest), time) / largest * key.batch
        if (time - on_device) / time >= COPY_SHARE:
            bounds[key] = "copies"
        elif key.batch < largest and 1 - arithmetic / on_device >= CALL_SHARE:
            bounds[key] = "calls"
        else:
            bounds[key] = "arithmetic"
    return bounds
