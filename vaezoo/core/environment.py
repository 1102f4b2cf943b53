"""The machine and the package versions that a measurement was made with."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NotRequired, TypedDict

GPU_FIELDS = ("driver_version", "clocks.max.sm", "clocks.sm", "power.limit")


class Environment(TypedDict):
    """A machine and package versions. `gpu` is present if a GPU was measured."""

    cpu: str
    cores: int | None
    system: str
    python: str
    versions: dict[str, str]
    gpu: NotRequired[dict[str, str]]


def cpu_name() -> str:
    """Returns the processor's name."""
    with contextlib.suppress(OSError):  # only Linux has /proc
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(packages: tuple[str, ...]) -> Environment:
    """Returns the machine and the versions of some packages. Packages that are not installed are omitted."""
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
    """Returns name and CUDA version of PyTorch's first GPU, and driver, clocks and power limit if `nvidia-smi` runs."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    gpu = {"name": properties.name, "cuda": str(torch.version.cuda)}
    query = [f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader", f"--id=GPU-{properties.uuid}"]
    try:
        process = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return gpu
    return gpu | dict(zip(GPU_FIELDS, process.stdout.strip().split(", "), strict=False))
