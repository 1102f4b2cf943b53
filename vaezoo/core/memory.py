"""How much memory there is and was used, and errors that mean there was too little."""

from __future__ import annotations

import math
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

from vaezoo.errors import VaezooError


def available_memory() -> float:
    """Returns how many bytes can still be taken without swapping; all there are where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            kibibytes = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in file)}
        return int(kibibytes["MemAvailable"]) * 1024
    except (OSError, KeyError, IndexError, ValueError):
        return machine_memory()


def machine_memory() -> float:
    """Returns how many bytes of memory this machine has; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


NO_MEMORY = re.compile(r"failed to allocate|can't allocate memory|bad allocation|out of memory", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether there was no memory left; PyTorch and ONNX Runtime have no common error for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))
    )


def peak_memory(device: torch.device) -> int:
    """Returns the most bytes that tensors took on a CUDA device, or this process of the machine's; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def out_of_memory(batch_size: int, grad_accum_steps: int, device: torch.device) -> VaezooError:
    """Returns the error for a batch that is too large."""
    return VaezooError(
        f"a batch of {batch_size} in {grad_accum_steps} part(s) does not fit in the memory of {device}",
        f"divide it with --grad-accum-steps {2 * grad_accum_steps}, or lower --batch-size",
    )
