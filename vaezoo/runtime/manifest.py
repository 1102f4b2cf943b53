"""manifest.json and the files of an export: their types, reading them, and checking them against each other.

The runtime reads exports too, so this module needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from numpy.typing import NDArray

from vaezoo.core.atomic import open_regular
from vaezoo.core.json_io import read_json
from vaezoo.core.scaling import Scaling
from vaezoo.core.tables import Column, columns_of, parse_model_column
from vaezoo.core.tokenizer import Tokenizer, check_tokenizer
from vaezoo.errors import InputError, VaezooError, safe_repr

GraphName = str  # "encoder" and "decoder"; "prior" if the prior is a graph; and what a model adds
Array = NDArray[Any]

SCHEMA = 4
MANIFEST = "manifest.json"
CARD = "README.md"
ENCODER_DECODER: tuple[GraphName, ...] = ("encoder", "decoder")
GRAPH_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")  # it becomes the name of a file
PRIORS = ("standard-normal", "graph", "autoregressive", None)
MAX_GRAPH_BYTES = 2**31 - 1  # the limit of one protobuf message
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
EXPORT_AGAIN = "export the run again"


class TensorSignature(TypedDict):
    """An input or output of a graph. `shape` is "batch", then the sizes of one example. A text is a free size.

    `multiples` says of a free size of an input that it must be a multiple of a number above 1.
    """

    name: str
    dtype: str
    shape: list[str | int]
    multiples: NotRequired[dict[str, int]]


class GraphSignature(TypedDict):
    """The inputs and the outputs of a graph."""

    inputs: list[TensorSignature]
    outputs: list[TensorSignature]


class DataEntry(TypedDict):
    """The data that the model was made for; see `vaezoo.DataSpec`."""

    name: str
    shape: list[int]
    likelihood: str
    kind: str
    classes: list[int]
    vocabulary: int
    columns: list[str]
    symbols: list[str]
    class_names: NotRequired[list[str]]
    column_names: NotRequired[list[str]]
    time_column: NotRequired[str]
    column_formats: NotRequired[list[str]]
    categories: NotRequired[list[list[str]]]
    left_out: NotRequired[list[str]]
    offset: NotRequired[list[float]]
    factor: NotRequired[list[float]]
    tokenizer: NotRequired[str]


class AutoregressiveEntry(TypedDict):
    """How ids are drawn one by one from a graph's logits; see `vaezoo.priors.base.Autoregressive`."""

    length: int
    end_id: int | None
    start_id: NotRequired[int]


class QualityEntry(TypedDict):
    """A figure that was measured on the weights of an export before it was written.

    `data` and `split` name the examples. `protocol` tells figures of the same name apart.
    """

    name: str
    value: float
    error: float | None
    unit: str
    data: str
    split: str
    protocol: str


class FormatEntry(TypedDict):
    """How the graphs are written; see `vaezoo.export.config.ExportConfig`."""

    opset: int
    dtype: str
    uint8: bool


class Float32Node(TypedDict):
    """A node of a float16 graph that stays float32, and the largest absolute value of its inputs and outputs."""

    node: str
    operator: str
    largest: float


class LatentScalingEntry(TypedDict):
    """How the latents of the graphs follow from those of the model: z' = (z - shift_factor) * scaling_factor."""

    scaling_factor: float
    shift_factor: float


class CheckpointEntry(TypedDict):
    """The checkpoint that the weights come from. The step of a module that is not from a run is not known: None."""

    step: int | None
    sha256: str


