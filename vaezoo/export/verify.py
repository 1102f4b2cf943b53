"""The checks of an export, repeated from its files alone: no checkpoint, no torch.

They run in a child process with limits on memory and time, because the files may be anybody's: a graph that crashes
or exhausts ONNX Runtime ends that process, not this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaezoo.errors import InputError, ParityError, VaezooError
from vaezoo.export.config import ExportConfig
from vaezoo.export.golden import read_cases
from vaezoo.export.graph_checks import parse
from vaezoo.export.metadata import check_hashes, read_metadata
from vaezoo.export.tolerance import Parity, check_graphs, runtime_name
from vaezoo.runtime.manifest import GRAPH_NAMES, check_metadata, read_graph, read_manifest
from vaezoo.runtime.ort_session import Provider

SECONDS = 300
MEMORY = 16 << 30  # bytes of address space, on top of what the files need; a session of a small model takes 3 GB of it
# On a machine of many cores the address space that threads reserve would reach the limit by itself.
FEW_ARENAS = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
ERRORS = {error.__name__: error for error in (VaezooError, InputError, ParityError)}
CHILD = "import sys; from vaezoo.export.verify import child; child(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """An export that passed.

    Attributes:
        path: The folder.
        runtime: What ran the graphs.
        provider: On which provider.
        parity: The largest differences from the golden outputs.
    """

    path: Path
    runtime: str
    provider: Provider
    parity: list[Parity]


def verify_onnx(folder: str | os.PathLike[str], provider: Provider = "cpu", *, seconds: int = SECONDS) -> VerifyResult:
    """Checks an export folder: hashes, pair, structure, and the golden data at several batch sizes.

    Args:
        folder: What `vaezoo export` wrote.
        provider: What is to run the graphs.
        seconds: How long the checks may take.

    Raises:
        InputError: If a file is missing, damaged, of another export or of an unknown schema, or exhausts the limits.
        ParityError: If a graph is not what its manifest says, or computes something else.
        VaezooError: If the provider cannot run here.
    """
    folder = Path(folder)
    read_manifest(folder)
    # -P: the current folder, perhaps the export itself, is no place to import modules from.
    command = [sys.executable, "-P", "-c", CHILD, str(folder), provider, str(seconds)]
    environment = {**os.environ, **FEW_ARENAS}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{folder} was not checked within {seconds} seconds", "give --seconds more, or distrust the files"
        ) from None
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise InputError(
            f"{folder}: the process that opened the graphs ended with {how}: {reason}", "distrust the files"
        ) from None
    if "error" in told:
        raise ERRORS[told["error"]](told["message"], told["hint"])
    return VerifyResult(folder, told["runtime"], provider, [Parity(**row) for row in told["rows"]])


def child(folder: str, provider: Provider, seconds: str) -> None:
    """Checks a folder under limits and writes rows or an error as JSON on stdout."""
    try:
        told: dict[str, object] = {
            "runtime": runtime_name(),
            "rows": [row.as_dict() for row in check_folder(Path(folder), provider, int(seconds))],
        }
    except VaezooError as e:
        told = {"error": type(e).__name__, "message": e.message, "hint": e.hint}
    except MemoryError:
        told = {
            "error": "InputError",
            "message": f"{folder} needs more memory than a check may take",
            "hint": "distrust the files",
        }
    print(json.dumps(told))


def check_folder(folder: Path, provider: Provider, seconds: int) -> list[Parity]:
    """Runs all checks in this process, after it limited itself; see `verify_onnx` for the errors."""
    manifest = read_manifest(folder)
    files = {part: read_graph(folder, manifest, part) for part in GRAPH_NAMES}
    limit_process(provider, seconds, sum(len(data) for data in files.values()))
    metadata = {part: read_metadata(parse(part, files[part])) for part in GRAPH_NAMES}
    check_metadata(folder, manifest, metadata)
    check_hashes(files, metadata)
    form = read_format(folder, manifest)
    cases = {part: read_cases(folder, manifest, part) for part in GRAPH_NAMES}
    return check_graphs(files, manifest["graphs"], cases, manifest["mode"], form, provider)


def limit_process(provider: Provider, seconds: int, size: int) -> None:
    """Limits this process's time, and its address space unless it uses CUDA, which maps all of a device's memory."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limits = {resource.RLIMIT_CPU: seconds * (os.cpu_count() or 1), resource.RLIMIT_CORE: 0}
    if provider == "cpu":
        limits[resource.RLIMIT_AS] = MEMORY + 8 * size
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has more reserved than any limit of address space
            resource.setrlimit(kind, (allowed, hard))


def read_format(folder: Path, manifest: Mapping[str, Any]) -> ExportConfig:
    """Reads the format that the manifest states."""
    try:
        return ExportConfig(**manifest["format"])
    except (TypeError, VaezooError) as e:
        raise InputError(f"{folder / 'manifest.json'} is damaged: {e}", "export again") from e
