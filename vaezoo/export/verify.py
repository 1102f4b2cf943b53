"""Repeat the checks of an export from its files only, without the checkpoint and without torch.

The files may be malicious, so the checks run in a child process with limits on memory and time. A graph that crashes
ONNX Runtime or exhausts the memory ends only that process.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import cast

from vaezoo.core.counts import whole_number
from vaezoo.errors import InputError, ParityError, VaezooError, safe_repr
from vaezoo.export.cases import batches_of
from vaezoo.export.config import DType, ExportConfig
from vaezoo.export.golden import read_cases
from vaezoo.export.graph_checks import parse
from vaezoo.export.metadata import check_hashes, read_metadata
from vaezoo.export.tolerance import Parity, check_graphs, runtime_name
from vaezoo.runtime.export_files import (
    check_metadata,
    folder_path,
    read_any,
    read_file,
    read_graph,
    read_manifest,
)
from vaezoo.runtime.manifest import EXPORT_AGAIN, MANIFEST, GraphName, Manifest
from vaezoo.runtime.ort_session import Provider

MAX_SECONDS = 300
MAX_MEMORY = 16 << 30  # bytes of address space besides the files; a session of a small model takes 3 GB of it
# On machines with many cores, the arenas and stacks of the threads would reserve all of MAX_MEMORY.
FEW_ARENAS = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
ERRORS = {error.__name__: error for error in (VaezooError, InputError, ParityError)}
CHILD = "import sys; from vaezoo.export.verify import child; child(*sys.argv[1:])"
DISTRUST = "do not use these files unless you trust their source"


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """An export that passed all checks.

    Attributes:
        path: The folder.
        runtime: What ran the graphs: onnxruntime or onnx.reference.
        provider: The provider that ran them.
        parity: The largest differences from the golden outputs.
        batches: The batch sizes at which the graphs ran.
        derived: The graphs that are not the files that were exported. There are none without a tolerance.
    """

    path: Path
    runtime: str
    provider: Provider
    parity: list[Parity]
    batches: tuple[int, ...]
    derived: list[GraphName] = field(default_factory=list)


def verify_onnx(
    folder: str | os.PathLike[str],
    provider: Provider = "cpu",
    *,
    seconds: int = MAX_SECONDS,
    tolerance: float | None = None,
) -> VerifyResult:
    """Checks an export: hashes, that the graphs belong together, structure, and golden data at several batch sizes.

    Args:
        folder: A folder that `vaezoo export` wrote.
        provider: The provider that runs the graphs.
        seconds: Time limit of the checks.
        tolerance: For graphs that others derived from those of the export, by an optimiser or a converter. Each value
            must satisfy `|graph - model| <= tolerance * (1 + |model|)`. Hashes, metadata and opset of the graphs are
            not compared. The golden data must be those of the export.

    Raises:
        InputError: If a file is missing, damaged, of another export or of another schema, or exceeds the limits.
        ParityError: If a graph differs from its manifest, or computes something else.
        VaezooError: If the provider cannot run here, or an argument is out of range.
    """
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 < tolerance < math.inf):
        raise VaezooError(f"a tolerance of {safe_repr(tolerance)} is out of range", "for example 0.01")
    folder, seconds = folder_path(folder), whole_number("seconds", seconds, 1)
    read_manifest(folder)
    # -P: do not import modules from the current folder, which may be the export.
    command = [sys.executable, "-P", "-c", CHILD, str(folder), str(provider), str(seconds), str(tolerance or "")]
    environment = {**os.environ, **FEW_ARENAS}
    try:
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{folder} was not checked within {seconds} seconds", "raise --seconds if you trust the source of the files"
        ) from None
    try:
        report = json.loads(process.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        code = process.returncode
        ending = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise InputError(
            f"{folder}: the process that checks the graphs ended with {ending}: {reason}", DISTRUST
        ) from None
    if "error" in report:
        raise ERRORS[report["error"]](report["message"], report["hint"])
    rows = [Parity(**row) for row in report["rows"]]
    return VerifyResult(folder, report["runtime"], provider, rows, tuple(report["batches"]), report["derived"])


def child(folder: str, provider: Provider, seconds: str, tolerance: str) -> None:
    """Runs in the child process: checks a folder and writes the rows or the error as JSON to stdout."""
    try:
        given = float(tolerance) if tolerance else None
        rows, batches, derived = check_folder(Path(folder), provider, int(seconds), given)
        report: dict[str, object] = {"runtime": runtime_name(), "rows": [row.as_dict() for row in rows]}
        report |= {"batches": batches, "derived": derived}
    except VaezooError as e:
        report = {"error": type(e).__name__, "message": e.message, "hint": e.hint}
    except MemoryError:
        message = f"{folder} needs more memory than the limit of a check"
        report = {"error": "InputError", "message": message, "hint": DISTRUST}
    print(json.dumps(report))


def check_folder(
    folder: Path, provider: Provider, seconds: int, tolerance: float | None = None
) -> tuple[list[Parity], tuple[int, ...], list[GraphName]]:
    """Limits this process, then runs all checks in it; see `verify_onnx` for the errors.

    Returns:
        The rows, the batch sizes, and the graphs that are not the files that were exported.
    """
    manifest = read_manifest(folder)
    if tolerance is None:
        files = {name: read_graph(folder, manifest, name) for name in manifest["graphs"]}
        for name in manifest["files"]:
            if "/" not in name and not name.endswith(".onnx"):  # those of golden/ are read with the cases
                read_file(folder, manifest, name)
    else:
        files = {name: read_any(folder / f"{name}.onnx") for name in manifest["graphs"]}
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    derived = [name for name, data in files.items() if sha256(data).hexdigest() != hashes.get(f"{name}.onnx")]
    limit_process(provider, seconds, sum(len(data) for data in files.values()))
    if not derived:
        metadata = {name: read_metadata(parse(name, data)) for name, data in files.items()}
        check_metadata(folder, manifest, metadata)
        check_hashes(files, metadata)
    config = read_config(folder, manifest)
    cases = {name: read_cases(folder, manifest, name) for name in files}
    rows = check_graphs(files, manifest["graphs"], cases, manifest["mode"], config, provider, tolerance)
    return rows, batches_of(cases), derived


def limit_process(provider: Provider, seconds: int, size: int) -> None:
    """Limits this process's CPU time and, without CUDA, its address space. CUDA maps all memory of a device.

    Without the module `resource`, as on Windows, only the timeout of `verify_onnx` applies.

    Args:
        provider: The provider that will run the graphs.
        seconds: Time limit for one core.
        size: Bytes of the graphs' files.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {resource.RLIMIT_CPU: seconds * (os.cpu_count() or 1), resource.RLIMIT_CORE: 0}
    if provider == "cpu":
        limits[resource.RLIMIT_AS] = MAX_MEMORY + 8 * size
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS reserves more address space than any limit allows
            resource.setrlimit(kind, (soft, hard))


def read_config(folder: Path, manifest: Manifest) -> ExportConfig:
    """Returns the config that the manifest states. Raises InputError if a value is not supported."""
    fields = manifest["format"]
    try:
        return ExportConfig(
            opset=fields["opset"],
            dtype=cast("DType", fields["dtype"]),
            uint8=fields["uint8"],
            waveform=fields.get("waveform", False),
        )
    except VaezooError as e:
        raise InputError(f"{folder / MANIFEST} is damaged: {e}", EXPORT_AGAIN) from e
