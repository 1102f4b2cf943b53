"""How much memory there is, so that data which cannot fit are refused before they are read."""

from __future__ import annotations

import math
import os


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
