"""The memory of this machine, the memory that was used, and out-of-memory errors."""

from __future__ import annotations

import math
import os
import re
import sys
from typing import TYPE_CHECKING

from vaezoo.errors import VaezooError

if TYPE_CHECKING:
    import torch

# PyTorch and ONNX Runtime have no common exception for it; these are their messages.
OUT_OF_MEMORY = re.compile(r"failed to allocate|can't allocate memory|bad allocation|out of memory", re.IGNORECASE)


def available_memory() -> float:
    """Returns how many bytes can be allocated without swapping.

    Where the system does not say, that is all the memory of the machine.
    """
    try:
        with open("/proc/meminfo") as file:
            kibibytes = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in file)}
        return int(kibibytes["MemAvailable"]) * 1024
    except (OSError, KeyError, IndexError, ValueError):
        return machine_memory()


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
    return VaezooError(
        f"a batch of {batch_size} does not fit in the memory of {device} with {grad_accum_steps} accumulation step(s)",
        f"use --grad-accum-steps {2 * grad_accum_steps}, or lower --batch-size",
    )
