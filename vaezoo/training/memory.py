"""How much memory a training takes, and the error where there is too little."""

from __future__ import annotations

import re
import sys

import torch

from vaezoo.errors import VaezooError

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


def out_of_memory(batch_size: int, grad_accum: int, device: torch.device) -> VaezooError:
    """Returns the error for a batch that is too large."""
    return VaezooError(
        f"a batch of {batch_size} in {grad_accum} part(s) does not fit in the memory of {device}",
        f"divide it with --grad-accum {2 * grad_accum}, or lower --batch-size",
    )
