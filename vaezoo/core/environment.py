"""What a measurement was made on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GPU_FIELDS = ("driver_version", "clocks.max.sm", "clocks.sm", "power.limit")


def cpu_name() -> str:
    """Returns the processor's name as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(packages: tuple[str, ...]) -> dict[str, object]:
    """Describes the machine and the versions of some packages; those not installed are left out."""
    versions = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def gpu_environment() -> dict[str, str]:
    """Describes the GPU that PyTorch uses, with what its driver tells where `nvidia-smi` is there."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    described = {"name": properties.name, "cuda": str(torch.version.cuda)}
    query = [f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader", f"--id=GPU-{properties.uuid}"]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return described
    return described | dict(zip(GPU_FIELDS, done.stdout.strip().split(", "), strict=False))
