"""Measure a model in cells, one task at one batch size each, so that a failure or a time limit costs only some of them.

`onnx_latency.py --limit` uses it. Each cell has a single pass, so both halves of its runs are from the same minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch

from vaezoo.bench.backends import BenchConfig
from vaezoo.bench.native import native_backends, native_modules, torch_settings
from vaezoo.bench.result import BenchResult, BenchRow, Task
from vaezoo.bench.runner import Key, bench, find_bounds, sort_key
from vaezoo.bench.workload import Workload
from vaezoo.errors import format_error


def measure_cells(
    workload: Workload,
    config: BenchConfig,
    batches: Sequence[int],
    tasks: Sequence[Task],
    seconds: float,
    limit: float,
    log: Callable[[str], None],
) -> Iterator[BenchResult]:
    """Measures cell after cell and yields the result so far after each.

    The order is that of the arguments, by batch size first. What fails or does not fit in the limit is in `skipped`.

    Args:
        workload: The model.
        config: Device, threads and precision of all backends.
        batches: Batch sizes.
        tasks: Tasks.
        seconds: Timed seconds for each backend.
        limit: Seconds. No cell is started that would end later if it took as long as the slowest one so far.
        log: Called with a line for each cell.

    Raises:
        RuntimeError: If no cell could be measured.
    """
    start, slowest = time.monotonic(), 0.0
    results: list[BenchResult] = []
    skipped: dict[str, str] = {}
    for task, batch in [(task, batch) for batch in batches for task in tasks]:
        cell, begin = f"{task}, batch {batch}", time.monotonic()
        if begin - start + slowest > limit:
            skipped[cell] = "not started: no time was left"
            continue
        try:
            results.append(bench(workload, config, [batch], tasks=[task], seconds=seconds, passes=1))
        except Exception as e:  # ONNX Runtime and PyTorch may raise anything, and the next cell may still run
            skipped[cell] = format_error(e)
        slowest = max(slowest, time.monotonic() - begin)
        log(f"{cell}: {skipped.get(cell, f'measured in {time.monotonic() - begin:.0f} s')}")
        if results:
            yield merge(results, skipped)
    if not results:
        raise RuntimeError(f"nothing was measured: {skipped}")
    yield merge(results, skipped)


def merge(results: Sequence[BenchResult], skipped: dict[str, str]) -> BenchResult:
    """Returns one result with the rows of all cells. What bounds a row depends on the other batch sizes."""
    rows: dict[Key, BenchRow] = {
        Key(row["task"], row["batch"], row["io_mode"], row["backend"]): row
        for result in results
        for row in result["rows"]
    }
    bounds = find_bounds({key: row["p50"] for key, row in rows.items()}, results[0]["setting"]["device"])
    for key, row in rows.items():
        row["bound"] = bounds[key]
    reasons = {name: reason for result in results for name, reason in result["skipped"].items()}
    return {**results[0], "rows": [rows[key] for key in sorted(rows, key=sort_key)], "skipped": reasons | skipped}


def compile_ahead(workload: Workload, config: BenchConfig, batches: Sequence[int], tasks: Sequence[Task]) -> None:
    """Compiles all cells once. A later process finds the kernels in PyTorch's cache on the disk."""
    assert workload.vae is not None
    with torch_settings(config):
        for task, batch in [(task, batch) for batch in batches for task in tasks]:
            torch._dynamo.reset()
            modules = native_modules(workload.vae, task, config.device, workload.config.dtype)
            _, skipped = native_backends(workload, task, batch, "device", modules, config)
            print(f"{task}, batch {batch}: {skipped or 'compiled'}")
