"""Fuzz harnesses: each passes bytes to one of the readers of vaezoo, which may raise nothing but a VaezooError.

`test_fuzz.py` runs all of them briefly, `fuzz.py --seconds 60` for longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import resource
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from vaezoo.core.json_io import json_bytes
from vaezoo.core.options import configure
from vaezoo.data import arrays
from vaezoo.data.images import decode, image_headers
from vaezoo.data.load import load_data
from vaezoo.data.sound import sound_files
from vaezoo.data.sound.spectrogram import log_mel
from vaezoo.data.tables.load import new_rows
from vaezoo.errors import InputError, VaezooError
from vaezoo.export.golden import read_cases
from vaezoo.export.graph_checks import check_structure, parse
from vaezoo.export.metadata import check_hashes, read_metadata
from vaezoo.export.verify import read_config
from vaezoo.registry import find_model
from vaezoo.runtime.export_files import check_metadata, read_graph, read_manifest
from vaezoo.runtime.manifest import ENCODER_DECODER
from vaezoo.training.checkpoint import find_checkpoint
from vaezoo.training.config import TrainConfig
from vaezoo.training.run import load
from vaezoo_cli.options import parse_options

# Tokens that replace parts of the seeds.
TOKENS = (
    *(b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"NaN", b"-Infinity", b"inf", b"9" * 19, b"9" * 400),
    *(b'""', b'"x"', b"[]", b"{}", b",", b"[[[[", b'{"a":' * 60, b'"\\u0000"', b'"\\ud800"', b'"../../x"'),
    *(b"\xff\xfe", b"\x00" * 8, b"\xff" * 8),
)
MEMORY_BYTES = 4 << 30  # that a harness may reserve
TOKEN_PATTERN = re.compile(rb'"[^"]*"|-?\d[\d.eE+-]*|true|false|null|\[[^\[\]]*\]')


@dataclass(frozen=True)
class Harness:
    """A reader to fuzz.

    Attributes:
        seeds: Valid inputs, from which others are derived.
        read: Reads one input.
    """

    seeds: list[bytes]
    read: Callable[[bytes], object]

    def target(self, data: bytes) -> None:
        """Reads one input. Any exception but a VaezooError is a finding."""
        try:
            self.read(data)
        except VaezooError as e:
            assert e.message and e.hint and len(e.message) < 2_000


def limit_memory() -> None:
    """Limits the memory that this process may still reserve, so that a number in a file cannot fill the machine."""
    with open("/proc/self/statm") as f:
        now = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


@st.composite
def mutants(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draws a seed with a few tokens, bytes or ranges replaced."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        tokens = [m.span() for m in TOKEN_PATTERN.finditer(data)]
        at = draw(st.integers(0, len(data)))
        start, end = draw(st.sampled_from([*tokens, (at, at), (at, at + 1), (at, at + 8), (at, len(data))]))
        data = data[:start] + draw(st.sampled_from(TOKENS) | st.binary(max_size=8)) + data[end:]
    return data


def run_json(work: Path) -> Harness:
    """Reads run.json, then loads the model and the checkpoint that it names."""
    folder = factories.write_run(work)

    def read(data: bytes) -> object:
        (folder / "run.json").write_bytes(data)
        return load(folder)

    return Harness([(folder / "run.json").read_bytes()], read)


def options(work: Path) -> Harness:
    """Reads options of a model (-o name=value) and settings of a training. The length of the first line chooses."""
    configs: list[object] = [TrainConfig()]
    configs += [
        find_model(name).load().config for name in ("mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder")
    ]

    def read(data: bytes) -> None:
        choice, *texts = data.decode(errors="replace").split("\n")
        configure(configs[len(choice) % len(configs)], parse_options(tuple(texts)))

    seeds = [
        b"\nlr=1e-3\nsteps=none\nschedule=multistep\nmilestones=5,6",
        b"-\nhidden=3,4\nactivation=relu",
        b"----\ngamma=0.1",
    ]
    return Harness([*seeds, b"--\nchannels=8,16", b"---\nbeta=4\ncapacity=none"], read)


def manifest(work: Path) -> Harness:
    """Reads manifest.json of an export, then all files as it describes them."""
    folder = factories.write_export(work)

    def read(data: bytes) -> None:
        (folder / "manifest.json").write_bytes(data)
        manifest = read_manifest(folder)
        metadata = {name: read_metadata(parse(name, read_graph(folder, manifest, name))) for name in manifest["graphs"]}
        check_metadata(folder, manifest, metadata)
        read_config(folder, manifest)
        for name in manifest["graphs"]:
            read_cases(folder, manifest, name)

    return Harness([(folder / "manifest.json").read_bytes()], read)


def graph(work: Path) -> Harness:
    """Reads a graph's structure and metadata, as `vaezoo verify` does before it runs the graph."""
    folder = factories.write_export(work)
    files = {name: (folder / f"{name}.onnx").read_bytes() for name in ENCODER_DECODER}
    signature = json.loads((folder / "manifest.json").read_text())["graphs"]["encoder"]

    def read(data: bytes) -> None:
        model = parse("encoder", data)
        metadata = {"encoder": read_metadata(model), "decoder": read_metadata(parse("decoder", files["decoder"]))}
        check_hashes({"encoder": data, "decoder": files["decoder"]}, metadata)
        check_structure("encoder", model, signature, 18)

    return Harness([files["encoder"]], read)


def structure(work: Path) -> Harness:
    """Reads a graph's structure alone. In `graph`, wrong hashes end the reading before."""
    signature = factories.description()["graphs"]["encoder"]  # type: ignore[index]
    return Harness(
        [factories.graphs()["encoder"].SerializeToString()],
        lambda data: check_structure("encoder", parse("encoder", data), signature, 18),
    )


