"""Prepare a GPU machine without network: unpack what was carried there, and print the environment for the shell.

    eval "$(python3 benchmarks/gpu_setup.py PACK ...)"

PACK is a folder with any of these files; GPU.md says how to make them. The parts of a file may be in several folders.

    *.tar.xz.0, .1 ...    a reduced onnxruntime-gpu, or *.whl.0, .1 ... for the whole wheel
    *.whl                 other packages
    *-ubyte.gz            MNIST, whose folder is then $MNIST_DIR

The checkout itself needs no installation. vaezoo finds its models through the metadata of installed packages, so this
script writes such metadata for the checkout. It needs only the standard library.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shlex
import shutil
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write_metadata(folder: Path) -> None:
    """Writes the metadata that an installation of this checkout would have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    target = folder / f"{project['name']}-{project['version']}.dist-info"
    target.mkdir(parents=True, exist_ok=True)
    fields = {"Metadata-Version": "2.1", "Name": project["name"], "Version": project["version"]}
    fields |= {"Summary": project["description"], "License-Expression": project["license"]}
    (target / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), "utf-8")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups.items()]
    (target / "entry_points.txt").write_text("\n".join(lines), "utf-8")


def join_parts(packs: Sequence[Path], pattern: str) -> bytes:
    """Returns the content of a file that was split into parts, or nothing if there is none."""
    parts = [part for pack in packs for part in pack.glob(pattern)]
    return b"".join(part.read_bytes() for part in sorted(parts, key=lambda part: int(part.suffix[1:])))


def unpack_runtime(packs: Sequence[Path], folder: Path, site: Path) -> None:
    """Unpacks onnxruntime-gpu. The reduced one lacks the converter to fp16, which the CPU's package in `site` has."""
    if archive := join_parts(packs, "*.tar.xz.*"):
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as tar:
            tar.extractall(folder, filter="data")
    if wheel := join_parts(packs, "*.whl.*"):
        zipfile.ZipFile(io.BytesIO(wheel)).extractall(folder)
    converter, target = site / "onnxruntime" / "transformers", folder / "onnxruntime" / "transformers"
    if target.parent.exists() and converter.exists() and not target.exists():
        shutil.copytree(converter, target)


def unpack_mnist(packs: Sequence[Path], folder: Path) -> None:
    """Unpacks MNIST as torchvision stores it."""
    raw = folder / "MNIST" / "raw"
    for file in [file for pack in packs for file in pack.glob("*-ubyte.gz")]:
        raw.mkdir(parents=True, exist_ok=True)
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))


def set_up(packs: Sequence[Path], work: Path, site: Path) -> dict[str, str]:
    """Unpacks everything into a folder and returns the environment variables.

    Args:
        packs: Folders of what was carried.
        work: The folder to unpack to.
        site: The folder of the installed packages, with the CUDA libraries in `nvidia/`.
    """
    write_metadata(work / "metadata")
    unpack_runtime(packs, work / "ort", site)
    for wheel in [wheel for pack in packs for wheel in pack.glob("*.whl")]:
        zipfile.ZipFile(wheel).extractall(work / "site")
    unpack_mnist(packs, work / "data")
    # onnxruntime-gpu comes before the CPU's package, and looks for the CUDA libraries where the loader does.
    paths = [work / "ort", work / "site", work / "metadata", ROOT, ROOT / "cli"]
    libraries = sorted(site.glob("nvidia/*/lib"))
    variables = {"PYTHONPATH": paths, "LD_LIBRARY_PATH": libraries}
    environment = {
        name: os.pathsep.join([*map(str, new), *filter(None, [os.environ.get(name)])])
        for name, new in variables.items()
    }
    return environment | {"MNIST_DIR": str(work / "data")}


def main() -> None:
    """Prepares the machine, reports what was found, and prints the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="*", type=Path, metavar="PACK", help="folders of what was carried")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="folder to unpack to")
    args = parser.parse_args()
    work = args.work.absolute()
    environment = set_up(args.packs, work, Path(sysconfig.get_paths()["purelib"]))
    found = [name for name in ("ort/onnxruntime", "site", "data/MNIST") if (work / name).exists()]
    print(f"unpacked to {work}: {', '.join(found) or 'nothing'}", file=sys.stderr)
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
