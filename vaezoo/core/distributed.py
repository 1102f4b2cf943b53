"""Several processes that train one model: what they share, and how they fail together.

`torchrun` starts the processes, called ranks, and tells each its number in the environment. Everything here also works
with one process, where it costs nothing.
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
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vaezoo import errors
from vaezoo.errors import VaezooError, first_line

TIMEOUT = timedelta(minutes=10)  # a rank may compile or save longer than the others; a dead one is noticed at once
ERROR_KEY = "vaezoo/error"  # where the first rank to fail leaves its error
SEEN_KEY = "vaezoo/arrived"  # how many ranks know of it
ERROR_TIMEOUT = timedelta(seconds=5)

_single_process = False
_broadcasts = itertools.count()
_parent = os.getppid() if hasattr(os, "getppid") else 0


def world_size() -> int:
    """Returns how many ranks train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _single_process else 1


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Lets a rank work for itself for a while, as if there were no others: they need not do the same things then."""
    global _single_process
    _single_process = True
    try:
        yield
    finally:
        _single_process = False


def rank() -> int:
    """Returns this process's number among them, from 0. Rank 0 alone writes and reports."""
    return dist.get_rank() if world_size() > 1 else 0


def is_orphan() -> bool:
    """Tells whether the launcher that started this process is gone: nobody would end or restart it any more."""
    return is_distributed_env() and os.getppid() != _parent


def is_distributed_env() -> bool:
    """Tells whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_primary() -> bool:
    """Tells whether this process is rank 0, or the only one; known before the ranks have joined."""
    return int(os.environ.get("RANK", "0")) == 0 if is_distributed_env() else True


def local_rank() -> int:
    """Returns this process's number on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def init_distributed(device: torch.device) -> Iterator[None]:
    """Joins the ranks that torchrun started, for as long as the context lasts; nothing without torchrun.

    A rank that fails leaves its error for the others. They notice because its connections close, and raise the same.

    Args:
        device: Of this rank; it decides between NCCL and gloo.

    Raises:
        VaezooError: That of the rank that failed first, or if the ranks do not find each other.
    """
    if not is_distributed_env() or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
        # torchrun's store outlives ranks that it restarts, and holds the addresses of those who are gone.
        attempt = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as e:
        raise VaezooError(
            f"the ranks do not find each other: {first_line(e)}",
            "start the same number of them on each machine",
        ) from e
    try:
        dist.barrier()  # who fails at once would close its connections while others still make theirs
        yield
        dist.barrier()  # nobody leaves while another may still fail
    except Exception as e:
        fate = _first_error(e)
        _wait_for_peers()
        raise fate from e
    else:
        dist.destroy_process_group()


def dist_mean(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over the ranks, without a gradient; with one rank the tensor itself."""
    return dist_mean_(values.detach().clone()) if world_size() > 1 else values


def dist_mean_(values: Tensor) -> Tensor:
    """Replaces a tensor by its mean over the ranks, and returns it."""
    dist.all_reduce(values)
    return values.div_(world_size())


def global_batch_mean(values: Tensor) -> Tensor:
    """Returns the mean over the first dimension of the batches of all ranks.

    Losses that are no plain means over examples need it: their ranks must agree on the statistic. Gradients that are
    averaged over the ranks come out as those of the statistic of the whole batch.
    """
    mean = values.mean(0)
    if world_size() == 1:
        return mean
    return mean + (dist_mean(mean) - mean.detach())


def broadcast(choose: Callable[[], str]) -> str:
    """Returns what rank 0 chooses, on each rank."""
    if world_size() == 1:
        return choose()
    key = f"vaezoo/agreed/{next(_broadcasts)}"  # a new one each time: who comes early must not find the last answer
    if rank() == 0:
        _store().set(key, choose())
    barrier()  # which, other than a store, notices if rank 0 is gone
    agreed: str = _store().get(key).decode()
    return agreed


def barrier() -> None:
    """Returns when each rank has come here."""
    if world_size() > 1:
        dist.barrier()


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _first_error(error: Exception) -> Exception:
    """Returns the error that all ranks raise: what another left, or this one, left for the others."""
    # gloo and NCCL raise RuntimeErrors when a peer is gone, as a model with a defect does: the first word counts.
    words = None if isinstance(error, VaezooError) else _read_error()
    if words is None:
        shown = error if isinstance(error, VaezooError) else _as_vaezoo_error(error)
        words = {"kind": type(shown).__name__, "message": shown.message, "hint": shown.hint}
        with contextlib.suppress(RuntimeError):
            _store().compare_set(ERROR_KEY, "", json.dumps(words))
        return error
    kind = getattr(errors, words["kind"], VaezooError)
    made: VaezooError = kind(words["message"], words["hint"])
    return made


def _wait_for_peers() -> None:
    """Waits, not for long, until all ranks know their fate: torchrun kills the others as soon as one has ended."""
    with contextlib.suppress(RuntimeError):
        store, everyone = _store(), dist.get_world_size()
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()  # who waits for this rank fails now
        store.add(SEEN_KEY, 1)
        until = time.monotonic() + ERROR_TIMEOUT.total_seconds()
        while store.add(SEEN_KEY, 0) < everyone and time.monotonic() < until:
            time.sleep(0.02)


def _as_vaezoo_error(error: Exception) -> VaezooError:
    what = f"rank {rank()} failed: {type(error).__name__}: {first_line(error)}"
    return VaezooError(what, "run it in one process, with --debug")


def _read_error() -> dict[str, str] | None:
    """Returns what another rank left when it failed, if one did."""
    try:
        _store().wait([ERROR_KEY], ERROR_TIMEOUT)
        return {str(name): str(value) for name, value in json.loads(_store().get(ERROR_KEY)).items()}
    except (RuntimeError, ValueError):
        return None
