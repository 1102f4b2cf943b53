"""The checks of a parsed manifest.json: that it has the fields of `Manifest`, and that they fit each other."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from vaezoo.core.tables import columns_of, parse_model_column
from vaezoo.core.tokenizer import check_tokenizer
from vaezoo.errors import safe_repr
from vaezoo.runtime.manifest import ENCODER_DECODER, has_shape

GRAPH_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")  # it becomes the name of a file
PRIORS = ("standard-normal", "graph", "autoregressive", None)
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
MAX_RATE = 1_000_000  # samples in a second


def check_fields(manifest: Mapping[str, Any]) -> None:
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
        (manifest["format"].get("waveform", False), bool),
        (manifest["checkpoint"]["step"], int | None),
        (manifest["checkpoint"]["sha256"], str),
        (manifest["binarize"], str),
        (manifest["license"], str | None),
        (manifest["weights_license"], str | None),
        (manifest.get("left_out", ""), str),
        (manifest.get("imported", ""), str),
        (manifest.get("first_imported", ""), str),
        (manifest.get("float32", {}), dict),
        (manifest.get("latent_scaling", {}), dict),
        (manifest.get("latent_levels", []), list),
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
    _check_levels(manifest)
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
    if decoder and not has_shape(manifest["latent_shape"], decoder["inputs"][0]["shape"][1:]):
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
    if (greedy := manifest["graphs"].get("greedy")) is not None:
        wanted = [["batch", manifest["autoregressive"]["length"]]]
        if greedy["inputs"][0]["name"] != "z" or [output["shape"] for output in greedy["outputs"]] != wanted:
            raise ValueError("the graph greedy does not take z and return ids")


def _check_levels(manifest: Mapping[str, Any]) -> None:
    """Raises an error unless the levels of z are `LevelEntry`s that add up to z."""
    levels = manifest.get("latent_levels", [])
    for level in levels:
        _check_shape(level["shape"])
        _check_shape([level["codes"] + 1])  # 0 stands for real numbers
        if not isinstance(level["name"], str) or not level["name"].isprintable():
            raise ValueError(f"{safe_repr(level['name'])} is not the name of a level")
    if levels and sum(math.prod(level["shape"]) for level in levels) != math.prod(manifest["latent_shape"]):
        raise ValueError(f"the levels do not add up to latent_shape {manifest['latent_shape']}")


def _check_data(data: Mapping[str, Any]) -> None:
    """Raises an error unless these are the fields of `DataEntry`, and fit each other."""
    _check_shape(data["shape"])
    _check_shape(data["classes"])
    names, column_names = data.get("class_names", []), data.get("column_names", [])
    texts_by_key = {"columns": data["columns"], "symbols": data["symbols"]}
    for key, texts in (*texts_by_key.items(), ("class_names", names), ("column_names", column_names)):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{key} {safe_repr(texts)} are not texts")
    labels = _label_names(data)
    if not all(name.isprintable() for name in (*names, *column_names, *chain(*labels))):
        raise ValueError("the name of a class or column cannot be printed")
    if names and data["classes"] != [len(names)]:
        raise ValueError(f"there are {len(names)} class names for labels of {data['classes']} values")
    if labels and (len(labels) < 2 or data["classes"] != [len({*own}) for own in labels]):
        raise ValueError(f"there are names of {len(labels)} labels for labels of {data['classes']} values")
    for key in ("time_column", "layer", "label_column"):
        if not isinstance(data.get(key, ""), str):
            raise TypeError(f"{key} {safe_repr(data[key])} is not a text")
    rate = data.get("sample_rate", 0)
    if type(rate) is not int or not 0 <= rate <= MAX_RATE or (rate and len(data["shape"]) not in (2, 3)):
        raise ValueError(f"sample_rate {safe_repr(rate)} is out of range, or the data are not sound")
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


def _label_names(data: Mapping[str, Any]) -> list[list[str]]:
    """Returns the names of the values of each of several labels. Raises TypeError unless they are texts."""
    labels: list[list[str]] = data.get("label_names", [])
    if not isinstance(labels, list) or not all(isinstance(names, list) for names in labels):
        raise TypeError(f"label_names {safe_repr(labels)} are not lists")
    if not all(isinstance(name, str) for names in labels for name in names):
        raise TypeError(f"label_names {safe_repr(labels)} are not texts")
    return labels


def _check_formats(data: Mapping[str, Any]) -> None:
    """Raises an error unless the cells of a table are described for each column, or for none."""
    lists = [data.get("column_formats", []), data.get("left_out", []), *data.get("categories", [])]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
        raise TypeError("the formats of columns are not texts")
    if data.get("column_formats") or data.get("categories"):
        columns_of(data["columns"], data["column_formats"], data["categories"])


def _check_scaling(data: Mapping[str, Any]) -> None:
    """Raises an error unless data have a number of each kind for each column or channel, or none."""
    offset, factor = data.get("offset", []), data.get("factor", [])
    for numbers in (offset, factor):
        if not isinstance(numbers, list) or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
            raise TypeError(f"scaling {safe_repr(numbers)} is not a list of numbers")
    if len(offset) != len(factor) or len(offset) not in (0, data["shape"][0]) or not all(n > 0 for n in factor):
        raise ValueError("the scaling does not fit the shape, or divides by 0")


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


def _check_shape(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(n, int) and 0 < n < 2**31 for n in value):
        raise ValueError(f"{safe_repr(value)} is not a shape")
