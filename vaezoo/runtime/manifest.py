"""What manifest.json of an export holds: its types, and what follows from them.

export_files.py reads it, and manifest_checks.py checks it. The runtime needs it, so this is without torch and onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from numpy.typing import NDArray

from vaezoo.core.scaling import Scaling
from vaezoo.core.tables import Column, columns_of
from vaezoo.core.tokenizer import Tokenizer

GraphName = str  # "encoder" and "decoder"; "prior" if the prior is a graph; and what a model adds
Array = NDArray[Any]

SCHEMA = 4
MANIFEST = "manifest.json"
CARD = "README.md"
ENCODER_DECODER: tuple[GraphName, ...] = ("encoder", "decoder")
MAX_GRAPH_BYTES = 2**31 - 1  # the limit of one protobuf message
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
    label_names: NotRequired[list[list[str]]]
    column_names: NotRequired[list[str]]
    time_column: NotRequired[str]
    sample_rate: NotRequired[int]
    layer: NotRequired[str]
    label_column: NotRequired[str]
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
    waveform: NotRequired[bool]


class Float32Node(TypedDict):
    """A node of a float16 graph that stays float32, and the largest absolute value of its inputs and outputs."""

    node: str
    operator: str
    largest: float


class LatentScalingEntry(TypedDict):
    """How the latents of the graphs follow from those of the model: z' = (z - shift_factor) * scaling_factor."""

    scaling_factor: float
    shift_factor: float


class LevelEntry(TypedDict):
    """Latents of one kind in the flattened z; see `vaezoo.LatentLevel`.

    They are `prod(shape)` numbers behind those of the levels before. Codes are whole numbers from 0 to `codes - 1`.
    """

    name: str
    shape: list[int]
    codes: int


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
    that the weights were imported from, if they were. `first_imported` is the same for the weights that a training
    began with. `float32` lists nodes of fp16 graphs that stay float32, if there are any. `latent_scaling` is there if
    the latents have another scale than those of the model. `latent_levels` has the levels of z in their order, if they
    are codes.
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
    first_imported: NotRequired[str]
    float32: NotRequired[dict[GraphName, list[Float32Node]]]
    latent_scaling: NotRequired[LatentScalingEntry]
    latent_levels: NotRequired[list[LevelEntry]]
    versions: dict[str, str]


class Manifest(Description):
    """What manifest.json holds."""

    files: dict[str, FileEntry]
    parity: ParityEntry


def example_shape(tensor: TensorSignature) -> tuple[int | str, ...]:
    """Returns the shape of one example of a graph's input or output. A text is a free size."""
    return tuple(tensor["shape"][1:])


def has_shape(shape: Sequence[int], declared: Sequence[int | str]) -> bool:
    """Tells whether a shape is the declared one, in which a text is a free size."""
    return len(shape) == len(declared) and all(
        isinstance(a, str) or a == b for a, b in zip(declared, shape, strict=True)
    )


def table_columns(data: DataEntry) -> list[Column]:
    """Returns the columns of a table with their formats. Empty for other data, and if cells are numbers."""
    formats = data.get("column_formats", [])
    return columns_of(data["columns"], formats, data["categories"]) if formats else []


def column_names(data: DataEntry) -> list[str]:
    """Returns the names of the columns of vectors or of a table. Empty if they have none."""
    return data.get("column_names") or [column.rpartition(":")[0] for column in data["columns"]]


def tokenizer_of(data: DataEntry) -> Tokenizer | None:
    """Returns the map between texts and ids, or None if the data have none."""
    name = data.get("tokenizer", "")
    return Tokenizer(name, tuple(data["symbols"])) if name else None


def names_by_label(data: DataEntry) -> list[list[str]]:
    """Returns the names of the values of each label, also of a single one. Empty if they have no names."""
    names = data.get("class_names", [])
    return [names] if names else data.get("label_names", [])


def scaling_of(data: DataEntry) -> Scaling:
    """Returns how values became x."""
    return Scaling(data["kind"], tuple(data.get("offset", ())), tuple(data.get("factor", ())))
