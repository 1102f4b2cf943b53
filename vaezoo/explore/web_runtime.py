"""The files of onnxruntime-web that the page loads: those of the wheel, of a user's copy, or fetched once.

The build with SIMD for WASM is 14 MB. A copy of npm's package also has the build for WebGPU, which is larger. The page
uses it where the browser has a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

from vaezoo.data.download import Remote, fetch
from vaezoo.errors import InputError, StorageError, VaezooError, with_hint

VERSION = "1.30.0"
PACKAGED = Path(__file__).parent / "runtime"  # `make web` fills it
URLS = (
    f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/",
    f"https://unpkg.com/onnxruntime-web@{VERSION}/dist/",
)
WASM = {  # name -> size in bytes and SHA-256
    "ort.wasm.min.mjs": (50_126, "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b"),
    "ort-wasm-simd-threaded.mjs": (24_381, "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"),
    "ort-wasm-simd-threaded.wasm": (14_239_897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
}
WEBGPU = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def find_runtime(folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Returns the files of onnxruntime-web by name. Fetches them if they are nowhere.

    Args:
        folder: A user's copy: `dist` of npm's package, or a folder that holds it.

    Raises:
        VaezooError: If the copy lacks a file.
        InputError: If they cannot be fetched.
        StorageError: If they cannot be written.
    """
    if folder is not None:
        return from_copy(Path(folder))
    if all((PACKAGED / name).is_file() for name in WASM):
        return {name: PACKAGED / name for name in WASM}
    return fetched(cache_folder())


def from_copy(folder: Path) -> dict[str, Path]:
    """Returns the files of a user's copy, with those of WebGPU if it has them all."""
    places = [folder, folder / "dist", folder / "node_modules" / "onnxruntime-web" / "dist"]
    found = next((place for place in places if all((place / name).is_file() for name in WASM)), None)
    if found is None:
        missing = next(name for name in WASM if not (folder / name).is_file())
        raise VaezooError(
            f"{folder} is not a copy of onnxruntime-web: it has no {missing}", "npm install onnxruntime-web"
        )
    more = WEBGPU if all((found / name).is_file() for name in WEBGPU) else ()
    return {name: found / name for name in (*WASM, *more)}


def fetched(root: Path) -> dict[str, Path]:
    """Returns the files in a folder, after those that are missing were downloaded into it."""
    try:
        with with_hint("install onnxruntime-web with npm, and pass its folder as --runtime"):
            for name, (size, sha256) in WASM.items():
                fetch(Remote(tuple(url + name for url in URLS), size, sha256), root, name)
    except StorageError as e:
        raise StorageError(e.message, "set XDG_CACHE_HOME to a writable folder, or pass --runtime") from e
    return {name: root / name for name in WASM}


def cache_folder() -> Path:
    """Returns the folder of fetched files, below the user's cache."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as e:
        raise InputError(f"there is no folder for downloads: {e}", "set XDG_CACHE_HOME, or pass --runtime") from e
    return Path(base) / "vaezoo" / f"onnxruntime-web-{VERSION}"