class FileEntry(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class ParityRow(TypedDict):
    """One row of the comparison with the model; see `vaezoo.export.tolerance.Parity`."""

    graph: str
    inputs: str
    output: str
    max_abs: float
    limit: float
    batch: int
    rms: NotRequired[float]


class ParityEntry(TypedDict):
    """The comparison with the model: what ran the graphs, at which batch sizes, and the rows.

    `tolerance` says what the limit of a row applies to; see `vaezoo.export.tolerance.stated_tolerance`.
    """

    runtime: str
    batches: list[int]
    tolerance: NotRequired[dict[str, float | str]]
    rows: list[ParityRow]


class Description(TypedDict):
    """What the graphs are and where they come from: the manifest without files and parity.

    `graphs` holds those of the export's parts, which need not be all that the model has.

    `prior` says how z is drawn: "standard-normal", "graph" (prior.onnx maps standard normal noise to z),
    "autoregressive" (prior.onnx gives logits, and ids are drawn one by one), or None if the export cannot draw z.
    `autoregressive` is not None if the decoder gives logits of x id by id. `mode` names the encoder's output that is
    the mode of q(z|x). `license` is that of the model's code. `weights_license` is None if the weights are the user's
    own. `finished` says whether the training came to its end. It is None if there was no run. `quality` holds what was
    measured on the weights. `left_out` says what of q(z|x) encoder.onnx leaves out, if it does. `imported` is the class
    that the weights were imported from, if they were. `float32` lists nodes of fp16 graphs that stay float32, if there
    are any. `latent_scaling` is there if the latents have another scale than those of the model.
    """

    schema: int
    model: str
    options: dict[str, object]
    data: DataEntry
    latent_shape: list[int]
    prior: str | None
    autoregressive: AutoregressiveEntry | None
    mode: str
    format: FormatEntry
    checkpoint: CheckpointEntry
    graphs: dict[GraphName, GraphSignature]
    binarize: str
    license: str | None
    weights_license: str | None
    finished: NotRequired[bool | None]
    quality: NotRequired[list[QualityEntry]]
    left_out: NotRequired[str]
    imported: NotRequired[str]
    float32: NotRequired[dict[GraphName, list[Float32Node]]]
    latent_scaling: NotRequired[LatentScalingEntry]
    versions: dict[str, str]


class Manifest(Description):
    """What manifest.json holds."""

    files: dict[str, FileEntry]
    parity: ParityEntry


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder looks like an export. A checkpoint has a manifest too, but no graphs."""
    folder = Path(folder)
    return (folder / MANIFEST).is_file() and any(folder.glob("*.onnx"))


def folder_path(folder: object) -> Path:
    """Returns the path of an export. Raises VaezooError if it is not a path."""
    if not isinstance(folder, str | os.PathLike):
        raise VaezooError(f"{safe_repr(folder)} is not the path of an export", "give the path of its folder")
    return Path(folder)


def read_manifest(folder: Path) -> Manifest:
    """Reads manifest.json and checks its schema and its fields.

    Raises:
        InputError: If it is missing, damaged or of another schema.
    """
    if not is_export(folder):
        raise InputError(f"{folder} is not an export", "give a folder that 'vaezoo export --onnx' wrote")
    manifest = read_json(folder / MANIFEST)
    _check_schema(folder, manifest.get("schema"))
    try:
        _check_fields(manifest)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{folder / MANIFEST} is damaged: {e!r}", EXPORT_AGAIN) from e
    return cast("Manifest", manifest)


def _check_schema(folder: Path, schema: object) -> None:
    if type(schema) is not int:
        raise InputError(f"{folder / MANIFEST} is damaged: schema {safe_repr(schema)}", EXPORT_AGAIN)
    if schema != SCHEMA:
        writer, hint = ("an earlier", EXPORT_AGAIN) if schema < SCHEMA else ("a later", "update vaezoo")
        versions = f"(schema {safe_repr(schema)}, this version reads {SCHEMA})"
        raise InputError(f"{folder} was written by {writer} version of vaezoo {versions}", hint)


def _check_fields(manifest: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError unless a parsed manifest has the fields of `Manifest`."""
    for value, kind in (
        (manifest["model"], str),
        (manifest["options"], dict),
        (manifest["data"]["name"], str),
        (manifest["data"]["likelihood"], str),
        (manifest["data"]["kind"], str),
        (manifest["data"]["vocabulary"], int),
        (manifest["graphs"], dict),
        (manifest["prior"], str | None),
        (manifest["autoregressive"], dict | None),
        (manifest["format"]["opset"], int),
        (manifest["format"]["dtype"], str),
        (manifest["format"]["uint8"], bool),
        (manifest["checkpoint"]["step"], int | None),
        (manifest["checkpoint"]["sha256"], str),
        (manifest["binarize"], str),
        (manifest["license"], str | None),
        (manifest["weights_license"], str | None),
        (manifest.get("left_out", ""), str),
        (manifest.get("imported", ""), str),
        (manifest.get("float32", {}), dict),
        (manifest.get("latent_scaling", {}), dict),
        (manifest["versions"], dict),
        (manifest["files"], dict),
        (manifest["parity"], dict),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{safe_repr(value)} is not of type {getattr(kind, '__name__', kind)}")
    for name, entry in manifest["files"].items():
        if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
            raise TypeError(f"the entry of {safe_repr(name)} is not a size and a hash")
    _check_shape(manifest["latent_shape"])
    _check_data(manifest["data"])
    if manifest["prior"] not in PRIORS:
        raise ValueError(f"prior {safe_repr(manifest['prior'])} is not known")
    if manifest["autoregressive"] is not None:
        _check_shape([manifest["autoregressive"]["length"]])
        if not isinstance(manifest["autoregressive"]["end_id"], int | None):
            raise TypeError("end_id is not an integer")
        _check_step(manifest)
    if not manifest["graphs"]:
        raise ValueError("there are no graphs")
    for name in manifest["graphs"]:
        if not GRAPH_NAME.fullmatch(name):
            raise ValueError(f"{safe_repr(name)} is not the name of a graph")
        _check_signature(manifest["graphs"][name], len(manifest["data"]["classes"]))
    _check_inputs(manifest)
    encoder, decoder = (manifest["graphs"].get(name) for name in ENCODER_DECODER)
    if decoder and not _fits(decoder["inputs"][0]["shape"][1:], manifest["latent_shape"]):
        raise ValueError(f"the decoder's input does not have latent_shape {manifest['latent_shape']}")
    if encoder and manifest["mode"] not in [output["name"] for output in encoder["outputs"]]:
        raise ValueError(f"mode {safe_repr(manifest['mode'])} is not an output of the encoder")


def _check_step(manifest: Mapping[str, Any]) -> None:
    """Raises an error unless the graph of a single step, if there is one, takes and returns what the runtime gives."""
    if "start_id" not in manifest["autoregressive"] or "step" not in manifest["graphs"]:
        return
    step = manifest["graphs"]["step"]
    inputs = {tensor["name"]: tensor for tensor in step["inputs"]}
    outputs = [tensor["name"] for tensor in step["outputs"]]
    sizes = inputs["state"]["shape"]
    if not inputs.keys() >= {"id", "state", "z"} or outputs != ["logits", "state_out"] or len(sizes) != 2:
        raise ValueError("the graph step does not take an id, a state and z, and return logits and a state")
    if not isinstance(manifest["autoregressive"]["start_id"], int) or not isinstance(sizes[1], int):
        raise TypeError("start_id or the size of the state is not an integer")


def _check_data(data: Mapping[str, Any]) -> None:
    """Raises an error unless these are the fields of `DataEntry`, and fit each other."""
    _check_shape(data["shape"])
    _check_shape(data["classes"])
    names, column_names = data.get("class_names", []), data.get("column_names", [])
    texts_by_key = {"columns": data["columns"], "symbols": data["symbols"]}
    for key, texts in (*texts_by_key.items(), ("class_names", names), ("column_names", column_names)):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{key} {safe_repr(texts)} are not texts")
    if not all(name.isprintable() for name in (*names, *column_names)):
        raise ValueError("the name of a class or column cannot be printed")
    if names and data["classes"] != [len(names)]:
        raise ValueError(f"there are {len(names)} class names for labels of {data['classes']} values")
    if not isinstance(data.get("time_column", ""), str):
        raise TypeError(f"time_column {safe_repr(data['time_column'])} is not a text")
    if column_names and data["shape"][: 1 if len(data["shape"]) < 3 else 0] != [len(set(column_names))]:
        raise ValueError(f"there are {len(column_names)} column names for shape {data['shape']}")
    if not data["shape"]:
        raise ValueError("the data have no dimensions")
    if not all(map(parse_model_column, data["columns"])):
        raise ValueError(f"columns {safe_repr(data['columns'])} are neither real nor categories")
    if data["kind"] == "table" and data["shape"] != [len(data["columns"])]:
        raise ValueError(f"a table of {len(data['columns'])} columns has shape {data['shape']}")
    if len(data["symbols"]) not in (0, data["vocabulary"]):
        raise ValueError(f"there are {len(data['symbols'])} symbols for {data['vocabulary']} ids")
    check_tokenizer(data.get("tokenizer", ""), data["symbols"])
    _check_formats(data)
    _check_scaling(data)


def _check_formats(data: Mapping[str, Any]) -> None:
    """Raises an error unless the cells of a table are described for each column, or for none."""
    lists = [data.get("column_formats", []), data.get("left_out", []), *data.get("categories", [])]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
        raise TypeError("the formats of columns are not texts")
    if data.get("column_formats") or data.get("categories"):
        columns_of(data["columns"], data["column_formats"], data["categories"])


def table_columns(data: DataEntry) -> list[Column]:
    """Returns the columns of a table with their formats. Empty for other data, and if cells are numbers."""
    formats = data.get("column_formats", [])
    return columns_of(data["columns"], formats, data["categories"]) if formats else []


def _check_scaling(data: Mapping[str, Any]) -> None:
    """Raises an error unless data have a number of each kind for each column or channel, or none."""
    offset, factor = data.get("offset", []), data.get("factor", [])
    for numbers in (offset, factor):
        if not isinstance(numbers, list) or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
            raise TypeError(f"scaling {safe_repr(numbers)} is not a list of numbers")
    if len(offset) != len(factor) or len(offset) not in (0, data["shape"][0]) or not all(n > 0 for n in factor):
        raise ValueError("the scaling does not fit the shape, or divides by 0")


def column_names(data: DataEntry) -> list[str]:
    """Returns the names of the columns of vectors or of a table. Empty if they have none."""
    return data.get("column_names") or [column.rpartition(":")[0] for column in data["columns"]]


def tokenizer_of(data: DataEntry) -> Tokenizer | None:
    """Returns the map between texts and ids, or None if the data have none."""
    name = data.get("tokenizer", "")
    return Tokenizer(name, tuple(data["symbols"])) if name else None


def scaling_of(data: DataEntry) -> Scaling:
    """Returns how values became x."""
    return Scaling(data["kind"], tuple(data.get("offset", ())), tuple(data.get("factor", ())))


def _check_inputs(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError unless the graphs have the inputs from which a decoder's output is drawn."""
    graphs = manifest["graphs"]
    needed = [(name, tensor) for name, tensor in (("encoder", "x"), ("decoder", "z")) if name in graphs]
    needed += [("decoder", "x")] if manifest["autoregressive"] is not None and "decoder" in graphs else []
    needed += {"graph": [("prior", "noise")], "autoregressive": [("prior", "z")]}.get(manifest["prior"], [])
    for name, wanted in needed:
        inputs = graphs[name]["inputs"] if name in graphs else []
        if wanted not in [tensor["name"] for tensor in inputs]:
            raise ValueError(f"there is no graph {name} with the input {wanted}")
    noise = [t for t in graphs.get("prior", {"inputs": []})["inputs"] if t["name"] == "noise"]
    _check_shape([n for tensor in noise for n in tensor["shape"][1:]])


def _check_signature(signature: Mapping[str, Any], labels: int) -> None:
    """Raises an error unless this is a `GraphSignature` whose input y, if it has one, holds so many labels."""
    for tensor in (*signature["inputs"], *signature["outputs"]):
        sizes = tensor["shape"]
        if not isinstance(sizes, list) or not all(n.isprintable() for n in sizes if isinstance(n, str)):
            raise ValueError(f"{safe_repr(sizes)} is not a shape")
        _check_shape([n for n in sizes[1:] if not isinstance(n, str)])
        if not isinstance(tensor["name"], str) or tensor["dtype"] not in DTYPES:
            raise ValueError(f"{safe_repr(tensor)} does not describe a tensor")
        if not isinstance(tensor.get("multiples", {}), dict):
            raise TypeError(f"multiples {safe_repr(tensor['multiples'])} are not numbers by name")
        _check_shape(list(tensor.get("multiples", {}).values()))
        if tensor["name"] == "y" and sizes[1:] != [labels] and (sizes[1:] or labels != 1):
            raise ValueError(f"y has shape {safe_repr(sizes)}, but examples have {labels} labels")
    if not signature["inputs"] or not signature["outputs"]:
        raise ValueError("a graph has no input or no output")


def _fits(shape: list[int | str], sizes: list[int]) -> bool:
    """Tells whether sizes are those of a shape, in which a text is a free size."""
    return len(shape) == len(sizes) and all(isinstance(a, str) or a == b for a, b in zip(shape, sizes, strict=True))


def _check_shape(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(n, int) and 0 < n < 2**31 for n in value):
        raise ValueError(f"{safe_repr(value)} is not a shape")


def example_shape(tensor: TensorSignature) -> tuple[int | str, ...]:
    """Returns the shape of one example of a graph's input or output. A text is a free size."""
    return tuple(tensor["shape"][1:])


def has_shape(shape: tuple[int, ...], declared: tuple[int | str, ...]) -> bool:
    """Tells whether a shape is the declared one, in which a text is a free size."""
    return _fits(list(declared), list(shape))


def read_graph(folder: Path, manifest: Manifest, name: GraphName) -> bytes:
    """Reads a graph's file.

    Raises:
        InputError: If it is missing, too large for a graph, or not the file that was exported.
    """
    return read_file(folder, manifest, f"{name}.onnx")


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Reads a file of an export and compares its size and SHA-256 with the manifest's; see `read_graph`."""
    entry = manifest["files"].get(name)
    if entry is None:
        raise InputError(f"{folder / MANIFEST} is damaged: it does not list {name}", EXPORT_AGAIN)
    data = read_any(folder / name, entry["bytes"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(f"{folder / name} is not the file that was exported: its SHA-256 differs", EXPORT_AGAIN)
    return data


def read_any(path: Path, expected: int | None = None) -> bytes:
    """Reads a file that is no larger than a graph.

    Args:
        path: The file.
        expected: Its size in bytes. None: any.

    Raises:
        InputError: If it is missing or of another size, or too large for a graph.
    """
    try:
        with open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size > MAX_GRAPH_BYTES or (expected is not None and size != expected):
                wanted = f"at most {MAX_GRAPH_BYTES}" if expected is None else str(expected)
                raise InputError(f"{path} has {size} bytes, not {wanted}", EXPORT_AGAIN)
            return f.read(size)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", EXPORT_AGAIN) from e


def set_hash(hashes: Mapping[GraphName, str]) -> str:
    """Returns the SHA-256 that identifies graphs which belong together, given the hash of each."""
    return hashlib.sha256(json.dumps(dict(sorted(hashes.items()))).encode()).hexdigest()


def check_set(
    folder: Path, metadata: Mapping[GraphName, Mapping[str, str]], graphs: Mapping[GraphName, GraphSignature]
) -> None:
    """Raises InputError unless all graphs name the same set of graphs and the same checkpoint.

    The hash of the set is computed again if all graphs of the export are here.
    """
    for name, entries in metadata.items():
        if entries.get("vaezoo.graph") != name or not entries.get("vaezoo.graph_sha256"):
            raise InputError(f"{folder / name}.onnx is not a vaezoo {name}", EXPORT_AGAIN)
    sets = {entries.get("vaezoo.set_sha256") for entries in metadata.values()}
    if metadata.keys() == graphs.keys():
        sets.add(set_hash({name: entries["vaezoo.graph_sha256"] for name, entries in metadata.items()}))
    checkpoints = {entries.get("vaezoo.checkpoint_sha256") for entries in metadata.values()}
    if len(sets) > 1 or len(checkpoints) > 1:
        files = " and ".join(f"{name}.onnx" for name in metadata)
        raise InputError(f"{folder}: {files} come from different exports", EXPORT_AGAIN)


def common_metadata(description: Description) -> dict[str, str]:
    """Returns the metadata that all graphs carry, by name without the prefix `vaezoo.`.

    Names with a dot are ONNX's own keys and get no prefix.
    """
    data, config, step = description["data"], description["format"], description["checkpoint"]["step"]
    entries = {
        "schema": str(SCHEMA),
        "model": description["model"],
        "options": json.dumps(description["options"]),
        "data": data["name"],
        "shape": json.dumps(data["shape"]),
        "kind": data["kind"],
        "classes": json.dumps(data["classes"]),
        "range": "0..255" if config["uint8"] else "0..1" if data["kind"] == "unit" else data["kind"],
        "layout": "NHWC" if config["uint8"] else "NCHW",
        "likelihood": data["likelihood"],
        "latent_shape": json.dumps(description["latent_shape"]),
        "prior": description["prior"] or "custom",
        "mode": description["mode"],
        "dtype": config["dtype"],
        "opset": str(config["opset"]),
        "checkpoint_step": "not known" if step is None else str(step),
        "checkpoint_sha256": description["checkpoint"]["sha256"],
        "license": description["license"] or "not stated",
        "versions": json.dumps(description["versions"]),
    }
    if "latent_scaling" in description:
        entries["latent_scaling"] = json.dumps(description["latent_scaling"])
    if tokenizer := tokenizer_of(data):
        entries["tokenizer"], entries["tokenizer_sha256"] = tokenizer.name, tokenizer.sha256
    if data.get("offset"):
        # Values of the data become the graphs' x by (value - offset) / factor, for each column or channel.
        return entries | {"offset": json.dumps(data["offset"]), "factor": json.dumps(data["factor"])}
    pixel_format = {1: "Gray8", 3: "Rgb8"}.get(data["shape"][0])
    if len(data["shape"]) == 3 and pixel_format and data["kind"] == "unit":  # ONNX's own keys for images
        entries["Image.BitmapPixelFormat"] = pixel_format
        entries["Image.NominalPixelRange"] = "NominalRange_0_255" if config["uint8"] else "Normalized_0_1"
    return entries


def check_metadata(folder: Path, manifest: Manifest, metadata: Mapping[GraphName, Mapping[str, str]]) -> None:
    """Checks that the graphs belong together and that their metadata agree with the manifest.

    Raises:
        InputError: If they do not.
    """
    check_set(folder, metadata, manifest["graphs"])
    expected = {key if "." in key else f"vaezoo.{key}": value for key, value in common_metadata(manifest).items()}
    for name, entries in metadata.items():
        for key, value in expected.items():
            actual = entries.get(key)
            if actual != value:
                short = key.removeprefix("vaezoo.")
                message = f"{folder / MANIFEST} says {short} {safe_repr(value)}, {name}.onnx {safe_repr(actual)}"
                raise InputError(message, EXPORT_AGAIN)
