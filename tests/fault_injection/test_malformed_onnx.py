"""Malicious exports whose hashes all fit are refused, even if the process that opens them crashes."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from factories import WEIGHTS, description, graphs, write_export
from onnx import TensorProto, helper
from selection import every_nth

import vaezoo.runtime
from vaezoo import verify_onnx
from vaezoo.errors import InputError, VaezooError
from vaezoo.export import verify as module
from vaezoo.export.graph_checks import check_structure, parse
from vaezoo.runtime import onnx_vae

GIB = 1 << 30


def refused(folder, **options):
    """Checks that `verify` refuses an export with an error of code 3. Returns its message."""
    with pytest.raises(VaezooError) as e:
        verify_onnx(folder, **options)
    assert e.value.exit_code == 3 and e.value.hint and len(e.value.message) < 2_000
    return e.value.message


def external(**entries):
    """Returns a change that moves the first weights of the encoder to another file."""

    def change(models):
        tensor = models["encoder"].graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))

    return change


def on_encoder(change):
    """Returns a change of the encoder's graph."""
    return lambda models: change(models["encoder"].graph)


def weights(**fields):
    """Returns a change of fields of the encoder's first weights."""

    def change(graph):
        for name, value in fields.items():
            if name == "dims":
                graph.initializer[0].dims[:] = value
            else:
                setattr(graph.initializer[0], name, value)

    return on_encoder(change)


def node(kind, inputs=("x",), outputs=("odd",), **attributes):
    """Returns a change that adds a node to the encoder."""
    return on_encoder(
        lambda graph: graph.node.append(helper.make_node(kind, inputs, outputs, name="odd", **attributes))
    )


def replace_node(kind, **attributes):
    """Returns a change that computes mu with another node."""

    def change(graph):
        graph.node[0].CopyFrom(helper.make_node(kind, ["x"], ["mu"], **attributes))

    return on_encoder(change)


def branch(*inner):
    """Returns a change that adds an If with nodes in its branches."""

    def change(graph):
        graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1])]
        body = helper.make_graph(list(inner), "b", [], out)
        graph.node.append(helper.make_node("If", ["yes"], ["odd"], then_branch=body, else_branch=body))

    return on_encoder(change)


def nested_branches(levels):
    """Returns a change that adds branches within branches."""

    def change(graph):
        inner = helper.make_graph([], "b", [], [])
        for _ in range(levels):
            inner = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=inner)], "b", [], [])
        graph.node.append(helper.make_node("If", ["c"], [], then_branch=inner))

    return on_encoder(change)


def functions(count):
    """Returns a change that adds functions, each of which calls the next one twice."""

    def change(models):
        model = models["encoder"]
        opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        for i in range(count):
            called = ("Add", "") if i == count - 1 else (f"f{i + 1}", "own")
            inputs = ["a", "a"] if called[0] == "Add" else ["a"]
            inner = [helper.make_node(called[0], inputs, [out], domain=called[1]) for out in ("b", "c")]
            inner.append(helper.make_node("Add", ["b", "c"], ["d"]))
            model.functions.append(helper.make_function("own", f"f{i}", ["a"], ["d"], inner, opset))
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node.append(helper.make_node("f0", ["mu"], ["odd"], domain="own"))

    return change


def endless_loop(graph):
    """Adds a loop of 2**62 iterations that computes mu."""
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "c_out": TensorProto.BOOL}
    values = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()}
    values |= {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("v", "v_out")}
    copies = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("c", "v")]
    inputs, outputs = [values[name] for name in ("i", "c", "v")], [values[name] for name in ("c_out", "v_out")]
    body = helper.make_graph(copies, "body", inputs, outputs)
    graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]))
    graph.node[0].output[0] = "before"
    graph.node.append(helper.make_node("Loop", ["rounds", "", "before"], ["mu"], body=body))


def allocate_64_gib(graph):
    """Adds a constant of 64 GiB that computes mu."""
    graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [1 << 34]))
    graph.node[0].output[0] = "before"
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["much"]),
            helper.make_node("ReduceMax", ["much"], ["most"], keepdims=0),
            helper.make_node("Add", ["before", "most"], ["mu"]),
        ]
    )


