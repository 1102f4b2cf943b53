"""Batches on the device: gathered there, or prepared ahead by threads while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vaezoo.data.base import Batch, Split, TensorSplit


def fits(part: Split, device: torch.device) -> bool:
    """Tells whether a part can be moved to a device as a whole.

    On CUDA it may fill half of the memory that is free now: the model's activations are to come. Streamed images are
    moved to none.
    """
    if not isinstance(part, TensorSplit):
        return False
    if device.type != "cuda" or _lies_on(part, device):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return part.nbytes <= free / 2


def to_device_if_fits(part: Split, device: torch.device) -> Split:
    """Returns a part on the device if it fits there, else as it is, for `prefetch` to bring over batch by batch."""
    return part.to(device) if isinstance(part, TensorSplit) and fits(part, device) else part


def prefetch(part: Split, indices: Iterable[Tensor], device: torch.device, workers: int) -> Generator[Batch]:
    """Yields the batches at `indices`, in their order, as `part.raw` gives them, on the device.

    Where the part does not lie there, threads prepare the next ones meanwhile, for CUDA in pinned memory, from which
    they are copied while the device computes. Close the generator, or use it up, to end the threads; they end with
    the interpreter at the latest.

    Args:
        part: A part of a data set.
        indices: The numbers of each batch's examples, on the CPU unless the part lies elsewhere. They are asked for up
            to `workers` batches early, in the caller's thread.
        device: Where the batches go.
        workers: How many batches are prepared at once, each by a thread; with the one in the caller's hands one more
            is alive. 0 to prepare each in the caller's thread when it is asked for. Images are decoded by
            several threads within each batch, so one or two workers keep all cores busy.

    Raises:
        InputError: From the batch whose files cannot be read, after all before it.
    """
    if workers < 1 or _lies_on(part, device):
        return (_bring(_prepare(part, index, device), device) for index in indices)
    return _in_threads(part, indices, device, workers)


def _in_threads(part: Split, indices: Iterable[Tensor], device: torch.device, workers: int) -> Generator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vaezoo-ahead")
    coming: deque[Future[Batch]] = deque()
    try:
        for index in indices:
            ready = coming.popleft().result() if len(coming) == workers else None
            coming.append(pool.submit(_prepare, part, index, device))
            if ready is not None:
                yield _bring(ready, device)
        while coming:
            yield _bring(coming.popleft().result(), device)
    finally:
        # What has not begun is dropped, and what has begun is waited for: a thread that decodes cannot be stopped.
        pool.shutdown(cancel_futures=True)


def _prepare(part: Split, index: Tensor, device: torch.device) -> Batch:
    """Gathers a batch, for CUDA in pinned memory: copies from there alone go on while Python does."""
    x, y = part.gather(index)
    if device.type != "cuda" or x.device.type != "cpu":
        return Batch(x, y)
    with torch.cuda.device(device):  # a thread starts on the first device, and would open that one too
        return Batch(x.pin_memory(), None if y is None else y.pin_memory())


def _bring(batch: Batch, device: torch.device) -> Batch:
    """Moves a batch to the device. Only from pinned memory to CUDA is it safe not to wait."""
    hurry = device.type == "cuda"
    x, y = batch
    return Batch(x.to(device, non_blocking=hurry), None if y is None else y.to(device, non_blocking=hurry))


def _lies_on(part: Split, device: torch.device) -> bool:
    """Tells whether a part lies on a device; "cuda" means the current one, as for a new tensor."""
    return isinstance(part, TensorSplit) and part.x.device == torch.empty(0, device=device).device
