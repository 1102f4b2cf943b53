"""Copies modules of vaezoo into the wheel of vaezoo-runtime, under the name vaezoo_runtime.

Both distributions can be installed together, because they have no file in common.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
SOURCE = HERE.parent / "vaezoo"
MODULES = (
    "py.typed",
    "errors.py",
    *(f"core/{name}.py" for name in ("__init__", "atomic", "coordinates", "counts", "environment", "json_io")),
    *(f"core/{name}.py" for name in ("drawing", "memory", "scaling", "table_cells", "tables", "tokenizer")),
    *(f"runtime/{name}.py" for name in ("__init__", "export_files", "graphs", "image_sizes", "inputs", "manifest")),
    *(f"runtime/{name}.py" for name in ("manifest_checks", "onnx_vae", "ort_session", "prior", "tables", "texts")),
    "runtime/tiling.py",
    *(
        f"export/{name}.py"
        for name in ("__init__", "cases", "config", "golden", "graph_checks", "metadata", "tolerance", "verify")
    ),
    *(f"bench/{name}.py" for name in ("__init__", "backends", "compare", "result", "runner", "timer", "workload")),
)
NAMES = re.compile(r"\bvaezoo(?= import |\.(errors|core|runtime|export|bench)\b)")  # in imports and docstrings


class CopyModules(BuildHookInterface):
    """Adds the modules to a wheel."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="vaezoo-runtime-"))
        files = {f"vaezoo_runtime/{name}": SOURCE / name for name in MODULES}
        files |= {f"vaezoo_runtime/{file.name}": file for file in (HERE / "vaezoo_runtime").glob("*.py")}
        included = {}
        for name, file in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(NAMES.sub("vaezoo_runtime", file.read_text("utf-8")), "utf-8")
            included[str(target)] = name
        included[str(HERE.parent / "LICENSE")] = "vaezoo_runtime/LICENSE"
        build_data["force_include"] = included
        self.folder = folder

    def finalize(self, version: str, build_data: dict[str, object], artifact_path: str) -> None:
        shutil.rmtree(self.folder)
