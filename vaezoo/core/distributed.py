"""Several processes that train one model: what they share, and how they fail together.

`torchrun` starts the processes and passes each its number, the rank, in the environment. With one process all functions
here work too and cost nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vaezoo import errors
from vaezoo.errors import VaezooError, first_line

TIMEOUT = timedelta(minutes=10)  # one process may compile or save longer than others; a dead one is noticed at once
ERROR_KEY = "vaezoo/error"  # the store's key for the error of the process that failed first
SEEN_KEY = "vaezoo/arrived"  # the store's key for the number of processes that know the error
ERROR_TIMEOUT = timedelta(seconds=5)

_single_process = False
_broadcasts = itertools.count()
_parent = os.getppid()


def is_distributed_env() -> bool:
    """Tells whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_primary() -> bool:
    """Tells whether this process is rank 0 or the only one. It works before `init_distributed`, too."""
    return int(os.environ.get("RANK", "0")) == 0 if is_distributed_env() else True


def is_orphan() -> bool:
    """Tells whether the launcher of this process is gone, so that nothing would end or restart it."""
    return is_distributed_env() and os.getppid() != _parent


def world_size() -> int:
    """Returns how many processes train together, 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _single_process else 1


def rank() -> int:
    """Returns the number of this process, from 0. Only rank 0 writes and reports."""
    return dist.get_rank() if world_size() > 1 else 0


def local_rank() -> int:
    """Returns the number of this process on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Disables collectives inside the block: this process works as if it were the only one."""
    global _single_process
    _single_process = True
    try:
        yield
    finally:
        _single_process = False


@contextlib.contextmanager
def init_distributed(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, for the duration of the block. Without torchrun it does nothing.

    A process that fails stores its error. The others notice that its connections close, and raise the same error.

    Args:
        device: The device of this process. It decides between NCCL and gloo.

    Raises:
        VaezooError: The error of the process that failed first, or if the processes cannot connect.
    """
    if not is_distributed_env() or dist.is_initialized():
        yield
        return
    from torch.distributed.distributed_c10d import PrefixStore  # not every build of PyTorch has it
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps its store when it restarts processes, with the addresses of the previous ones.
        attempt = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as e:
        raise VaezooError(
            f"the processes cannot connect to each other: {first_line(e)}",
            "start the same number of processes on each machine",
        ) from e
    try:
        dist.barrier()  # a process that failed now would close its connections while others still open theirs
        yield
        dist.barrier()  # no process leaves while another may still fail
    except Exception as e:
        first_error = _first_error(e)
        _wait_for_peers()
        raise first_error from e
    else:
        dist.destroy_process_group()


def barrier() -> None:
    """Returns when every process has called it."""
    if world_size() > 1:
        dist.barrier()


def broadcast(choose: Callable[[], str]) -> str:
    """Returns what `choose` returns in rank 0, in every process."""
    if world_size() == 1:
        return choose()
    key = f"vaezoo/broadcast/{next(_broadcasts)}"  # a new key each time: an old one holds the previous answer
    if rank() == 0:
        _store().set(key, choose())
    barrier()  # unlike a wait for the key, it notices if rank 0 is gone
    value: str = _store().get(key).decode()
    return value


def dist_mean(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over the processes, without a gradient. With one process it is the tensor itself."""
    return dist_mean_(values.detach().clone()) if world_size() > 1 else values


def dist_mean_(values: Tensor) -> Tensor:
    """Replaces a tensor by its mean over the processes, and returns it."""
    dist.all_reduce(values)
    return values.div_(world_size())


def global_batch_mean(values: Tensor) -> Tensor:
    """Returns the mean over the first dimension of the batches of all processes.

    A loss that is not a plain mean over examples needs it, because every process must use the same statistic.
    Gradients averaged over the processes equal those of the statistic of the whole batch.
    """
    mean = values.mean(0)
    if world_size() == 1:
        return mean
    # The value is the global mean, the gradient that of the local mean.
    return mean + (dist_mean(mean) - mean.detach())


def global_batch(values: Tensor) -> Tensor:
    """Returns the rows of the batches of all processes, `(B * processes, ...)`, in the order of their ranks.

    A loss that compares the rows of a batch with each other needs it. Every process then computes the same value.
    Gradients averaged over the processes equal those of the whole batch.
    """
    if world_size() == 1:
        return values
    rows = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(rows, values.detach().contiguous())
    # Only this process has a gradient of its rows. The average divides it by the number of processes.
    rows[rank()] = values.detach() + world_size() * (values - values.detach())
    return torch.cat(rows)


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _first_error(error: Exception) -> Exception:
    """Returns the error that all processes raise: the stored error of another one, or this one, which it stores."""
    # When a peer is gone, gloo and NCCL raise RuntimeErrors. A defective model does too: the stored error decides.
    record = None if isinstance(error, VaezooError) else _read_error()
    if record is None:
        ours = error if isinstance(error, VaezooError) else _as_vaezoo_error(error)
        record = {"kind": type(ours).__name__, "message": ours.message, "hint": ours.hint}
        with contextlib.suppress(RuntimeError):
            _store().compare_set(ERROR_KEY, "", json.dumps(record))
        return error
    kind = getattr(errors, record["kind"], VaezooError)
    result: VaezooError = kind(record["message"], record["hint"])
    return result


def _wait_for_peers() -> None:
    """Waits a few seconds until every process knows the error: torchrun kills the others when the first one ends."""
    with contextlib.suppress(RuntimeError):
        store, count = _store(), dist.get_world_size()
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()  # processes that wait for this one fail now
        store.add(SEEN_KEY, 1)
        deadline = time.monotonic() + ERROR_TIMEOUT.total_seconds()
        while store.add(SEEN_KEY, 0) < count and time.monotonic() < deadline:
            time.sleep(0.02)


def _as_vaezoo_error(error: Exception) -> VaezooError:
    message = f"process {rank()} failed: {type(error).__name__}: {first_line(error)}"
    return VaezooError(message, "run it in one process, with --debug")


def _read_error() -> dict[str, str] | None:
    """Returns the error that another process stored when it failed, if there is one."""
    try:
        _store().wait([ERROR_KEY], ERROR_TIMEOUT)
        return {str(name): str(value) for name, value in json.loads(_store().get(ERROR_KEY)).items()}
    except (RuntimeError, ValueError):
        return None
