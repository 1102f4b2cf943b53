"""Batches on the device: gathered there, or prepared by threads while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vaezoo.data.base import Batch, Split, TensorSplit

THREAD_PREFIX = "vaezoo-prefetch"


def fits(split: Split, device: torch.device) -> bool:
    """Returns whether a whole split can be moved to a device.

    On CUDA a split may fill half of the free memory, because the model's activations will need the rest. Streamed
    images are never moved.
    """
    if not isinstance(split, TensorSplit):
        return False
    if device.type != "cuda" or _is_on(split, device):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return split.nbytes <= free / 2


def to_device_if_fits(split: Split, device: torch.device) -> Split:
    """Returns a split on the device if it fits there. Otherwise `prefetch` moves its batches."""
    return split.to(device) if isinstance(split, TensorSplit) and fits(split, device) else split


def prefetch(split: Split, indices: Iterable[Tensor], device: torch.device, workers: int) -> Generator[Batch]:
    """Yields the batches at `indices` on the device, in their order and in the form that `split.gather` returns.

    If the split is not on the device, threads prepare the next batches in the meantime. For CUDA they use pinned
    memory, which is copied while the device computes. Exhaust or close the generator to end the threads. They also end
    with the interpreter.

    Args:
        split: A split of a data set.
        indices: The indices of each batch, on the CPU unless the split is on another device. The caller's thread asks
            for them up to `workers` batches early.
        device: The device of the batches.
        workers: The number of threads, each of which prepares one batch at a time. With the caller's batch,
            `workers + 1` batches are in memory. With 0 the caller's thread prepares each batch on demand. Several
            threads decode the images of one batch, so one or two workers keep all cores busy.

    Raises:
        InputError: If files cannot be read, after the batches before theirs.
    """
    if workers < 1 or _is_on(split, device):
        return (_to_device(_prepare(split, index, device), device) for index in indices)
    return _prefetch_in_threads(split, indices, device, workers)


def _prefetch_in_threads(
    split: Split, indices: Iterable[Tensor], device: torch.device, workers: int
) -> Generator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix=THREAD_PREFIX)
    pending: deque[Future[Batch]] = deque()
    try:
        for index in indices:
            ready = pending.popleft().result() if len(pending) == workers else None
            pending.append(pool.submit(_prepare, split, index, device))
            if ready is not None:
                yield _to_device(ready, device)
        while pending:
            yield _to_device(pending.popleft().result(), device)
    finally:
        # Tasks that have not started are dropped. Those that have are waited for: a decoding thread cannot be stopped.
        pool.shutdown(cancel_futures=True)


def _prepare(split: Split, index: Tensor, device: torch.device) -> Batch:
    """Gathers a batch. For CUDA it is in pinned memory, the only memory that is copied asynchronously."""
    x, y = split.gather(index)
    if device.type != "cuda" or x.device.type != "cpu":
        return Batch(x, y)
    with torch.cuda.device(device):  # a new thread uses the first device and would create a context there, too
        return Batch(x.pin_memory(), None if y is None else y.pin_memory())


def _to_device(batch: Batch, device: torch.device) -> Batch:
    """Moves a batch to the device. Only copies from pinned memory to CUDA may be asynchronous."""
    non_blocking = device.type == "cuda"
    x, y = batch
    return Batch(
        x.to(device, non_blocking=non_blocking), None if y is None else y.to(device, non_blocking=non_blocking)
    )


def _is_on(split: Split, device: torch.device) -> bool:
    """Returns whether a split is on a device. "cuda" means the current CUDA device, as for a new tensor."""
    return isinstance(split, TensorSplit) and split.x.device == torch.empty(0, device=device).device
