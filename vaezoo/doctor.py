"""Examine this machine: package versions, devices, the ONNX Runtime providers that load, and fixes for problems.

It must also work if torch or onnxruntime is missing or broken.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from vaezoo.core.environment import cpu_name
from vaezoo.errors import VaezooError, format_error
from vaezoo.runtime.ort_session import (
    INSTALL_CPU,
    REINSTALL_GPU,
    Provider,
    has_runtime,
    installed_packages,
    open_session,
)

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "numpy", "safetensors")


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one component.

    Attributes:
        subject: The component.
        state: Its version or state.
        fix: The command or action that fixes a problem, or None if there is no problem.
    """

    subject: str
    state: str
    fix: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Returns the fields for JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Examines all components. It changes nothing and opens a session of one node on each provider."""
    return [*_versions(), _machine(), *_torch(), *_runtime()]


def _versions() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    own_fix = "run 'pip install .' in vaezoo's source folder"
    for name, fix in (("vaezoo", own_fix), *((name, f"pip install {name}") for name in PACKAGES)):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", fix)


def _machine() -> Finding:
    return Finding("machine", f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    try:
        import torch
    except Exception as e:  # a broken installation raises anything
        yield Finding("torch", f"cannot be imported: {e}".splitlines()[0], "pip install --force-reinstall torch")
        return
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding("torch on CUDA", f"no device ({build})")
        return
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        yield Finding("torch on CUDA", f"{p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")


def _runtime() -> Iterator[Finding]:
    packages = installed_packages()
    if len(packages) > 1:
        both = " and ".join(f"{name} {number}" for name, number in packages.items())
        yield Finding("onnxruntime", f"{both}: they overwrite each other's files", REINSTALL_GPU)
    elif not has_runtime():
        yield Finding("onnxruntime", "not installed", INSTALL_CPU)
        return
    else:
        yield from (Finding(name, number) for name, number in packages.items())
    names: tuple[Provider, ...] = ("cpu", "cuda")
    for name in names:
        yield _provider(name)


def _provider(name: Provider) -> Finding:
    subject = f"onnxruntime on {name}"
    try:
        open_session(one_node(), name)
    except VaezooError as e:
        return Finding(subject, e.message, e.hint)
    except Exception as e:  # a broken installation raises anything
        return Finding(subject, format_error(e), REINSTALL_GPU)
    return Finding(subject, "loads and runs")


def one_node() -> bytes:
    """Returns an ONNX graph of one Relu.

    It is written in protobuf's wire format, so that it does not need the onnx package.
    """

    def field(number: int, data: bytes) -> bytes:
        # A length-delimited field: the tag (number, wire type 2), the length, the data.
        return bytes([number << 3 | 2, len(data)]) + data

    value = field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x01"))))  # float32 of shape [1]
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + value) + field(12, field(1, b"y") + value)
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x12")  # IR 10, opset 18