def duplicate_initializer(graph):
    graph.initializer.append(graph.initializer[0])


def sparse_initializer(graph):
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [10**12])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))


def rename(graph, kind, name):
    return lambda models: setattr(getattr(models[graph].graph, kind)[0], "name", name)


def not_utf8(models):
    """Puts a name that is not UTF-8 into the serialized graph."""
    models["encoder"].graph.output[0].name = "mu"
    data = models["encoder"].SerializeToString().replace(b'\x12\x02mu"\x06MatMul', b'\x12\x02mu"\x06MatMu\xff')
    models["encoder"].ParseFromString(data)


CHANGES = {
    "outside": external(location="../weights.bin"),
    "absolute": external(location="/etc/passwd"),
    "device": external(location="/dev/zero", length=GIB),
    "negative length": external(location="weights.bin", offset=-1, length=-1),
    "huge length": external(location="weights.bin", length=2**63),
    "dunder keys": external(location="weights.bin", __class__="x", __dict__="y"),
    "no place": external(offset=0),
    "claims 2 GiB": weights(dims=[1 << 29]),
    "claims 2**62": weights(dims=[1 << 31, 1 << 31]),
    "negative dims": weights(dims=[-4, -2]),
    "zero dims": weights(dims=[0, 2]),
    "overflowing dims": weights(dims=[1 << 62, 4, 4]),
    "unknown type": weights(data_type=99),
    "text weights": weights(data_type=TensorProto.STRING),
    "too few bytes": weights(raw_data=b"\0" * 3),
    "no bytes": weights(raw_data=b""),
    "other weights": weights(raw_data=b"\0" * WEIGHTS["mu"].nbytes),
    "not a number": weights(raw_data=b"\xff" * WEIGHTS["mu"].nbytes),
    "custom operator": node("Evil", domain="com.evil"),
    "unknown operator": node("NoSuchOperator"),
    "python operator": node("PyOp", domain="pyopmulti_1", module="os", compute="system"),
    "random operator": node("RandomNormal", (), shape=[1]),
    "random in a branch": branch(helper.make_node("RandomUniform", [], ["r"], shape=[1])),
    "zero strides": replace_node("MaxPool", kernel_shape=[1], strides=[0]),
    "negative strides": replace_node("MaxPool", kernel_shape=[1], strides=[-(2**62)]),
    "huge padding": replace_node("Pad", mode="constant"),
    "branches 30 deep": nested_branches(30),
    "functions 3000": functions(3000),
    "functions doubling": functions(40),
    "endless loop": on_encoder(endless_loop),
    "64 GiB": on_encoder(allocate_64_gib),
    "names twice": on_encoder(duplicate_initializer),
    "sparse": on_encoder(sparse_initializer),
    "cycle": node("Identity", ("odd",)),
    "input unknown": node("Relu", ("nowhere",)),
    "no nodes": on_encoder(lambda graph: graph.ClearField("node")),
    "no outputs": on_encoder(lambda graph: graph.ClearField("output")),
    "no input": on_encoder(lambda graph: graph.ClearField("input")),
    "another input": rename("encoder", "input", "y"),
    "another output": rename("decoder", "output", "../x"),
    "control characters": rename("encoder", "output", "\x1b[2J\n" * 1000),
    "no text": not_utf8,
    "no graph": lambda models: models["encoder"].ClearField("graph"),
    "swapped": lambda models: models.update(encoder=models["decoder"], decoder=models["encoder"]),
    "unknown opset": lambda models: setattr(models["encoder"].opset_import[0], "version", 2**31),
    "unknown IR": lambda models: setattr(models["encoder"], "ir_version", 2**31),
}


OUTSIDE = list(CHANGES)[:7]
ENDLESS = {"functions doubling", "endless loop"}  # only the time limit ends them


def test_unchanged_export_passes(tmp_path):
    assert verify_onnx(write_export(tmp_path)).parity
    assert vaezoo.runtime.load(tmp_path).sample(3).shape == (3, 4)


