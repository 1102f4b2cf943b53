"""Malformed runs with matching hashes: for each case a function that changes a run folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forging import join_safetensors, manifest_entry, split_safetensors, update_manifest

from vaezoo.core.json_io import json_bytes
from vaezoo.training import run_files
from vaezoo.training.checkpoint import SCHEMA

Damage = Callable[[Path], object]
Build = Callable[[dict[str, Any], bytes], bytes]  # header and payload of a safetensors file -> the new file
HUGE = 10**400
DEEP = "[" * 100_000
CODE = "__import__('pathlib').Path('canary').write_text('written')"


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


# --- model.safetensors


def weights(build: Build) -> Damage:
    """Rebuilds model.safetensors of each checkpoint and updates the hashes."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            file = checkpoint / "model.safetensors"
            file.write_bytes(build(*split_safetensors(file.read_bytes())))
            update_manifest(checkpoint)

    return damage


def tensor_entry(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the header's entry of the first tensor in place."""

    def build(header: dict[str, Any], payload: bytes) -> bytes:
        change(header[first_name(header)])
        return join_safetensors(header, payload)

    return weights(build)


def first_name(header: dict[str, Any]) -> str:
    return min(name for name in header if name != "__metadata__")


def duplicate_name(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header)
    name = first_name(header)
    return join_safetensors(f"{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}".encode(), payload)


def without_last(header: dict[str, Any], payload: bytes) -> bytes:
    """Leaves out the tensor at the end of the payload."""
    last = max((n for n in header if n != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    start = header.pop(last)["data_offsets"][0]
    return join_safetensors(header, payload[:start])


def with_extra(header: dict[str, Any], payload: bytes) -> bytes:
    """Adds a tensor of one number at the end."""
    end = len(payload)
    extra = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    return join_safetensors(header | {"extra": extra}, payload + b"\0" * 4)


def with_hole(header: dict[str, Any], payload: bytes) -> bytes:
    """Inserts four bytes after the first tensor that belong to no tensor."""
    first, *others = sorted((e for n, e in header.items() if n != "__metadata__"), key=lambda e: e["data_offsets"])
    end = first["data_offsets"][1]
    for entry in others:
        entry["data_offsets"] = [n + 4 for n in entry["data_offsets"]]
    return join_safetensors(header, payload[:end] + b"\0" * 4 + payload[end:])


def renamed(header: dict[str, Any], payload: bytes) -> bytes:
    header["encoder.1.weight\n"] = header.pop(first_name(header))
    return join_safetensors(header, payload)


def empty_tensors(count: int) -> Build:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return lambda header, payload: join_safetensors({str(i): entry for i in range(count)}, b"")


def last_value(value: float) -> Damage:
    return weights(lambda header, payload: join_safetensors(header, payload[:-4] + struct.pack("<f", value)))


def cast(dtype: str, size: int) -> Damage:
    """Changes all weights to another type of `size` bytes, consistently."""

    def build(header: dict[str, Any], payload: bytes) -> bytes:
        for name, entry in header.items():
            if name != "__metadata__":
                entry["dtype"] = dtype
                entry["data_offsets"] = [n * size // 4 for n in entry["data_offsets"]]
        return join_safetensors(header, b"\0" * (len(payload) * size // 4))

    return weights(build)


def header_length(n: int) -> Damage:
    return weights(lambda header, payload: join_safetensors(header, payload, n))


def header_text(header: bytes) -> Damage:
    return weights(lambda _, payload: join_safetensors(header, payload))


def content(data: bytes) -> Damage:
    return weights(lambda header, payload: data)


WEIGHTS: dict[str, Damage] = {
    "empty": content(b""),
    "seven bytes": content(b"\1" * 7),
    "no header": content(bytes(8)),
    "header of 2^63 bytes": header_length(2**63),
    "header of 2^64 - 1 bytes": header_length(2**64 - 1),
    "header of a gibibyte": header_length(2**30),
    "header one byte longer than the file": weights(
        lambda h, p: join_safetensors(h, p, len(json.dumps(h)) + len(p) + 1)
    ),
    "header cut off": header_length(5),
    "header is not JSON": header_text(b"{" * 50),
    "header is a list": header_text(b"[]"),
    "header is not UTF-8": header_text(b'{"\xff\xfe": {}}'),
    "header is deep": header_text(b'{"a":' * 100_000),
    "header with NaN": header_text(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}'),
    "metadata is not text": weights(lambda h, p: join_safetensors(h | {"__metadata__": {"a": [1]}}, p)),
    "header claims ten million names": header_length(700_000_000),
    "100,000 names": weights(empty_tensors(100_000)),
    "15,000 names": weights(empty_tensors(15_000)),
    "no names": weights(empty_tensors(0)),
    "duplicate name": weights(duplicate_name),
    "overlap": tensor_entry(lambda t: t.update(data_offsets=[t["data_offsets"][0] + 4, t["data_offsets"][1] + 4])),
    "hole": weights(with_hole),
    "trailing bytes": weights(lambda h, p: join_safetensors(h, p + b"\0" * 64)),
    "negative offsets": tensor_entry(lambda t: t.update(data_offsets=[-4, 8])),
    "reversed offsets": tensor_entry(lambda t: t["data_offsets"].reverse()),
    "offsets of 2^64": tensor_entry(lambda t: t.update(data_offsets=[2**64, 2**64 + 4])),
    "offsets beyond the file": tensor_entry(lambda t: t.update(data_offsets=[2**40, 2**40 + 4])),
    "one offset": tensor_entry(lambda t: t.update(data_offsets=[0])),
    "shape with one more dimension": tensor_entry(lambda t: t.update(shape=[*t["shape"], 1])),
    "negative shape": tensor_entry(lambda t: t.update(shape=[-1])),
    "fractional shape": tensor_entry(lambda t: t.update(shape=[1.5])),
    "shape that overflows": tensor_entry(lambda t: t.update(shape=[2**32, 2**32, 2**32])),
    "shape of 10,000 dimensions": tensor_entry(lambda t: t.update(shape=[1] * 10_000)),
    "shape is text": tensor_entry(lambda t: t.update(shape=CODE)),
    "unknown dtype": tensor_entry(lambda t: t.update(dtype="F7")),
    "dtype is code": tensor_entry(lambda t: t.update(dtype=CODE)),
    "float16": cast("F16", 2),
    "float64": cast("F64", 8),
    "int32": cast("I32", 4),
    "float8": cast("F8_E4M3", 1),
    "extra tensor": weights(with_extra),
    "missing tensor": weights(without_last),
    "renamed tensor": weights(renamed),
    "NaN": last_value(float("nan")),
    "infinity": last_value(float("inf")),
    "minus infinity": last_value(float("-inf")),
}


# --- manifest.json


def manifest(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes each manifest in place, or replaces it with the bytes that `change` returns."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            record = json.loads((checkpoint / "manifest.json").read_text())
            result = change(record)
            (checkpoint / "manifest.json").write_bytes(result if isinstance(result, bytes) else json_bytes(record))

    return damage


def extra_file(name: str) -> Damage:
    """Lists a file of another name. If it exists, seen from the checkpoint, its hash is right."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            target = checkpoint / name
            readable = "\0" not in name and len(name) < 200 and target.is_file()
            record = json.loads((checkpoint / "manifest.json").read_text())
            record["files"][name] = manifest_entry(target.read_bytes() if readable else b"")
            (checkpoint / "manifest.json").write_bytes(json_bytes(record))

    return damage


def weights_entry(**changes: object) -> Damage:
    """Changes the manifest's entry of the weights."""
    return manifest(lambda record: record["files"]["model.safetensors"].update(changes))


MANIFEST: dict[str, Damage] = {
    "parent folder": extra_file("../../run.json"),
    "absolute path": extra_file("/etc/passwd"),
    "in a folder": extra_file("a/model.safetensors"),
    "not ASCII": extra_file("modèl.safetensors"),
    "Arabic digit": extra_file("model\u0661.safetensors"),
    "newline": extra_file("model.safetensors\n"),
    "NUL": extra_file("model\0.safetensors"),
    "escape sequence": extra_file("\x1b[2Jmodel.json"),
    "empty name": extra_file(""),
    "long name": extra_file("a" * 10_000 + ".json"),
    "hidden": extra_file(".json"),
    "pickle": extra_file("model.pt"),
    "itself": extra_file("manifest.json"),
    "many files": manifest(
        lambda record: record["files"].update({f"{c}.json": manifest_entry(b"") for c in "abcdefgh"})
    ),
    "no state": manifest(lambda record: record["files"].pop("state.json")),
    "no weights": manifest(lambda record: record["files"].pop("model.safetensors")),
    "no files": manifest(lambda record: record.update(files={})),
    "files is a list": manifest(lambda record: record.update(files=["state.json"])),
    "entry is not an object": manifest(lambda record: record["files"].update({"state.json": "0" * 64})),
    "hash is a number": weights_entry(sha256=0),
    "hash is null": weights_entry(sha256=None),
    "size is text": weights_entry(bytes="1"),
    "size is huge": weights_entry(bytes=HUGE),
    "size is negative": weights_entry(bytes=-1),
    "extra field in an entry": weights_entry(url="http://example.org"),
    "extra field": manifest(lambda record: record.update(more=1)),
    "future schema": manifest(lambda record: record.update(schema=SCHEMA + 1)),
    "schema is text": manifest(lambda record: record.update(schema=str(SCHEMA))),
    "schema is true": manifest(lambda record: record.update(schema=True)),
    "no schema": manifest(lambda record: record.pop("schema")),
    "trailing space": manifest(lambda record: json_bytes(record) + b" "),
    "byte order mark": manifest(lambda record: b"\xef\xbb\xbf" + json_bytes(record)),
    "deep": manifest(lambda record: DEEP.encode()),
    "two megabytes": manifest(lambda record: b" " * (1 << 21)),
    "duplicate key": manifest(lambda record: b'{"files": {}, ' + json_bytes(record)[1:]),
    "number of 5,000 digits": manifest(lambda record: b'{"schema": ' + b"9" * 5000 + b"}"),
}


# --- state.json


def state(**changes: object) -> Damage:
    """Changes state.json of each checkpoint."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            record = json.loads((checkpoint / "state.json").read_text()) | changes
            (checkpoint / "state.json").write_text(json.dumps(record))
            update_manifest(checkpoint)

    return damage


def state_text(text: str) -> Damage:
    """Replaces state.json of each checkpoint."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            (checkpoint / "state.json").write_text(text)
            update_manifest(checkpoint)

    return damage


HEAD = f'{{"schema": {SCHEMA}, "step": '
STATE: dict[str, Damage] = {
    "is a list": state_text("[]"),
    "NaN": state_text(HEAD + '0, "metrics": {"elbo": NaN}, "counters": {}}'),
    "1e999": state_text(HEAD + '0, "metrics": {"elbo": 1e999}, "counters": {}}'),
    "duplicate key": state_text(HEAD + '0, "step": 0, "metrics": {}, "counters": {}}'),
    "deep": state_text(DEEP),
    "deep and complete": state_text('{"a":' * 900 + "1" + "}" * 900),
    "number of 5,000 digits": state_text(HEAD + "9" * 5000 + "}"),
    "too large": state_text(" " * (1 << 21)),
    "future schema": state(schema=SCHEMA + 1),
    "no schema": state(schema=None),
    "step of 400 digits": state(step=HUGE),
    "step is true": state(step=True),
    "step is text": state(step="0"),
    "step is a fraction": state(step=0.0),
    "step is null": state(step=None),
    "step of another checkpoint": state(step=99),
    "metrics is a list": state(metrics=[1]),
    "metrics is null": state(metrics=None),
    "metric is text": state(metrics={"elbo": CODE}),
    "metric is true": state(metrics={"elbo": True}),
    "metric of 400 digits": state(metrics={"elbo": HUGE}),
    "metric is an object": state(metrics={"elbo": {"elbo": 1}}),
    "counters is a list": state(counters=[]),
    "counters is null": state(counters=None),
}


# --- names of checkpoint folders


def rename(name: str) -> Damage:
    """Removes all checkpoints but the newest, and gives that one a wrong name."""

    def damage(run: Path) -> None:
        *others, last = checkpoints(run)
        for other in others:
            shutil.rmtree(other)
        last.rename(last.with_name(name))

    return damage


def negative_step(run: Path) -> None:
    state(step=-3)(run)
    rename("step--0000003")(run)


NAMES: dict[str, Damage] = {
    "another step": rename("step-00000099"),
    "fewer digits": rename("step-3"),
    "more digits": rename("step-000000003"),
    "240 digits": rename("step-" + "9" * 240),
    "negative step": negative_step,
    "Arabic digit": rename("step-0000000\u0663"),
    "newline": rename("step-00000003\n"),
    "escape sequence": rename("step-\x1b[2J"),
    "not UTF-8": rename(os.fsdecode(b"step-\xff\xfe")),
}


# --- run.json


def run_record(**changes: object) -> Damage:
    """Changes run.json. NAME__FIELD means a field of the object NAME."""

    def damage(run: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        for name, value in changes.items():
            outer, _, inner = name.partition("__")
            if inner:
                record[outer][inner] = value
            else:
                record[outer] = value
        (run / "run.json").write_text(json.dumps(record))

    return damage


def without_examples(change: Damage) -> Damage:
    """Also removes the examples, which would not fit the change."""

    def damage(run: Path) -> None:
        (run / "examples.safetensors").unlink()
        change(run)

    return damage


IMAGE = [1, 8, 8]
RUN: dict[str, Damage] = {
    "latent_dim of a terabyte": run_record(options__latent_dim=10**11),
    "latent_dim of 2^62": run_record(options__latent_dim=2**62),
    "latent_dim of 400 digits": run_record(options__latent_dim=HUGE),
    "hidden of gigabytes": run_record(options__hidden=[20_000, 20_000]),
    "hidden of exabytes": run_record(options__hidden=[10**9, 10**9]),
    "hidden of 100,000 layers": run_record(options__hidden=[1] * 100_000),
    "hidden of 1,000 layers": run_record(options__hidden=[1] * 1_000),
    "data of terabytes": run_record(data__shape=[10**11]),
    "data size 0 modulo 2^64": run_record(data__shape=[2**32, 2**31, 2]),
    "data size 4 modulo 2^64": without_examples(run_record(data__shape=[5, 3689348814741910324, 1])),
    "image of terabytes": run_record(data__shape=[10**4, 10**4, 10**4]),
    "channels of terabytes": run_record(
        model="vaezoo/conv-vae", options={"channels": [10**6, 10**6]}, data__shape=IMAGE
    ),
    "discriminator of terabytes": run_record(
        model="vaezoo/vae-gan", options={"channels": [10**6, 10**6]}, data__shape=IMAGE
    ),
    "another model": run_record(model="vaezoo/conv-vae", options={}, data__shape=IMAGE),
    "model of gigabytes": run_record(model="vaezoo/conv-vae", options={"latent_dim": 10**8}, data__shape=[3, 256, 256]),
    "unknown model": run_record(model="vaezoo/no-such-vae"),
    "model is a module": run_record(model="vaezoo.models.mlp_vae:SPEC"),
    "model is os.system": run_record(model="os.system"),
    "model is code": run_record(model=CODE),
    "model is a path": run_record(model="../../model"),
    "model of a megabyte": run_record(model="a" * 1_000_000),
    "model with a newline": run_record(model="mlp-vae\n"),
    "model is a list": run_record(model=["vaezoo/mlp-vae"]),
    "unknown option": run_record(options____class__="os.system"),
    "option is code": run_record(options__latent_dim=CODE),
    "activation is a module": run_record(options__activation="torch.nn.ReLU"),
    "activation is code": run_record(options__activation=CODE),
    "negative option of the objective": run_record(model="vaezoo/beta-vae", options={"beta": -1}, data__shape=IMAGE),
    "kind is code": run_record(data__kind=CODE),
    "kind without its likelihood": run_record(data__kind="tokens"),
    "vocabulary of exabytes": run_record(data__kind="tokens", data__likelihood="categorical", data__vocabulary=10**18),
    "vocabulary of 400 digits": run_record(data__vocabulary=HUGE),
    "100,000 columns": run_record(data__kind="table", data__likelihood="table", data__columns=["a:real"] * 100_000),
    "columns are code": run_record(data__kind="table", data__likelihood="table", data__columns=[CODE] * 4),
    "column of 400 digits": run_record(data__kind="table", data__likelihood="table", data__columns=["a:" + "9" * 400]),
    "labels of exabytes": run_record(data__classes=[10**18]),
    "labels below 0": run_record(data__classes=[-1]),
    "classes are text": run_record(data__classes=CODE),
    "symbols without ids": run_record(data__symbols=["a"] * 1_000),
    "likelihood is code": run_record(data__likelihood=CODE),
    "likelihood with NaN": run_record(data__likelihood="gaussian:nan"),
    "likelihood with 1e999": run_record(data__likelihood="gaussian:1e999"),
    "instantiator": run_record(_instantiator="os.system", options___instantiator="os.system"),
    "unknown setting": run_record(training__instantiator="os.system"),
    "optimizer is code": run_record(training__optimizer=CODE),
    "batch size of 400 digits": run_record(training__batch_size=HUGE),
    "negative seed": run_record(training__seed=-1),
    "100,000 milestones": run_record(training__schedule="multistep", training__milestones=[1] * 100_000),
    "future schema": run_record(schema=run_files.SCHEMA + 1),
    "past schema": run_record(schema=run_files.SCHEMA - 1),
    "schema is text": run_record(schema=CODE),
    "schema is true": run_record(schema=True),
    "source is a list": run_record(source=["digits"]),
}


# --- other things in the place of files


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def sparse_terabyte(path: Path) -> None:
    with path.open("wb") as f:
        f.truncate(1 << 40)


def link_outside(path: Path) -> None:
    path.symlink_to("/etc/passwd")


REPLACEMENTS = (fifo, folder, unix_socket, endless, link_to_itself, sparse_terabyte, link_outside)
CHECKPOINT_FILES = ("model.safetensors", "training.safetensors", "state.json", "manifest.json")


def replaced(name: str, create: Callable[[Path], None]) -> Damage:
    """Puts something else in the place of a file of each checkpoint, or of the run."""

    def damage(run: Path) -> None:
        for place in checkpoints(run) if name in CHECKPOINT_FILES else [run]:
            (place / name).unlink()
            create(place / name)

    return damage


FILES = {
    f"{name} {create.__name__}": replaced(name, create)
    for name in (*CHECKPOINT_FILES, "run.json")
    for create in REPLACEMENTS
}
SETS = {"weights": WEIGHTS, "manifest": MANIFEST, "state": STATE, "names": NAMES, "run": RUN, "files": FILES}
MALFORMED = {f"{group}: {name}": damage for group, cases in SETS.items() for name, damage in cases.items()}
# A model that is not installed is not damage: the exit code differs.
UNKNOWN_MODEL = {
    *("run: unknown model", "run: model is a module", "run: model is os.system", "run: model is code"),
    *("run: model is a path", "run: model of a megabyte", "run: model with a newline"),
}


# --- counters, which only a resumed training reads


def counters(**changes: object) -> Damage:
    """Changes the counters of each checkpoint. The value MISSING removes one."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            record = json.loads((checkpoint / "state.json").read_text())
            record["counters"] = {k: v for k, v in (record["counters"] | changes).items() if v is not MISSING}
            (checkpoint / "state.json").write_text(json.dumps(record))
            update_manifest(checkpoint)

    return damage


def training_header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the header of training.safetensors in each checkpoint in place."""

    def damage(run: Path) -> None:
        for checkpoint in checkpoints(run):
            file = checkpoint / "training.safetensors"
            header, payload = split_safetensors(file.read_bytes())
            change(header)
            file.write_bytes(join_safetensors(header, payload))
            update_manifest(checkpoint)

    return damage


MISSING = object()
NUMBERS = ("global_step", "last_eval_step", "wait_count", "window_start", "log_bytes")
COUNTERS: dict[str, Damage] = {
    **{f"{name} of 400 digits": counters(**{name: HUGE}) for name in NUMBERS if name != "log_bytes"},
    **{f"{name} far below 0": counters(**{name: -HUGE}) for name in NUMBERS},
    **{f"{name} is true": counters(**{name: True}) for name in NUMBERS},
    **{f"{name} is text": counters(**{name: "1"}) for name in NUMBERS},
    **{f"{name} is a fraction": counters(**{name: 1.0}) for name in NUMBERS},
    **{f"{name} is missing": counters(**{name: MISSING}) for name in (*NUMBERS, "best_metric", "metric_names")},
    "global_step of another step": counters(global_step=4),
    "last_eval_step in the future": counters(last_eval_step=4),
    "window_start in the future": counters(window_start=4),
    "best_metric NaN": counters(best_metric="nan"),
    "best_metric infinite": counters(best_metric="inf"),
    "best_metric is true": counters(best_metric=True),
    "best_metric of 400 digits": counters(best_metric=HUGE),
    "best_metric is a list": counters(best_metric=[1]),
    "metric_names is text": counters(metric_names="elbo"),
    "metric_names is empty": counters(metric_names=[]),
    "100,000 metric_names": counters(metric_names=["elbo"] * 100_000),
    "metric_names are numbers": counters(metric_names=[1, 2, 3]),
    "metric_names are lists": counters(metric_names=[["elbo"]] * 3),
    "missing optimizer state": training_header(lambda header: header.pop("vae.0.exp_avg")),
    "optimizer state of another shape": training_header(lambda header: header["vae.0.exp_avg"]["shape"].reverse()),
}


# --- result.json and examples.safetensors

RESULT = {"split": "test", "step": 2, "metrics": {"elbo": -1.0, "reconstruction": 1.0, "kl": 0.0}}
RESULTS = {
    "is a list": [],
    "is empty": {},
    "split is a number": RESULT | {"split": 5},
    "split is missing": {"step": 2, "metrics": RESULT["metrics"]},
    "step is text": RESULT | {"step": "2"},
    "metrics is a list": RESULT | {"metrics": ["elbo"]},
    "metrics is empty": RESULT | {"metrics": {}},
    "metrics are text": RESULT | {"metrics": {"elbo": CODE, "reconstruction": "1", "kl": "0"}},
    "metric of 400 digits": RESULT | {"metrics": {"elbo": HUGE, "reconstruction": 1, "kl": 0}},
    "deep": None,
}

PIXELS = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}
LABELS = {"dtype": "I64", "shape": [2], "data_offsets": [32, 48]}
LABELLED = {"x": PIXELS}
EXAMPLES = {
    "damaged": b"x",
    "another name": join_safetensors({"y": PIXELS}, bytes(32)),
    "no examples": join_safetensors({"x": PIXELS | {"shape": [0, 4], "data_offsets": [0, 0]}}, b""),
    "another shape": join_safetensors({"x": PIXELS | {"shape": [4, 2]}}, bytes(32)),
    "no shape": join_safetensors({"x": PIXELS | {"shape": [], "data_offsets": [0, 4]}}, bytes(4)),
    "NaN": join_safetensors({"x": PIXELS}, struct.pack("<f", float("nan")) * 8),
    "int32": join_safetensors({"x": PIXELS | {"dtype": "I32"}}, bytes(32)),
    "complex": join_safetensors({"x": PIXELS | {"dtype": "C64", "shape": [1, 4]}}, bytes(32)),
    "tokens": join_safetensors({"x": PIXELS | {"dtype": "I64", "shape": [1, 4]}}, bytes(32)),
    "more labels": join_safetensors(LABELLED | {"y": LABELS | {"shape": [4], "data_offsets": [32, 64]}}, bytes(64)),
    "labels are floats": join_safetensors(LABELLED | {"y": LABELS | {"dtype": "F64"}}, bytes(48)),
    "one label": join_safetensors(LABELLED | {"y": LABELS | {"shape": [], "data_offsets": [32, 40]}}, bytes(40)),
    "labels of three dimensions": join_safetensors(LABELLED | {"y": LABELS | {"shape": [2, 1, 1]}}, bytes(48)),
    "duplicate name": join_safetensors(
        b'{"x": ' + json.dumps(PIXELS).encode() + b', "x": ' + json.dumps(PIXELS).encode() + b"}", bytes(32)
    ),
}
