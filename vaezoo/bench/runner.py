"""The sweep: every task at every batch size in both regimes, and what the times say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vaezoo.bench.backends import (
    IO_MODES,
    NATIVE,
    Backend,
    BenchConfig,
    IOMode,
    native_backends,
    native_modules,
    onnx_backends,
)
from vaezoo.bench.compare import SCHEMA
from vaezoo.bench.timer import MIN_RUNS, measure, summarize
from vaezoo.bench.workload import TASKS, Task, Workload
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.memory import is_out_of_memory
from vaezoo.core.precision import tf32
from vaezoo.errors import ParityError, VaezooError
from vaezoo.export.tolerance import Case, Rule, compare_output
from vaezoo.runtime.manifest import Array
from vaezoo.runtime.ort_session import Provider

BATCHES = (1, 8, 64, 256, 1024)
PACKAGES = ("vaezoo", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")
COPIES, CALLS = 0.3, 0.5  # shares of a time from which copies, or the cost of a call, are said to bound it

PASSES = 2  # over everything, minutes apart: what the machine does in one of them shows in the spread


Row = dict[str, Any]
Key = tuple[Task, int, IOMode, str]  # task, batch size, regime, contestant


@dataclass(frozen=True, slots=True)
class Cell:
    """One contestant at one task, batch size and regime, with its times in seconds."""

    contestant: Backend
    max_abs: float
    times: list[float]


def bench(
    subject: Workload,
    setting: BenchConfig,
    batches: Sequence[int] = BATCHES,
    *,
    seconds: float = 1.0,
    on_row: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measures a model.

    Args:
        subject: The model.
        setting: Device, threads and precision, the same for all contestants.
        batches: Batch sizes.
        seconds: Timed seconds for each contestant, task, batch size and regime.
        on_row: Called with what is about to be measured.

    Returns:
        For JSON: `schema`, `environment`, `setting`, `model`, `rows` and `left_out`. A row is one contestant at one
        task, batch size and regime: its times in milliseconds, images a second, its largest difference from the
        model and, for ONNX Runtime, the speed-up over eager and over the best native contestant.

    Raises:
        ParityError: If a contestant computes something else than the model.
        VaezooError: If the device cannot run here, or a batch does not fit into its memory.
    """
    cells: dict[Key, Cell] = {}
    left_out: dict[str, str] = {}
    with same_conditions(setting):
        for number in range(PASSES):
            for task in TASKS:
                for batch in sorted(set(batches)):
                    on_row(f"{task}, batch {batch}, pass {number + 1} of {PASSES}")
                    found = measure_cells(subject, setting, task, batch, seconds / PASSES, left_out)
                    for key, cell in found.items():
                        cells.setdefault(key, Cell(cell.contestant, cell.max_abs, [])).times.extend(cell.times)
    rows = make_rows(cells)
    add_bounds(rows, setting.device)
    return {
        "schema": SCHEMA,
        "environment": environment(PACKAGES) | ({"gpu": gpu_environment()} if setting.device == "cuda" else {}),
        "setting": {"device": setting.device, "threads": setting.threads, "tf32": setting.tf32, "seconds": seconds},
        "model": dict(subject.described),
        "rows": rows,
        "left_out": left_out,
    }


