"""Devices by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from vaezoo.core import distributed
from vaezoo.errors import VaezooError


def resolve_device(name: str) -> torch.device:
    """Returns the device of that name, or the best device for "auto".

    With several processes, "cuda" is the GPU of this process.

    Raises:
        VaezooError: If this machine has no such device.
    """
    present = [d for d, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    present.append("cpu")
    if name == "auto":
        name = present[0]
    if name == "cuda" and distributed.is_distributed_env():
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        if device.type in present and (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    except (RuntimeError, TypeError):  # TypeError: it is not a string
        pass
    hint = f"use auto, {', '.join(present)}"
    if name in ("gpu", "cuda"):
        hint += "" if "cuda" in present else "; for cuda, 'vaezoo doctor' says what is missing"
    raise VaezooError(f"device '{name}' was not found on this machine", hint)


@contextlib.contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Moves a module to a device for the block, then back to where it was."""
    before = next((p.device for p in module.parameters()), device)
    try:
        module.to(device)
        yield
    finally:
        module.to(before)
