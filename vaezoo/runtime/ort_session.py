"""ONNX Runtime's sessions: the provider that was asked for is the one that runs, or an error says what it lacks.

ONNX Runtime itself falls back to the CPU with a line in its log, and lists providers that it was compiled with,
whether or not they load.
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
from vaezoo.errors import InputError, VaezooError

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = Literal["cpu", "cuda"]
EXECUTION: Mapping[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PACKAGES = ("onnxruntime", "onnxruntime-gpu")

# CUDA in full precision, and without a search for convolutions that starts anew with each batch size.
SETTINGS: Mapping[Provider, Mapping[str, str]] = {
    "cpu": {},
    "cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}

# Entries of a session's configuration. The threads of a session spin for a while after a run, in the way of the next
# session's: encoder, then decoder at batch 64 took 7.8 ms on two cores, and 3.7 ms where they stop.
STOP_SPINNING = {"session.force_spinning_stop": "1"}
RECORD_PLACEMENT = {"session.record_ep_graph_assignment_info": "1"}

INSTALL_CPU = "pip install onnxruntime"
INSTALL_GPU = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
REPLACE = f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL_GPU}"
DRIVER = "libcuda.so.1"


def installed_packages() -> dict[str, str]:
    """Returns the versions of the ONNX Runtime packages that are installed. Two are one too many."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def has_runtime() -> bool:
    """Says whether ONNX Runtime can be imported."""
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
    settings: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """Opens a graph for inference.

    Args:
        data: Bytes of an .onnx file, weights included.
        provider: What is to run it.
        threads: Threads for one operator; ONNX Runtime's own choice unless given.
        settings: The provider's options where they differ from SETTINGS.
        entries: Entries of the session's configuration.

    Raises:
        InputError: If ONNX Runtime cannot read the graph.
        VaezooError: If the provider cannot run here; the message names what is missing.
    """
    if provider not in EXECUTION:
        raise VaezooError(f"no provider named '{provider}'", f"use {' or '.join(EXECUTION)}")
    require_runtime()
    if provider == "cuda":
        require_cuda()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if provider == "cuda":
        ort.set_default_logger_severity(4)  # a library that does not load is logged there, not in the session's log
    try:
        providers = [(EXECUTION[provider], {**SETTINGS[provider], **(settings or {})})]
        # The fallback of its Python part prints on stdout and goes on with the CPU.
        session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as e:  # ONNX Runtime's errors have no common class
        if provider == "cuda":
            raise VaezooError(
                f"ONNX Runtime cannot run the graph on CUDA: {first_line(e)}", "see 'vaezoo doctor'"
            ) from e
        raise InputError(f"ONNX Runtime cannot load the graph: {first_line(e)}", "export it again") from e
    finally:
        if provider == "cuda":
            ort.set_default_logger_severity(2)  # its default
    if session.get_providers()[0] != EXECUTION[provider]:
        raise VaezooError(
            f"{provider} was asked for, but ONNX Runtime runs on {session.get_providers()[0]}", "see 'vaezoo doctor'"
        )
    return session


def require_cuda() -> None:
    """Loads the CUDA libraries that came with Python packages.

    Raises:
        VaezooError: If the CUDA provider is not compiled in or a library is missing, which is named.
    """
    import onnxruntime as ort

    if EXECUTION["cuda"] not in ort.get_available_providers():
        raise VaezooError("the installed onnxruntime has no CUDA provider", REPLACE)
    missing = missing_libraries()
    if missing == [DRIVER]:
        raise VaezooError(
            f"there is no NVIDIA driver here ({DRIVER}), so that CUDA cannot run", "take the CPU, or install the driver"
        )
    if missing:
        raise VaezooError(f"ONNX Runtime's CUDA provider cannot run: it misses {', '.join(missing)}", INSTALL_GPU)


def missing_libraries() -> list[str]:
    """Returns the shared libraries that ONNX Runtime's CUDA provider needs and that cannot be loaded, by name."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        ort.preload_dlls()
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    return [name for name in needed_libraries(provider) if not loads(name)]


def needed_libraries(library: Path) -> list[str]:
    """Returns the libraries that the system's search path lacks for `library`; empty where `ldd` is missing."""
    try:
        listed = subprocess.run(["ldd", library], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"(\S+) => not found", listed)


def loads(name: str) -> bool:
    """Says whether a shared library is loaded already or can be."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def placement(session: ort.InferenceSession) -> dict[str, int]:
    """Returns how many nodes each provider runs, for a session that was opened with `RECORD_PLACEMENT`."""
    counts: dict[str, int] = {}
    for group in session.get_provider_graph_assignment_info():
        counts[group.ep_name] = counts.get(group.ep_name, 0) + len(group.get_nodes())
    return counts


def first_line(error: BaseException) -> str:
    """Returns an error's text up to its first line break, without the codes of ONNX Runtime."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", errors.first_line(error))
