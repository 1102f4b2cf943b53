"""The memory of this machine, a limit to it, the memory that was used, and out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vaezoo.errors import VaezooError

if TYPE_CHECKING:
    import torch

# PyTorch and ONNX Runtime have no common exception for it; these are their messages. A size above 64 bits overflows.
OUT_OF_MEMORY = re.compile(
    r"failed to allocate|can't allocate memory|bad allocation|out of memory|(multiplication|size calculation) overflow",
    re.IGNORECASE,
)

# Options of glibc's mallopt, from malloc.h. It refuses a larger mmap threshold than this one.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAX_MMAP_THRESHOLD = 32 << 20
KEPT_BYTES = 512 << 20


def available_memory() -> float:
    """Returns how many bytes can be allocated without swapping.

    Where the system does not say, that is all the memory of the machine.
    """
    try:
        return read_sizes("/proc/meminfo")["MemAvailable"]
    except (OSError, KeyError, ValueError):
        return machine_memory()


def read_sizes(path: str) -> dict[str, int]:
    """Returns the sizes in a file of `/proc`, in bytes."""
    with open(path) as file:
        rows = [line.split() for line in file]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}


def keep_freed_memory() -> None:
    """Lets glibc keep the memory that this process frees, up to 512 MiB, instead of handing it back to the kernel.

    A step allocates and frees the same tensors each time. By default glibc gives large ones back at once. The kernel
    then clears thousands of pages in the next step: 2 to 18 ms of a step on two cores. With other C libraries this does
    nothing. It lasts as long as the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


@contextlib.contextmanager
def limited_to_available() -> Iterator[None]:
    """Lets allocations beyond the available memory fail inside the block, instead of the whole process.

    Linux promises more memory than it has. When a process uses what it was promised, it is killed without a word.
    Elsewhere this does nothing.
    """
    limit = memory_limit()
    if limit is None:
        yield
        return
    import resource

    before, maximum = resource.getrlimit(resource.RLIMIT_DATA)
    if before != resource.RLIM_INFINITY:
        limit = min(limit, before)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, maximum))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, maximum))


def memory_limit() -> int | None:
    """Returns how many bytes of data this process can have, swap included, or None where Linux's /proc is missing."""
    try:
        used, swap = read_sizes("/proc/self/status")["VmData"], read_sizes("/proc/meminfo")["SwapFree"]
    except (OSError, KeyError, ValueError):
        return None
    return int(used + available_memory() + swap)


def machine_memory() -> float:
    """Returns how many bytes of memory this machine has, or infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory in bytes: of tensors on a CUDA device, of this process on the CPU. 0 if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # macOS counts in bytes, Linux in kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error of Python, PyTorch or ONNX Runtime means that memory ran out."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))
    )


def out_of_memory(batch_size: int, grad_accum_steps: int, device: torch.device) -> VaezooError:
    """Returns the error for a batch that is too large for the memory of a device."""
    steps = f"{grad_accum_steps} accumulation step{'s' * (grad_accum_steps > 1)}"
    more = f"--grad-accum-steps {2 * grad_accum_steps}, " if batch_size % (2 * grad_accum_steps) == 0 else ""
    return VaezooError(
        f"a batch of {batch_size} does not fit in the memory of {device} with {steps}",
        f"use {more}a lower --batch-size, or lower model options (-o), such as a number of samples",
    )
