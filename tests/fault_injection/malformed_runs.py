"""What an enemy may make of a run, hashes and all: for each case a function that does it to a run folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forging import entry, put_together, seal, taken_apart

from vaezoo.core.json_io import json_bytes

Damage = Callable[[Path], object]
HUGE = 10**400
DEEP = "[" * 100_000
CODE = "__import__('pathlib').Path('canary').write_text('written')"


def steps(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def weights(make: Callable[[dict[str, Any], bytes], bytes]) -> Damage:
    """Changes model.safetensors of each checkpoint, header and payload, and the hashes with it."""

    def damage(run: Path) -> None:
        for step in steps(run):
            file = step / "model.safetensors"
            file.write_bytes(make(*taken_apart(file)))
            seal(step)

    return damage


def tensor(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes what the header says of one tensor, the first."""

    def make(header: dict[str, Any], payload: bytes) -> bytes:
        change(header[first(header)])
        return put_together(header, payload)

    return weights(make)


def first(header: dict[str, Any]) -> str:
    return min(name for name in header if name != "__metadata__")


def twice(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header)
    name = first(header)
    return put_together(f"{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}".encode(), payload)


def without(header: dict[str, Any], payload: bytes) -> bytes:
    """Leaves out the tensor whose bytes come last."""
    last = max((n for n in header if n != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    start = header.pop(last)["data_offsets"][0]
    return put_together(header, payload[:start])


def more(header: dict[str, Any], payload: bytes) -> bytes:
    end = len(payload)
    return put_together(
        header | {"more": {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}}, payload + b"\0" * 4
    )


def renamed(header: dict[str, Any], payload: bytes) -> bytes:
    header["encoder.1.weight\n"] = header.pop(first(header))
    return put_together(header, payload)


def names(count: int) -> Callable[[dict[str, Any], bytes], bytes]:
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return lambda header, payload: put_together({str(i): nothing for i in range(count)}, b"")


def valued(value: float) -> Damage:
    return weights(lambda header, payload: put_together(header, payload[:-4] + struct.pack("<f", value)))


def cast(dtype: str, size: int) -> Damage:
    """All weights of another type, consistently."""

    def make(header: dict[str, Any], payload: bytes) -> bytes:
        for name, told in header.items():
            if name != "__metadata__":
                told["dtype"] = dtype
                told["data_offsets"] = [n * size // 4 for n in told["data_offsets"]]
        return put_together(header, b"\0" * (len(payload) * size // 4))

    return weights(make)


def length(n: int) -> Damage:
    return weights(lambda header, payload: put_together(header, payload, n))


def raw(content: bytes) -> Damage:
    return weights(lambda header, payload: content)


def text(header: bytes) -> Damage:
    return weights(lambda _, payload: put_together(header, payload))


WEIGHTS: dict[str, Damage] = {
    "empty": raw(b""),
    "seven bytes": raw(b"\1" * 7),
    "no header": raw(bytes(8)),
    "header of 2^63": length(2**63),
    "header of 2^64 - 1": length(2**64 - 1),
    "header of a gibibyte": length(2**30),
    "header as long as the file and one more": weights(
        lambda h, p: put_together(h, p, len(json.dumps(h)) + len(p) + 1)
    ),
    "header that ends early": length(5),
    "header no JSON": text(b"{" * 50),
    "header a list": text(b"[]"),
    "header not UTF-8": text(b'{"\xff\xfe": {}}'),
    "header deep": text(b'{"a":' * 100_000),
    "header with NaN": text(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}'),
    "metadata no texts": weights(lambda h, p: put_together(h | {"__metadata__": {"a": [1]}}, p)),
    "ten million names, claimed": length(700_000_000),
    "100,000 names": weights(names(100_000)),
    "15,000 names": weights(names(15_000)),
    "no names": weights(names(0)),
    "a name twice": weights(twice),
    "overlap": tensor(lambda t: t.update(data_offsets=[t["data_offsets"][0] + 4, t["data_offsets"][1] + 4])),
    "hole": weights(lambda h, p: without(*_apart(more(h, p), drop="more"))),
    "bytes behind": weights(lambda h, p: put_together(h, p + b"\0" * 64)),
    "offsets negative": tensor(lambda t: t.update(data_offsets=[-4, 8])),
    "offsets backwards": tensor(lambda t: t["data_offsets"].reverse()),
    "offsets of 2^64": tensor(lambda t: t.update(data_offsets=[2**64, 2**64 + 4])),
    "offsets far away": tensor(lambda t: t.update(data_offsets=[2**40, 2**40 + 4])),
    "one offset": tensor(lambda t: t.update(data_offsets=[0])),
    "shape turned": tensor(lambda t: t.update(shape=[*t["shape"], 1])),
    "shape negative": tensor(lambda t: t.update(shape=[-1])),
    "shape of fractions": tensor(lambda t: t.update(shape=[1.5])),
    "shape that overflows": tensor(lambda t: t.update(shape=[2**32, 2**32, 2**32])),
    "shape of 10,000 dimensions": tensor(lambda t: t.update(shape=[1] * 10_000)),
    "shape a text": tensor(lambda t: t.update(shape=CODE)),
    "type unknown": tensor(lambda t: t.update(dtype="F7")),
    "type code": tensor(lambda t: t.update(dtype=CODE)),
    "half precision": cast("F16", 2),
    "double precision": cast("F64", 8),
    "whole numbers": cast("I32", 4),
    "8 bits": cast("F8_E4M3", 1),
    "a tensor more": weights(more),
    "a tensor less": weights(without),
    "a tensor renamed": weights(renamed),
    "NaN": valued(float("nan")),
    "infinity": valued(float("inf")),
    "minus infinity": valued(float("-inf")),
}


def _apart(content: bytes, drop: str) -> tuple[dict[str, Any], bytes]:
    """Takes a file apart and leaves out what the header says of one tensor."""
    (n,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + n])
    del header[drop]
    return header, content[8 + n :]


def manifest(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(run: Path) -> None:
        for step in steps(run):
            told = json.loads((step / "manifest.json").read_text())
            result = change(told)
            (step / "manifest.json").write_bytes(result if isinstance(result, bytes) else json_bytes(told))

    return damage


def listed(name: str) -> Damage:
    """A file of another name, with the hash that it has if it is followed from the checkpoint."""

    def change(told: dict[str, Any], step: Path) -> None:
        target = step / name
        readable = "\0" not in name and len(name) < 200 and target.is_file()
        told["files"][name] = entry(target.read_bytes() if readable else b"")

    def damage(run: Path) -> None:
        for step in steps(run):
            told = json.loads((step / "manifest.json").read_text())
            change(told, step)
            (step / "manifest.json").write_bytes(json_bytes(told))

    return damage


def said(**change: object) -> Damage:
    """Changes what the manifest says of the weights."""
    return manifest(lambda told: told["files"]["model.safetensors"].update(change))


MANIFEST: dict[str, Damage] = {
    "up": listed("../../run.json"),
    "elsewhere": listed("/etc/passwd"),
    "in a folder": listed("a/model.safetensors"),
    "not ASCII": listed("modèl.safetensors"),
    "other digits": listed("model\u0661.safetensors"),
    "newline": listed("model.safetensors\n"),
    "NUL": listed("model\0.safetensors"),
    "escape": listed("\x1b[2Jmodel.json"),
    "no name": listed(""),
    "long name": listed("a" * 10_000 + ".json"),
    "hidden": listed(".json"),
    "pickle": listed("model.pt"),
    "itself": listed("manifest.json"),
    "many files": manifest(lambda told: told["files"].update({f"{c}.json": entry(b"") for c in "abcdefgh"})),
    "no state": manifest(lambda told: told["files"].pop("state.json")),
    "no weights": manifest(lambda told: told["files"].pop("model.safetensors")),
    "no files": manifest(lambda told: told.update(files={})),
    "files a list": manifest(lambda told: told.update(files=["state.json"])),
    "entry no object": manifest(lambda told: told["files"].update({"state.json": "0" * 64})),
    "hash a number": said(sha256=0),
    "hash none": said(sha256=None),
    "size a text": said(bytes="1"),
    "size huge": said(bytes=HUGE),
    "size negative": said(bytes=-1),
    "an entry more": said(url="http://example.org"),
    "a field more": manifest(lambda told: told.update(more=1)),
    "schema of the future": manifest(lambda told: told.update(schema=2)),
    "schema a text": manifest(lambda told: told.update(schema="1")),
    "schema true": manifest(lambda told: told.update(schema=True)),
    "no schema": manifest(lambda told: told.pop("schema")),
    "a space more": manifest(lambda told: json_bytes(told) + b" "),
    "byte order mark": manifest(lambda told: b"\xef\xbb\xbf" + json_bytes(told)),
    "deep": manifest(lambda told: DEEP.encode()),
    "two megabytes": manifest(lambda told: b" " * (1 << 21)),
    "names twice": manifest(lambda told: b'{"files": {}, ' + json_bytes(told)[1:]),
    "a number of 5,000 digits": manifest(lambda told: b'{"schema": ' + b"9" * 5000 + b"}"),
}


def state(**change: object) -> Damage:
    """Changes state.json of each checkpoint."""

    def damage(run: Path) -> None:
        for step in steps(run):
            told = json.loads((step / "state.json").read_text()) | change
            (step / "state.json").write_text(json.dumps(told))
            seal(step)

    return damage


def state_text(content: str) -> Damage:
    def damage(run: Path) -> None:
        for step in steps(run):
            (step / "state.json").write_text(content)
            seal(step)

    return damage


STATE: dict[str, Damage] = {
    "no object": state_text("[]"),
    "NaN": state_text('{"schema": 1, "step": 0, "metrics": {"elbo": NaN}, "counters": {}}'),
    "1e999": state_text('{"schema": 1, "step": 0, "metrics": {"elbo": 1e999}, "counters": {}}'),
    "a name twice": state_text('{"schema": 1, "step": 0, "step": 0, "metrics": {}, "counters": {}}'),
    "deep": state_text(DEEP),
    "deep, and whole": state_text('{"a":' * 900 + "1" + "}" * 900),
    "a number of 5,000 digits": state_text('{"schema": 1, "step": ' + "9" * 5000 + "}"),
    "too large": state_text(" " * (1 << 21)),
    "schema of the future": state(schema=2),
    "no schema": state(schema=None),
    "step of 400 digits": state(step=HUGE),
    "step true": state(step=True),
    "step a text": state(step="0"),
    "step a fraction": state(step=0.0),
    "step none": state(step=None),
    "step of another": state(step=99),
    "metrics a list": state(metrics=[1]),
    "metrics none": state(metrics=None),
    "metrics texts": state(metrics={"elbo": CODE}),
    "metrics true": state(metrics={"elbo": True}),
    "metrics of 400 digits": state(metrics={"elbo": HUGE}),
    "metrics of metrics": state(metrics={"elbo": {"elbo": 1}}),
    "counters a list": state(counters=[]),
    "counters none": state(counters=None),
}


def rename(name: str) -> Damage:
    """All checkpoints but this one away, and this one under a name that lies."""

    def damage(run: Path) -> None:
        *others, last = steps(run)
        for other in others:
            shutil.rmtree(other)
        last.rename(last.with_name(name))

    return damage


def negative(run: Path) -> None:
    state(step=-3)(run)
    rename("step--0000003")(run)


NAMES: dict[str, Damage] = {
    "of another step": rename("step-00000099"),
    "of fewer digits": rename("step-3"),
    "of more digits": rename("step-000000003"),
    "of 240 digits": rename("step-" + "9" * 240),
    "of a negative step": negative,
    "of other digits": rename("step-0000000\u0663"),
    "with a newline": rename("step-00000003\n"),
    "with an escape": rename("step-\x1b[2J"),
    "not UTF-8": rename(os.fsdecode(b"step-\xff\xfe")),
}


def described(**change: object) -> Damage:
    """Changes run.json; NAME__FIELD reaches inside."""

    def damage(run: Path) -> None:
        told = json.loads((run / "run.json").read_text())
        for name, value in change.items():
            outer, _, inner = name.partition("__")
            if inner:
                told[outer][inner] = value
            else:
                told[outer] = value
        (run / "run.json").write_text(json.dumps(told))

    return damage


def without_examples(change: Damage) -> Damage:
    """Takes away what would not fit the change."""

    def damage(run: Path) -> None:
        (run / "examples.safetensors").unlink()
        change(run)

    return damage


RUN: dict[str, Damage] = {
    "latent_dim of a terabyte": described(options__latent_dim=10**11),
    "latent_dim of 2^62": described(options__latent_dim=2**62),
    "latent_dim of 400 digits": described(options__latent_dim=HUGE),
    "hidden of gigabytes": described(options__hidden=[20_000, 20_000]),
    "hidden of exabytes": described(options__hidden=[10**9, 10**9]),
    "hidden of 100,000 layers": described(options__hidden=[1] * 100_000),
    "hidden of 1,000 layers": described(options__hidden=[1] * 1_000),
    "data of terabytes": described(data__shape=[10**11]),
    "data whose size is 0 in 64 bits": described(data__shape=[2**32, 2**31, 2]),
    "data whose size is 4 in 64 bits": without_examples(described(data__shape=[5, 3689348814741910324, 1])),
    "an image of terabytes": described(data__shape=[10**4, 10**4, 10**4]),
    "channels of terabytes": described(
        model="vaezoo/conv-vae", options={"channels": [10**6, 10**6]}, data__shape=[1, 8, 8]
    ),
    "a discriminator of terabytes": described(
        model="vaezoo/vae-gan", options={"channels": [10**6, 10**6]}, data__shape=[1, 8, 8]
    ),
    "another model": described(model="vaezoo/conv-vae", options={}, data__shape=[1, 8, 8]),
    "a model of gigabytes": described(
        model="vaezoo/conv-vae", options={"latent_dim": 10**8}, data__shape=[3, 256, 256]
    ),
    "model unknown": described(model="vaezoo/no-such-vae"),
    "model of a module": described(model="vaezoo.models.mlp_vae:SPEC"),
    "model of os": described(model="os.system"),
    "model code": described(model=CODE),
    "model a path": described(model="../../model"),
    "model of a megabyte": described(model="a" * 1_000_000),
    "model with a newline": described(model="mlp-vae\n"),
    "model a list": described(model=["vaezoo/mlp-vae"]),
    "option unknown": described(options____class__="os.system"),
    "option code": described(options__latent_dim=CODE),
    "activation a module": described(options__activation="torch.nn.ReLU"),
    "activation code": described(options__activation=CODE),
    "objective's option negative": described(model="vaezoo/beta-vae", options={"beta": -1}, data__shape=[1, 8, 8]),
    "likelihood code": described(data__likelihood=CODE),
    "likelihood with NaN": described(data__likelihood="gaussian:nan"),
    "likelihood with 1e999": described(data__likelihood="gaussian:1e999"),
    "instantiator": described(_instantiator="os.system", options___instantiator="os.system"),
    "training unknown": described(training__instantiator="os.system"),
    "optimizer code": described(training__optimizer=CODE),
    "batch of 400 digits": described(training__batch_size=HUGE),
    "seed negative": described(training__seed=-1),
    "milestones of 100,000": described(training__schedule="multistep", training__milestones=[1] * 100_000),
    "schema of the future": described(schema=2),
    "schema a text": described(schema=CODE),
    "schema true": described(schema=True),
    "source a list": described(source=["digits"]),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def itself(path: Path) -> None:
    path.symlink_to(path)


def sparse(path: Path) -> None:
    with path.open("wb") as f:
        f.truncate(1 << 40)


def secret(path: Path) -> None:
    path.symlink_to("/etc/passwd")


KINDS = (fifo, folder, listening, zeros, itself, sparse, secret)
HASHED = ("model.safetensors", "training.safetensors", "state.json", "manifest.json")


def replaced(name: str, make: Callable[[Path], None]) -> Damage:
    """Puts something else in the place of a file of each checkpoint, or of the run."""

    def damage(run: Path) -> None:
        for place in steps(run) if name in HASHED else [run]:
            (place / name).unlink()
            make(place / name)

    return damage


FILES = {f"{name} {make.__name__}": replaced(name, make) for name in (*HASHED, "run.json") for make in KINDS}
SETS = {"weights": WEIGHTS, "manifest": MANIFEST, "state": STATE, "names": NAMES, "run": RUN, "files": FILES}
UNKNOWN = {f"run: model {name}" for name in ("unknown", "of a module", "of os", "code", "a path", "of a megabyte")}
UNKNOWN |= {"run: model with a newline"}  # a model that is not installed is no damage
REFUSED = [(f"{which}: {name}", damage) for which, cases in SETS.items() for name, damage in cases.items()]


def counted(**change: object) -> Damage:
    """Changes the counters of each checkpoint; a None takes one away."""

    def damage(run: Path) -> None:
        for step in steps(run):
            told = json.loads((step / "state.json").read_text())
            told["counters"] = {name: v for name, v in (told["counters"] | change).items() if v is not GONE}
            (step / "state.json").write_text(json.dumps(told))
            seal(step)

    return damage


def trained(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the header of training.safetensors in each checkpoint."""

    def damage(run: Path) -> None:
        for step in steps(run):
            file = step / "training.safetensors"
            header, payload = taken_apart(file)
            change(header)
            file.write_bytes(put_together(header, payload))
            seal(step)

    return damage


GONE = object()
NUMBERS = ("done", "evaluated", "waited", "first", "log")
COUNTERS: dict[str, Damage] = {
    **{f"{name} of 400 digits": counted(**{name: HUGE}) for name in NUMBERS if name != "log"},
    **{f"{name} far below 0": counted(**{name: -HUGE}) for name in NUMBERS},
    **{f"{name} true": counted(**{name: True}) for name in NUMBERS},
    **{f"{name} a text": counted(**{name: "1"}) for name in NUMBERS},
    **{f"{name} a fraction": counted(**{name: 1.0}) for name in NUMBERS},
    **{f"{name} gone": counted(**{name: GONE}) for name in (*NUMBERS, "best", "names")},
    "done one more": counted(done=4),
    "evaluated later": counted(evaluated=4),
    "first later": counted(first=4),
    "best NaN": counted(best="nan"),
    "best infinite": counted(best="inf"),
    "best true": counted(best=True),
    "best of 400 digits": counted(best=HUGE),
    "best a list": counted(best=[1]),
    "names a text": counted(names="elbo"),
    "names none": counted(names=[]),
    "100,000 names": counted(names=["elbo"] * 100_000),
    "names numbers": counted(names=[1, 2, 3]),
    "names lists": counted(names=[["elbo"]] * 3),
    "a moment less": trained(lambda header: header.pop("vae.0.exp_avg")),
    "a moment of another shape": trained(lambda header: header["vae.0.exp_avg"]["shape"].reverse()),
}

RESULT = {"split": "test", "step": 2, "metrics": {"elbo": -1.0, "reconstruction": 1.0, "kl": 0.0}}
RESULTS = {
    "no object": [],
    "empty": {},
    "split a number": RESULT | {"split": 5},
    "split gone": {"step": 2, "metrics": RESULT["metrics"]},
    "step a text": RESULT | {"step": "2"},
    "metrics a list": RESULT | {"metrics": ["elbo"]},
    "metrics empty": RESULT | {"metrics": {}},
    "metrics texts": RESULT | {"metrics": {"elbo": CODE, "reconstruction": "1", "kl": "0"}},
    "metrics of 400 digits": RESULT | {"metrics": {"elbo": HUGE, "reconstruction": 1, "kl": 0}},
    "deep": None,
}

PIXELS = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}
EXAMPLES = {
    "damaged": b"x",
    "other names": put_together({"y": PIXELS}, bytes(32)),
    "none": put_together({"x": PIXELS | {"shape": [0, 4], "data_offsets": [0, 0]}}, b""),
    "another shape": put_together({"x": PIXELS | {"shape": [4, 2]}}, bytes(32)),
    "no shape": put_together({"x": PIXELS | {"shape": [], "data_offsets": [0, 4]}}, bytes(4)),
    "NaN": put_together({"x": PIXELS}, struct.pack("<f", float("nan")) * 8),
    "whole numbers": put_together({"x": PIXELS | {"dtype": "I32"}}, bytes(32)),
    "complex": put_together({"x": PIXELS | {"dtype": "C64", "shape": [1, 4]}}, bytes(32)),
    "a name twice": put_together(
        b'{"x": ' + json.dumps(PIXELS).encode() + b', "x": ' + json.dumps(PIXELS).encode() + b"}", bytes(32)
    ),
}
