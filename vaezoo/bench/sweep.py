"""The sweep: every task at every batch size in both regimes, and what the times say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from vaezoo.bench.clock import Timing, measure
from vaezoo.bench.contestants import (
    NATIVE,
    REGIMES,
    Contestant,
    Setting,
    native_contestants,
    native_modules,
    onnx_contestants,
)
from vaezoo.bench.environment import environment, gpu_environment
from vaezoo.bench.subject import TASKS, Subject
from vaezoo.errors import ParityError, VaezooError
from vaezoo.export.compare import Case, Rule, compare
from vaezoo.providers import Provider
from vaezoo.runtime import Array

SCHEMA = 1
BATCHES = (1, 8, 64, 256, 1024)
PACKAGES = ("vaezoo", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")
COPIES, CALLS = 0.3, 0.5  # shares of a time from which copies, or the cost of a call, are said to bound it

Row = dict[str, Any]


def bench(
    subject: Subject,
    setting: Setting,
    batches: Iterable[int] = BATCHES,
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
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    batches = sorted(set(batches))
    with same_conditions(setting):
        for task in TASKS:
            for batch in batches:
                torch._dynamo.reset()  # otherwise it gives up after a few shapes and runs eagerly
                modules = native_modules(subject.vae, task, setting.device) if subject.vae is not None else {}
                for regime in REGIMES:
                    on_row(f"{task}, batch {batch}, {regime}")
                    try:
                        native, missing = native_contestants(subject, task, batch, regime, modules, setting)
                        onnx, more = onnx_contestants(subject, task, batch, regime, setting)
                    except (torch.OutOfMemoryError, MemoryError):
                        raise VaezooError(
                            f"batch {batch} does not fit into the memory of {setting.device}", "give smaller --batch"
                        ) from None
                    left_out |= {f"{name}, {task}": reason for name, reason in (missing | more).items()}
                    contestants = native | onnx
                    largest = check(subject.case(task, batch), contestants, subject, setting, task)
                    timings = measure({name: c.run for name, c in contestants.items()}, seconds)
                    where = {"task": task, "batch": batch, "regime": regime}
                    rows += [row(where, name, timings, contestants[name], largest[name], batch) for name in contestants]
    add_bounds(rows, setting.device)
    return {
        "schema": SCHEMA,
        "environment": environment(PACKAGES) | ({"gpu": gpu_environment()} if setting.device == "cuda" else {}),
        "setting": {"device": setting.device, "threads": setting.threads, "tf32": setting.tf32, "seconds": seconds},
        "model": dict(subject.described),
        "rows": rows,
        "left_out": left_out,
    }


@contextlib.contextmanager
def same_conditions(setting: Setting) -> Iterator[None]:
    """Gives PyTorch the threads and the precision that ONNX Runtime gets, without gradients; restores them after."""
    threads = torch.get_num_threads()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(setting.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setting.tf32
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        torch._dynamo.reset()


def check(
    case: Case, contestants: Mapping[str, Contestant], subject: Subject, setting: Setting, task: str
) -> dict[str, float]:
    """Returns each contestant's largest difference from the model; raises ParityError if it is out of tolerance."""
    rule = Rule(subject.form.dtype, setting.device, tf32=setting.tf32)
    largest = {}
    for name, contestant in contestants.items():
        outputs = [numpy(o) for o in contestant.run()]
        try:
            rows = [
                compare(task, name, output, ours, theirs, rule)
                for (output, ours), theirs in zip(case.outputs.items(), outputs, strict=True)
            ]
        except ParityError as e:
            raise ParityError(e.message, "its times would mean nothing; see 'vaezoo doctor'") from e
        largest[name] = max(r.max_abs for r in rows)
    return largest


def numpy(output: Array | torch.Tensor) -> Array:
    """Returns an output as an array of its own."""
    return output.detach().cpu().numpy().copy() if isinstance(output, torch.Tensor) else np.array(output)


def row(
    where: Mapping[str, object],
    name: str,
    timings: Mapping[str, Timing],
    contestant: Contestant,
    max_abs: float,
    batch: int,
) -> Row:
    """Returns a contestant's row; see `bench`."""
    timing = timings[name]
    made: Row = {
        **where,
        "contestant": name,
        **timing.as_dict(),
        "spread": round(timing.spread, 4),
        "images_per_s": round(1e3 * batch / timing.p50, 1),
        "max_abs": max_abs,
        "first": round(contestant.first, 3),
    }
    if contestant.nodes:
        made |= {"created": round(contestant.created, 3), "nodes": dict(contestant.nodes)}
        native = {n: t.p50 for n, t in timings.items() if n in NATIVE}
        if native:
            best = min(native, key=lambda n: native[n])
            made |= {
                "over_eager": round(native["eager"] / timing.p50, 3),
                "over_best": round(native[best] / timing.p50, 3),
                "best": best,
            }
    return made


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