def checkpoint(work: Path) -> Harness:
    """Reads a checkpoint with one file replaced and its hash updated. The first byte chooses the file."""
    from vaezoo.data.spec import DataSpec

    folder = factories.write_run(work) / "checkpoints" / "step-00000007"
    names = ("model.safetensors", "state.json", "manifest.json")
    good = {name: (folder / name).read_bytes() for name in names}
    _, vae, _ = find_model("mlp-vae").build({"hidden": [3], "latent_dim": 2}, DataSpec(name="tiny", shape=(4,)))

    def read(data: bytes) -> None:
        name, data = names[data[0] % 3 if data else 0], data[1:]
        for other, content in good.items():
            (folder / other).write_bytes(content)
        (folder / name).write_bytes(data)
        if name != "manifest.json":
            listed = json.loads(good["manifest.json"])
            listed["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (folder / "manifest.json").write_bytes(json_bytes(listed))
        for name in ("last", "best", "7"):
            find_checkpoint(folder.parent, name, "elbo").restore(vae, "model")

    return Harness([bytes([i]) + good[name] for i, name in enumerate(names)], read)


def array_files(work: Path) -> Harness:
    """Reads .npy and .npz files. The first bytes choose the suffix."""
    values = {"x": RNG.random((6, 4), np.float32), "y": np.arange(6)}
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, values["x"])
    np.savez(npz, **values)
    np.savez_compressed(packed, **values)

    def read(data: bytes) -> None:
        path = work / ("a.npz" if data.startswith(b"PK") else "a.npy")
        path.write_bytes(data)
        arrays.load(path)

    return Harness([file.getvalue() for file in (npy, npz, packed)], read)


def recordings(work: Path) -> Harness:
    """Reads a recording with a column of times, and cuts it into windows."""
    rows = [f"{i},{i * i},-{i}.5" for i in range(12)]
    dates = [f"2024-02-{i + 20:02}T00:00Z,{i},1e{i}" for i in range(9)]
    path = work / "a.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_data(path, time_column="t", window=2)

    return Harness(["\n".join(["t,a,b", *lines]).encode() for lines in (rows, dates)], read)


def sounds(work: Path) -> Harness:
    """Reads a sound file. Python's reader of .wav is what others damage; soundfile is another package's."""
    path, file = work / "a.wav", io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((2, 3, 8_000, 0, "NONE", ""))
        wav.writeframes(RNG.bytes(600))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        samples, rate = sound_files.read_sound(path)
        log_mel(samples.mean(1)[:1_000], rate)

    return Harness([file.getvalue(), sound_files.write_wav(RNG.random(100), 11_025)], read)


def sparse_counts(work: Path) -> Harness:
    """Reads a sparse matrix of counts. HDF5 of .h5ad files is what others damage."""
    path, files = work / "a.npz", [io.BytesIO(), io.BytesIO()]
    parts = {"indices": np.array([1, 0, 2], np.int32), "indptr": np.array([0, 1, 3], np.int32), "format": b"csr"}
    for file, dtype in zip(files, ("f4", "i8"), strict=True):
        np.savez_compressed(file, **parts, shape=np.array([2, 3]), data=np.array([4, 1, 2], dtype))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_data(path, kind="counts")

    return Harness([file.getvalue() for file in files], read)


def image_files(work: Path) -> Harness:
    """Reads images of an image folder: the headers, then the pixels."""
    seeds = []
    for mode, form in (
        ("RGB", "PNG"),
        ("P", "PNG"),
        ("RGB", "TIFF"),
        ("RGB", "AVIF"),
        ("L", "JPEG"),
        ("RGB", "GIF"),
        ("1", "BMP"),
        ("L", "PPM"),
        ("RGBA", "WEBP"),
    ):
        image = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8)).convert(mode)
        file = io.BytesIO()
        image.save(file, form)
        seeds.append(file.getvalue())
    path = work / "a.png"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for size in (None, 5):
            shape = image_headers.common_shape([path], work, size)
            try:
                pixels = decode.read_images([path], work, size)
            except InputError:  # damage after the header
                continue
            assert tuple(pixels.shape[1:]) == shape

    return Harness(seeds, read)


RNG = np.random.default_rng(0)


def tables(work: Path) -> Harness:
    """Reads a .csv file as data to train on, and as new rows for a model."""
    path, seed = (
        work / "table.csv",
        b"age,sex,day,ok\n1.5,f,2001-01-02,no\n2,m,2001-01-03,yes\n3,f,,no\n4,m,2001-01-05,no\n",
    )
    path.write_bytes(seed)
    spec = load_data(path).spec

    def read(data: bytes) -> object:
        path.write_bytes(data)
        with contextlib.suppress(VaezooError):
            new_rows(path, spec)
        return load_data(path)

    return Harness([seed, seed.replace(b"\n", b"\r\n"), b'a,b\n"x,\n""1",2\n"y",3.25\n'], read)


def parquet(work: Path) -> Harness:
    """Reads a .parquet file."""
    path = work / "table.parquet"
    pq.write_table(pa.table({"age": [1.5, None, 2.5], "sex": ["f", "m", "f"]}), path)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_data(path)

    return Harness([path.read_bytes()], read)


HARNESSES: dict[str, Callable[[Path], Harness]] = {
    "run-json": run_json,
    "options": options,
    "manifest": manifest,
    "graph": graph,
    "structure": structure,
    "checkpoint": checkpoint,
    "arrays": array_files,
    "recordings": recordings,
    "sounds": sounds,
    "sparse counts": sparse_counts,
    "images": image_files,
    "tables": tables,
    "parquet": parquet,
}
