"""Write the page: a folder of static files, which any web server can give.

OUT/
    index.html, explore.js, explore.css    the page, built from web/
    explore.json                           what the page is told
    manifest.json, *.onnx, latents.json    of the export, unchanged
    examples.bin                           the export's first held-out examples, if it has some
    runtime/                               onnxruntime-web, with its licence, unless several pages share a copy
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vaezoo.core.atomic import atomic_dir
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import StorageError, VaezooError
from vaezoo.explore.web_runtime import WEBGPU

if TYPE_CHECKING:
    from vaezoo.runtime.manifest import Manifest

PAGE = Path(__file__).parent / "page"
LICENSE = PAGE.parent / "ONNXRUNTIME-LICENSE.md"
PAGE_FILES = ("index.html", "explore.js", "explore.css")
FACTS = "explore.json"
EXAMPLES = "examples.bin"
LATENTS = "latents.json"
SCHEMA = 1
OWN_RUNTIME = "runtime/"  # its address as seen from the page
MAX_BYTES = 256 * 2**20  # of all graphs: a page holds each twice while it loads it


def write_page(folder: Path, out: Path, runtime: Mapping[str, Path], name: str, runtime_url: str = OWN_RUNTIME) -> Path:
    """Writes the page of an export and returns its folder. An earlier page there is replaced.

    Args:
        folder: The export.
        out: The folder to write.
        runtime: The files of onnxruntime-web; see `find_runtime`.
        name: What the page calls the model.
        runtime_url: Where the page finds the runtime. Another address than the default, such as "../runtime/", is that
            of a copy which several pages share. `copy_runtime` makes it.

    Raises:
        InputError: If the folder is not an export, or is damaged.
        StorageError: If `out` holds other files, or cannot be written.
        VaezooError: If a page cannot show the export.
    """
    files = export_files(folder)
    examples = example_files(folder)
    facts: dict[str, object] = {
        "schema": SCHEMA,
        "name": name,
        "runtime": runtime_url,
        "webgpu": WEBGPU[0] in runtime,
        "examples": None if examples is None else examples[0],
    }
    files |= {FACTS: json_bytes(facts)} | ({} if examples is None else {EXAMPLES: examples[1]})
    if out.exists():
        check_replaceable(out)
    with atomic_dir(out.resolve(), replace=True) as work:
        for file, data in files.items():
            (work / file).write_bytes(data)
        for file in PAGE_FILES:
            shutil.copyfile(PAGE / file, work / file)
        if runtime_url == OWN_RUNTIME:
            copy_runtime(runtime, work / OWN_RUNTIME)
    return out


def copy_runtime(runtime: Mapping[str, Path], out: Path) -> None:
    """Writes the files of onnxruntime-web and its licence to a folder. An earlier copy there is replaced."""
    with atomic_dir(out.resolve(), replace=True) as work:
        for file, source in runtime.items():
            shutil.copyfile(source, work / file)
        shutil.copyfile(LICENSE, work / LICENSE.name)


def export_files(folder: Path) -> dict[str, bytes]:
    """Reads the files of an export that the page needs, and compares their hashes with the manifest's.

    Raises:
        InputError: If the folder is not an export, or a file is damaged.
        VaezooError: If there is no decoder, or the graphs are too large.
    """
    from vaezoo.runtime.export_files import read_any, read_file, read_manifest
    from vaezoo.runtime.manifest import MANIFEST

    manifest = read_manifest(folder)
    graphs = [f"{name}.onnx" for name in manifest["graphs"]]
    if "decoder" not in manifest["graphs"]:
        raise VaezooError(f"{folder} has no decoder, so there is nothing to show", "export the run without --parts")
    size = sum(manifest["files"][file]["bytes"] for file in graphs if file in manifest["files"])
    if size > MAX_BYTES:
        raise VaezooError(
            f"the graphs of {folder} have {size / 2**20:,.0f} MB, but a page loads at most {MAX_BYTES // 2**20}",
            "export a smaller model, or with --dtype fp16 or int8",
        )
    wanted = [*graphs, *([LATENTS] if LATENTS in manifest["files"] else [])]
    return {MANIFEST: read_any(folder / MANIFEST)} | {file: read_file(folder, manifest, file) for file in wanted}


def example_files(folder: Path) -> tuple[dict[str, object], bytes] | None:
    """Returns the description of the golden examples for the page, and their bytes.

    None if they are not real ones, or are waveforms, which a page of spectrograms cannot show.
    """
    from vaezoo.runtime.export_files import read_manifest

    manifest = read_manifest(folder)
    takes_waveforms = manifest["format"].get("waveform", False)
    if "encoder" not in manifest["graphs"] or takes_waveforms or not has_real_examples(manifest):
        return None
    from vaezoo.export.golden import read_cases

    x = read_cases(folder, manifest, "encoder")[0].inputs.get("x")
    if x is None or x.dtype.name not in ("float32", "uint8", "int64"):
        return None
    data = x.tobytes()
    about = {"dtype": x.dtype.name, "count": len(x), "bytes": len(data), "sha256": sha256(data).hexdigest()}
    return about, data


def has_real_examples(manifest: Manifest) -> bool:
    """Tells whether the first golden examples of the encoder are data of the run."""
    rows = manifest["parity"].get("rows", [])
    return any(row.get("graph") == "encoder" and row.get("inputs") == "real examples" for row in rows)


def check_replaceable(out: Path) -> None:
    """Raises StorageError unless a folder is an earlier page, or empty."""
    if not out.is_dir():
        raise StorageError(f"{out} is not a folder", "give another --out")
    if any(out.iterdir()) and not is_page(out):
        raise StorageError(f"{out} exists and is not a page of 'vaezoo explore'", "give another --out")


def is_page(folder: Path) -> bool:
    """Tells whether `write_page` wrote a folder, and nothing was put beside its files."""
    try:
        facts = cast("dict[str, object]", json.loads((folder / FACTS).read_bytes()))
        known = {*PAGE_FILES, FACTS, EXAMPLES, LATENTS, "manifest.json", "runtime"}
        others = {file.name for file in folder.iterdir() if file.suffix != ".onnx"}
        return facts["schema"] == SCHEMA and others <= known
    except (OSError, ValueError, KeyError, TypeError):
        return False
