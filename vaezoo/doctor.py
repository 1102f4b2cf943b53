"""What this machine has and lacks: versions, devices, the providers that really load, and what mends the rest.

It works where torch or onnxruntime is missing or broken: that is when it is needed.
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
from vaezoo.runtime.ort_session import INSTALL_CPU, REPLACE, Provider, has_runtime, installed_packages, open_session

PACKAGES = ("vaezoo", "torch", "torchvision", "onnx", "onnxscript", "numpy", "safetensors")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        state: What was found.
        mend: The command or action that mends it; None if all is well.
    """

    subject: str
    state: str
    mend: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Returns the fields for JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Looks at everything. Nothing is changed; a session of one node is opened on each provider."""
    return [*_versions(), _machine(), *_torch(), *_runtime()]


def _versions() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", f"pip install {name}")


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
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding("torch on CUDA", f"no device ({built})")
        return
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        yield Finding("torch on CUDA", f"{p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")


def _runtime() -> Iterator[Finding]:
    packages = installed_packages()
    if len(packages) > 1:
        both = " and ".join(f"{name} {number}" for name, number in packages.items())
        yield Finding("onnxruntime", f"{both}: they overwrite each other's files", REPLACE)
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
        return Finding(subject, format_error(e), REPLACE)
    return Finding(subject, "loads and runs")


def one_node() -> bytes:
    """Returns a graph of one Relu, spelt out so that it needs no onnx package."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    value = field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x01"))))  # float32 of shape [1]
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + value) + field(12, field(1, b"y") + value)
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x12")  # IR 10, opset 18