@pytest.mark.parametrize("name", every_nth(3, CHANGES))
def test_malicious_graph_is_refused(tmp_path, name):
    message = refused(write_export(tmp_path, CHANGES[name]), **({"seconds": 3} if name in ENDLESS else {}))
    assert "\x1b" not in message
    assert ("in another file" in message) == (name in OUTSIDE)


FILES = {
    "empty": b"",
    "zeros": b"\0" * 4096,
    "ones": b"\xff" * 4096,
    "python": b"import os; os.abort()",
    "truncated": None,
    "endless varint": b"\x3a" + b"\xff" * 9 + b"\x7f",
    "depth bomb": b"\x3a\x82\x80\x40" * 1000,
    "long field": b"\x3a\xff\xff\xff\xff\x07" + b"\0" * 100,
}


@pytest.mark.parametrize("name", FILES)
def test_malformed_file_is_refused(tmp_path, name):
    def edit(files):
        files["encoder.onnx"] = FILES[name] if FILES[name] is not None else files["encoder.onnx"][:-40]

    folder = write_export(tmp_path, edit=edit)
    assert "encoder.onnx" in refused(folder)
    with pytest.raises(InputError):
        vaezoo.runtime.load(folder)


def named_pipe(path):
    path.unlink()
    os.mkfifo(path)


def link(target):
    def replace(path):
        path.unlink()
        path.symlink_to(target)

    return replace


def sparse_file(path):
    with path.open("wb") as f:
        f.truncate(1 << 40)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def folder_instead(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("file", ["encoder.onnx", "manifest.json", "golden/decoder/test_data_set_1/input_0.pb"])
@pytest.mark.parametrize(
    "change",
    [named_pipe, link("/dev/zero"), link("/etc/passwd"), link("nowhere"), sparse_file, flip, folder_instead, os.unlink],
    ids=["pipe", "device", "another file", "nowhere", "1 TiB", "bit", "folder", "missing"],
)
def test_unusual_file_is_refused(tmp_path, monkeypatch, file, change):
    """Files are compared with their hashes before anything parses them, so this runs without a child process."""
    change(write_export(tmp_path) / file)
    monkeypatch.setattr(module, "limit_process", lambda *limits: None)
    with pytest.raises(InputError):
        module.check_folder(tmp_path, "cpu", module.MAX_SECONDS)
    if not file.startswith("golden"):  # a missing encoder is an error when it is needed, because the decoder is there
        with pytest.raises(InputError):
            vaezoo.runtime.load(tmp_path).encode(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("name", ["../encoder.onnx", "/etc/passwd", "encoder.onnx/../../x", "a\nb"])
def test_paths_in_manifest_are_ignored(tmp_path, name):
    """The paths of an export's files are fixed. The manifest only adds their hashes."""
    manifest = json.loads((write_export(tmp_path) / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"].pop("encoder.onnx")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"does not list encoder\.onnx"):
        vaezoo.runtime.load(tmp_path)


def test_hash_is_checked_first(tmp_path, monkeypatch):
    flip(write_export(tmp_path) / "decoder.onnx")
    opened = []
    monkeypatch.setattr(onnx_vae, "open_session", lambda data, *args, **kwargs: opened.append(data))
    with pytest.raises(InputError, match="SHA-256 differs"):
        vaezoo.runtime.load(tmp_path)
    assert opened == []


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_crash_is_an_error(tmp_path, monkeypatch, name):
    number = int(getattr(signal, name))
    monkeypatch.setattr(module, "CHILD", f"import os; os.kill(os.getpid(), {number})")
    assert f"ended with signal {number}" in refused(write_export(tmp_path))


def test_command_prints_two_lines(tmp_path):
    write_export(tmp_path, CHANGES["custom operator"])
    command = [sys.executable, "-m", "vaezoo_cli", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 3 and done.stdout == "" and len(done.stderr.splitlines()) == 2, done.stderr


def test_name_that_is_not_utf8():
    data = graphs()["encoder"].SerializeToString().replace(b"\x0a\x06logvar\x12", b"\x0a\x06logva\xff\x12")
    with pytest.raises(VaezooError, match="its manifest has other names"):
        check_structure("encoder", parse("encoder", data), description()["graphs"]["encoder"], 18)