def measure_cells(
    subject: Workload, setting: BenchConfig, task: Task, batch: int, seconds: float, left_out: dict[str, str]
) -> dict[Key, Cell]:
    """Measures all contestants of one task and batch size, in both regimes, against each other; see `bench`.

    Those that fail are added to `left_out` with the reason.
    """
    torch._dynamo.reset()  # otherwise it gives up after a few shapes and runs eagerly
    modules = native_modules(subject.vae, task, setting.device) if subject.vae is not None else {}
    contestants: dict[Key, Backend] = {}
    try:
        for regime in IO_MODES:
            native, missing = native_backends(subject, task, batch, regime, modules, setting)
            onnx, more = onnx_backends(subject, task, batch, regime, setting)
            contestants |= {(task, batch, regime, name): c for name, c in (native | onnx).items()}
            for name, reason in (missing | more).items():
                left_out[f"{name}, {task}, batch {batch}, {regime}"] = reason
        largest = check(subject.case(task, batch), contestants, subject, setting)
        times = measure({key: c.run for key, c in contestants.items()}, seconds, MIN_RUNS // PASSES)
    except (RuntimeError, MemoryError) as e:  # PyTorch and ONNX Runtime have no common error for it
        if not is_out_of_memory(e):
            raise
        raise VaezooError(
            f"batch {batch} does not fit into the memory of {setting.device}", "give smaller --batch"
        ) from e
    return {key: Cell(contestants[key], largest[key], times[key]) for key in contestants}


@contextlib.contextmanager
def same_conditions(setting: BenchConfig) -> Iterator[None]:
    """Gives PyTorch the threads and the precision that ONNX Runtime gets, without gradients; restores them after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        with torch.inference_mode(), tf32(setting.tf32):
            yield
    finally:
        torch.set_num_threads(threads)
        torch._dynamo.reset()


def check(case: Case, contestants: Mapping[Key, Backend], subject: Workload, setting: BenchConfig) -> dict[Key, float]:
    """Returns each contestant's largest difference from the model; raises ParityError if it is out of tolerance."""
    rule = Rule(subject.form.dtype, setting.device, tf32=setting.tf32)
    largest: dict[Key, float] = {}
    for key, contestant in contestants.items():
        task, _, _, name = key
        outputs = [numpy(o) for o in contestant.run()]
        try:
            rows = [
                compare_output(task, name, output, ours, theirs, rule)
                for (output, ours), theirs in zip(case.outputs.items(), outputs, strict=True)
            ]
        except ParityError as e:
            raise ParityError(e.message, "its times would mean nothing; see 'vaezoo doctor'") from e
        largest[key] = max(r.max_abs for r in rows)
    return largest


def numpy(output: Array | torch.Tensor) -> Array:
    """Returns an output as an array of its own."""
    return output.detach().cpu().numpy().copy() if isinstance(output, torch.Tensor) else np.array(output)


def make_rows(cells: Mapping[Key, Cell]) -> list[Row]:
    """Returns the rows; see `bench`."""
    timings = {key: summarize(cell.times) for key, cell in cells.items()}
    rows = []
    for key, cell in sorted(cells.items(), key=lambda item: order(item[0])):
        task, batch, regime, name = key
        timing, contestant = timings[key], cell.contestant
        made: Row = {
            "task": task,
            "batch": batch,
            "regime": regime,
            "contestant": name,
            **timing.as_dict(),
            "spread": round(timing.spread, 4),
            "images_per_s": round(1e3 * batch / timing.p50, 1),
            "max_abs": cell.max_abs,
            "first": round(contestant.first, 3),
        }
        if contestant.nodes:
            made |= {"created": round(contestant.created, 3), "nodes": dict(contestant.nodes)}
            p50 = {n: timings[task, batch, regime, n].p50 for n in NATIVE if (task, batch, regime, n) in timings}
            if "eager" in p50:
                best = min(p50, key=lambda n: p50[n])
                made |= {
                    "over_eager": round(p50["eager"] / timing.p50, 3),
                    "over_best": round(p50[best] / timing.p50, 3),
                    "best": best,
                }
        rows.append(made)
    return rows


def order(key: Key) -> tuple[int, int, int, int]:
    """Returns what sorts rows as people read them: PyTorch before ONNX Runtime, the plain before the special."""
    task, batch, regime, name = key
    place = NATIVE.index(name) if name in NATIVE else len(NATIVE) + len(name)
    return TASKS.index(task), list(IO_MODES).index(regime), batch, place


def add_bounds(rows: list[Row], device: Provider) -> None:
    """Adds to each row what bounds it: "arithmetic", "copies" or "calls".

    Arithmetic grows with the batch: what an image costs at the largest batch is taken for it. What a row takes
    beyond that is the cost of calls: Python, dispatch and, on a GPU, launches. Copies are what the host regime
    takes on a GPU beyond the device regime.
    """
    p50 = {(r["task"], r["contestant"], r["regime"], r["batch"]): r["p50"] for r in rows}
    for r in rows:
        task, name, batch = r["task"], r["contestant"], r["batch"]
        largest = max(b for t, c, _, b in p50 if (t, c) == (task, name))
        on_device = p50.get((task, name, "device", batch), r["p50"]) if device == "cuda" else r["p50"]
        arithmetic = p50.get((task, name, "device", largest), r["p50"]) / largest * batch
        if (r["p50"] - on_device) / r["p50"] >= COPIES:
            r["bound"] = "copies"
        elif batch < largest and 1 - arithmetic / on_device >= CALLS:
            r["bound"] = "calls"
        else:
            r["bound"] = "arithmetic"
