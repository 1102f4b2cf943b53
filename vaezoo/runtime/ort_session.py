"""Open ONNX Runtime sessions on the provider that was requested, or raise an error that names what is missing.

ONNX Runtime itself falls back to the CPU and only logs it. Its list of providers contains all that were compiled in,
whether or not their libraries load.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vaezoo import errors
from vaezoo.errors import InputError, VaezooError, safe_repr

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = Literal["cpu", "cuda"]
EXECUTION: Mapping[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PACKAGES = ("onnxruntime", "onnxruntime-gpu")

# CUDA in full precision. An exhaustive search for convolution algorithms would run again for each new batch size.
PROVIDER_OPTIONS: Mapping[Provider, Mapping[str, str]] = {
    "cpu": {},
    "cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}

# Entries of a session's configuration. The threads of a session spin for a while after a run and slow the next session
# down. Encoder, then decoder at batch 64 took 7.8 ms on two cores, and 3.7 ms with this entry.
STOP_SPINNING = {"session.force_spinning_stop": "1"}
RECORD_PLACEMENT = {"session.record_ep_graph_assignment_info": "1"}

INSTALL_CPU = "pip install onnxruntime"
INSTALL_GPU = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
REINSTALL_GPU = f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL_GPU}"
DRIVER = "libcuda.so.1"


def installed_packages() -> dict[str, str]:
    """Returns the versions of the installed ONNX Runtime packages. With two, each overwrites files of the other."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def has_runtime() -> bool:
    """Tells whether ONNX Runtime can be imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def require_runtime() -> None:
    """Raises VaezooError unless ONNX Runtime is installed."""
    if not has_runtime():
        raise VaezooError("ONNX Runtime is not installed", INSTALL_CPU)


def open_session(
    data: bytes,
    provider: Provider = "cpu",
    *,
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """Opens a graph for inference.

    Args:
        data: Bytes of an .onnx file, weights included.
        provider: The provider that runs the graph.
        threads: Threads for one operator. By default ONNX Runtime chooses.
        provider_options: Options that override PROVIDER_OPTIONS.
        entries: Entries of the session's configuration.

    Raises:
        InputError: If ONNX Runtime cannot read the graph.
        VaezooError: If the provider cannot run here. The message names what is missing.
    """
    if provider not in [*EXECUTION]:  # a list, because what a program passes may not be hashable
        raise VaezooError(f"unknown provider '{safe_repr(provider)}'", f"use {' or '.join(EXECUTION)}")
    require_runtime()
    if provider == "cuda":
        require_cuda()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors are raised
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if provider == "cuda":
        ort.set_default_logger_severity(4)  # a library that fails to load is logged here, not in the session's log
    try:
        providers = [(EXECUTION[provider], {**PROVIDER_OPTIONS[provider], **(provider_options or {})})]
        # The fallback of ONNX Runtime's Python code would print on stdout and continue on the CPU.
        session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as e:  # ONNX Runtime's errors have no common base class
        if provider == "cuda":
            raise VaezooError(
                f"ONNX Runtime cannot run the graph on CUDA: {first_line(e)}", "see 'vaezoo doctor'"
            ) from e
        raise InputError(f"ONNX Runtime cannot load the graph: {first_line(e)}", "export the run again") from e
    finally:
        if provider == "cuda":
            ort.set_default_logger_severity(2)  # the default, warnings
    actual = session.get_providers()[0]
    if actual != EXECUTION[provider]:
        raise VaezooError(f"{provider} was requested, but ONNX Runtime runs on {actual}", INSTALL_GPU)
    return session


def require_cuda() -> None:
    """Loads the CUDA libraries that Python packages brought.

    Raises:
        VaezooError: If the CUDA provider is not compiled in, or a library is missing. The message names it.
    """
    import onnxruntime as ort

    if EXECUTION["cuda"] not in ort.get_available_providers():
        raise VaezooError("the installed onnxruntime has no CUDA provider", REINSTALL_GPU)
    missing = missing_libraries()
    if missing == [DRIVER]:
        raise VaezooError(
            f"CUDA cannot run: the NVIDIA driver ({DRIVER}) is missing", "install the driver, or use the CPU"
        )
    if missing:
        raise VaezooError(f"ONNX Runtime's CUDA provider cannot run: missing {', '.join(missing)}", INSTALL_GPU)


def missing_libraries() -> list[str]:
    """Returns the names of the shared libraries that ONNX Runtime's CUDA provider needs and that do not load."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
        ort.preload_dlls()
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    return [name for name in unresolved_libraries(provider) if not can_load(name)]


def unresolved_libraries(library: Path) -> list[str]:
    """Returns the libraries that `library` needs and that are not on the system's search path.

    The result is empty on systems without `ldd`, such as Windows and macOS.
    """
    try:
        output = subprocess.run(["ldd", library], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"(\S+) => not found", output)


def can_load(name: str) -> bool:
    """Tells whether a shared library is loaded or can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def placement(session: ort.InferenceSession) -> dict[str, int]:
    """Returns the number of nodes that each provider runs. The session needs the entry `RECORD_PLACEMENT`."""
    counts: dict[str, int] = {}
    for group in session.get_provider_graph_assignment_info():
        counts[group.ep_name] = counts.get(group.ep_name, 0) + len(group.get_nodes())
    return counts


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, without ONNX Runtime's prefix and code."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", errors.first_line(error))
