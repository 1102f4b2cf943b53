"""Devices by name."""

from __future__ import annotations

import torch

from vaezoo.core import distributed
from vaezoo.errors import VaezooError


def resolve_device(name: str) -> torch.device:
    """Returns the device of that name, for "auto" the best there is.

    Raises:
        VaezooError: If there is no such device here.
    """
    there = [d for d, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    there.append("cpu")
    if name == "auto":
        name = there[0]
    if name == "cuda" and distributed.is_distributed_env():
        name = f"cuda:{distributed.local_rank()}"  # one GPU for each rank
    try:
        device = torch.device(name)
        if device.type in there and (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    except RuntimeError:
        pass
    raise VaezooError(f"there is no device '{name}' here", f"use auto, {', '.join(there)}")
