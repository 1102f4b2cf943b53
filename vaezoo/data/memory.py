"""How much memory there is, so that data which cannot fit are refused before they are read."""

from __future__ import annotations

import math
import os


def machine_memory() -> float:
    """Returns how many bytes of memory this machine has; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf
