"""`verify` accepts exports and refuses everything else, with an error that says what is wrong."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

import image_models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import vaezoo
from vaezoo import create_model, export_onnx, train, verify_onnx
from vaezoo.errors import InputError, ParityError, VaezooError
from vaezoo.export import verify as module
from vaezoo.export.golden import count_sets
from vaezoo.export.metadata import add_metadata
from vaezoo.posteriors.base import named_outputs
from vaezoo.runtime.manifest import ENCODER_DECODER, SCHEMA
from vaezoo.training.config import TrainConfig

DATA = {
    "name": "digits",
    "shape": [1, 28, 28],
    "likelihood": "bernoulli",
    "kind": "unit",
    "classes": [10],
    "vocabulary": 0,
    "columns": [],
    "symbols": [],
}
PLAIN, FP16_UINT8 = {}, {"dtype": "fp16", "uint8": True}


def edit_manifest(folder, change):
    """Applies `change` to the manifest of a copy."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def put(folder, name, data):
    """Writes a file and puts its size and hash into the manifest, as an attacker would."""
    (folder / name).write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(folder, lambda m: m["files"].update({name: entry}))


def manifest_graphs(folder):
    return list(json.loads((folder / "manifest.json").read_text())["graphs"])


def rewrite(folder, **changes):
    """Changes the graphs of a copy and their metadata, so that all hashes fit."""
    models = {graph: onnx.load(folder / f"{graph}.onnx") for graph in manifest_graphs(folder)}
    common = {e.key: e.value for e in models["encoder"].metadata_props}
    common = {
        key.removeprefix("vaezoo."): value
        for key, value in common.items()
        if not key.endswith(("vaezoo.graph", "graph_bytes", "graph_sha256", "set_sha256"))
    }
    for graph, change in changes.items():
        change(models[graph])
    for model in models.values():
        del model.metadata_props[:]
    for graph, data in add_metadata({graph: m.SerializeToString() for graph, m in models.items()}, common).items():
        put(folder, f"{graph}.onnx", data)


def refused(folder, error=InputError, **options):
    with pytest.raises(error) as e:
        verify_onnx(folder, **options)
    assert type(e.value) is error and e.value.hint
    assert "\n" not in e.value.message
    return e.value.message


FAST = [("autoencoder", "plain"), ("vae-gan", "fp16-uint8")]
CASES = [
    (name, options, ident)
    for name in image_models.FAST
    for options, ident in ((PLAIN, "plain"), (FP16_UINT8, "fp16-uint8"))
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=f"{name}-{ident}", marks=[] if (name, ident) in FAST else pytest.mark.matrix)
        for name, options, ident in CASES
    ],
)
def test_every_export_passes(name, options, digits, tmp_path):
    run = train(name, digits, config=TrainConfig(steps=2, batch_size=20), out=tmp_path / "run")
    exported = export_onnx(run, tmp_path / "out", **options)
    verified = verify_onnx(exported.path)
    assert verified.runtime == "onnxruntime"
    assert [(r.graph, r.output) for r in verified.parity] == [(r.graph, r.output) for r in exported.parity]
    assert {r.graph for r in verified.parity} == {*run.vae.graphs(), "round trip"}
    graphs, sets = exported.manifest["graphs"], count_sets(exported.manifest, "encoder")
    fields = [output["name"] for output in graphs["encoder"]["outputs"]]
    assert [r.output for r in verified.parity if r.graph == "encoder"] == fields * sets and sets >= 2
    assert fields == list(named_outputs(run.vae.infer(run.examples))[0])
    assert all(row.max_abs <= row.limit for row in verified.parity)


@pytest.mark.parametrize(
    ("name", "old", "new"), [("README.md", "conv-vae", "best-vae"), ("latents.json", "real", "ball")]
)
def test_changed_description_is_reported(export_copy, name, old, new):
    card = export_copy / name
    text = card.read_text()
    card.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=rf"{name} is not the file that was exported: its SHA-256 differs"):
        verify_onnx(export_copy)
    verify_onnx(export_copy, tolerance=1e-3)  # compares outputs only
    vaezoo.runtime.load(export_copy)
    card.write_text(text)
    verify_onnx(export_copy)


def test_rewritten_copy_passes(export_copy):
    verify_onnx(export_copy)
    rewrite(export_copy)
    verify_onnx(export_copy)


@pytest.mark.parametrize("graph", ENCODER_DECODER)
def test_flipped_bit_is_found(export_copy, graph):
    data = bytearray((export_copy / f"{graph}.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (export_copy / f"{graph}.onnx").write_bytes(data)
    assert f"{graph}.onnx is not the file that was exported" in refused(export_copy)


def test_truncated_graph(export_copy):
    data = (export_copy / "decoder.onnx").read_bytes()
    (export_copy / "decoder.onnx").write_bytes(data[:1000])
    assert "decoder.onnx has 1000 bytes" in refused(export_copy)
    put(export_copy, "decoder.onnx", data[:1000])
    assert "decoder.onnx is not an ONNX model" in refused(export_copy)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", b"hello " * 500], ids=["empty", "png", "text"])
def test_foreign_file(export_copy, data):
    put(export_copy, "encoder.onnx", data)
    message = refused(export_copy)
    assert "encoder.onnx is not an ONNX model" in message or "is not a vaezoo encoder" in message


def test_missing_file(export_copy):
    (export_copy / "golden/encoder/test_data_set_0/output_0.pb").unlink()
    assert "output_0.pb: No such file" in refused(export_copy)
    (export_copy / "encoder.onnx").unlink()
    assert "encoder.onnx: No such file" in refused(export_copy)


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_not_an_export(tmp_path, name):
    (tmp_path / "file").write_text("")
    assert "is not an export" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schema", 99, "was written by a later version of vaezoo (schema 99, this version reads 4)"),
        ("schema", 3, "was written by an earlier version of vaezoo (schema 3, this version reads 4)"),
        ("schema", None, "schema None"),
        ("mode", "sigma", "not an output of the encoder"),
        ("latent_shape", ["16"], "not a shape"),
        ("latent_shape", [8], "the decoder's input does not have latent_shape [8]"),
        ("data", DATA | {"shape": []}, "the data have no dimensions"),
        ("data", DATA | {"kind": 1}, "damaged"),
        ("data", DATA | {"kind": "real"}, "says kind real, encoder.onnx unit"),
        ("data", DATA | {"classes": [9]}, "says classes [9], encoder.onnx [10]"),
        ("data", DATA | {"classes": [0]}, "damaged"),
        ("data", DATA | {"classes": None}, "damaged"),
        ("data", DATA | {"vocabulary": "9"}, "damaged"),
        ("data", DATA | {"columns": [1]}, "columns [1] are not texts"),
        ("data", DATA | {"symbols": 1}, "symbols 1 are not texts"),
        ("data", DATA | {"class_names": [1]}, "class_names [1] are not texts"),
        ("data", DATA | {"class_names": ["a"]}, "1 class names for labels of [10] values"),
        ("data", DATA | {"label_names": [1]}, "label_names [1] are not lists"),
        ("data", DATA | {"label_names": [[1]]}, "label_names [[1]] are not texts"),
        ("data", DATA | {"label_names": [["a"]]}, "names of 1 labels for labels of [10] values"),
        ("data", DATA | {"label_names": [["a\x1b"], ["b"]]}, "cannot be printed"),
        ("data", DATA | {"sample_rate": -1}, "sample_rate -1 is out of range"),
        ("format", {"opset": 18, "dtype": "fp32", "uint8": False, "waveform": 1}, "damaged"),
        ("data", DATA | {"column_names": [1]}, "column_names [1] are not texts"),
        ("data", DATA | {"column_names": ["a"]}, "1 column names for shape [1, 28, 28]"),
        ("data", DATA | {"column_names": ["\x1b"]}, "cannot be printed"),
        ("data", {"name": "digits", "shape": [1, 28, 28], "likelihood": "bernoulli"}, "damaged"),
        ("prior", None, "says prior custom, encoder.onnx standard-normal"),
        ("prior", "foo", "prior foo is not known"),
        ("prior", "graph", "there is no graph prior with the input noise"),
        ("prior", "autoregressive", "there is no graph prior with the input z"),
        ("autoregressive", {"length": 3, "end_id": None}, "there is no graph decoder with the input x"),
        ("autoregressive", {"length": 0, "end_id": None}, "not a shape"),
        ("autoregressive", {"length": 3, "end_id": "1"}, "end_id is not an integer"),
        ("autoregressive", {"end_id": None}, "damaged"),
        ("autoregressive", [3], "damaged"),
        ("model", "vaezoo/mlp-vae", "says model vaezoo/mlp-vae"),
        ("format", {"opset": 18, "dtype": "fp16", "uint8": False}, "says dtype fp16, encoder.onnx fp32"),
        ("checkpoint", {"step": 999, "sha256": "0"}, "says checkpoint_step 999"),
        ("graphs", {}, "damaged"),
        ("format", {"opset": 18, "dtype": "int8"}, "damaged"),
        ("files", [], "damaged"),
        ("files", {}, "damaged"),
        ("files", {"encoder.onnx": {"bytes": 1}}, "damaged"),
        ("latent_levels", {}, "damaged"),
        ("latent_levels", [{"name": "a", "shape": [3], "codes": 4}], "do not add up to latent_shape"),
        ("latent_levels", [{"name": "a", "shape": [16], "codes": -1}], "not a shape"),
        ("latent_levels", [{"name": "\x1b", "shape": [16], "codes": 4}], "not the name of a level"),
        ("parity", None, "damaged"),
    ],
)
def test_wrong_manifest_fields(export_copy, field, value, words):
    edit_manifest(export_copy, lambda m: m.update({field: value}))
    assert words in refused(export_copy)


@pytest.mark.parametrize(("schema", "hint"), [(SCHEMA - 1, "export the run again"), (SCHEMA + 1, "update vaezoo")])
def test_other_schemas_have_a_hint(export_copy, schema, hint):
    edit_manifest(export_copy, lambda m: m.update(schema=schema))
    for read in (verify_onnx, vaezoo.runtime.load):
        with pytest.raises(InputError, match=f"schema {schema}, this version reads {SCHEMA}") as e:
            read(export_copy)
        assert e.value.hint == hint


def test_manifest_is_not_json(export_copy):
    (export_copy / "manifest.json").write_text('{"schema": NaN')
    assert "manifest.json is damaged" in refused(export_copy)


def test_graphs_of_different_exports(export_copy, trained, tmp_path):
    """All hashes fit, and both graphs have the same signature."""
    other = create_model("conv-vae", trained.data)
    export_onnx(dataclasses.replace(trained, vae=other), tmp_path / "other")
    put(export_copy, "decoder.onnx", (tmp_path / "other" / "decoder.onnx").read_bytes())
    assert "come from different exports" in refused(export_copy)


def test_graph_changed_under_its_metadata(export_copy):
    model = onnx.load(export_copy / "decoder.onnx")
    model.graph.name = "mine"
    put(export_copy, "decoder.onnx", model.SerializeToString())
    assert "decoder.onnx was changed after its export" in refused(export_copy)


def test_other_weights_fail(export_copy):
    def scale(model):
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(tensor), tensor.name))

    rewrite(export_copy, decoder=scale)
    assert "decoder: 'x_mean' at batch 1 on golden set 0, element [0, " in refused(export_copy, ParityError)


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../../secret"])
def test_external_weights_are_refused(export_copy, location):
    def move(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    (export_copy / "weights.bin").write_bytes(b"\0" * 10_000_000)
    rewrite(export_copy, encoder=move)
    assert f"in another file ({location})" in refused(export_copy)


def test_external_data_in_branches(export_copy):
    def hide(model):
        inner = onnx.TensorProto(name="hidden", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=inner)], "b", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["z"], [], then_branch=branch, else_branch=branch))

    rewrite(export_copy, decoder=hide)
    assert "keeps the weights 'hidden' in another file" in refused(export_copy)


def test_external_data_in_functions(export_copy):
    def hide(model):
        inner = onnx.TensorProto(name="hidden", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        branch = onnx.helper.make_graph([], "b", [], [], initializer=[inner])
        node = onnx.helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch)
        model.functions.append(onnx.helper.make_function("own", "f", ["c"], [], [node], []))

    rewrite(export_copy, decoder=hide)
    assert "keeps the weights 'hidden' in another file" in refused(export_copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_does_not_block(export_copy):
    (export_copy / "decoder.onnx").unlink()
    os.mkfifo(export_copy / "decoder.onnx")
    assert "decoder.onnx: not a regular file" in refused(export_copy)


@pytest.mark.skipif(os.name == "nt", reason="needs bash and its limits")
def test_lower_limits_are_kept(exported):
    command = f"ulimit -t 3600; exec {sys.executable} -m vaezoo_cli verify {exported.path}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_random_operator_in_branch(export_copy):
    def hide(model):
        draw = onnx.helper.make_node("RandomNormal", [], ["r"], name="dice", shape=[1])
        branch = onnx.helper.make_graph([draw], "b", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["z"], [], then_branch=branch, else_branch=branch))

    rewrite(export_copy, decoder=hide)
    assert "node 'dice' (RandomNormal) draws at random" in refused(export_copy, ParityError)


def fix_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def free_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"


def rename(model):
    model.graph.output[0].name = "other"


def retype(model):
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def reshape(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fix_batch, "'z' has shape [4, 16], not ['batch', 16]"),
        (free_size, "'z' has shape [batch, n], not ['batch', 16]"),
        (rename, "the graph has other, its manifest has other names"),
        (retype, "'x_mean' is float64, not float32"),
        (reshape, "'x_mean' has shape [batch, 5, 28, 28]"),
    ],
)
def test_other_signature_is_refused(export_copy, change, words):
    rewrite(export_copy, decoder=change)
    assert words in refused(export_copy, ParityError)


def test_other_opset_is_refused(export_copy):
    def lower(model):
        model.opset_import[0].version = 17

    rewrite(export_copy, decoder=lower)
    assert "opset 18 was requested, the graph has 17" in refused(export_copy, ParityError)


def test_invalid_graph_is_refused(export_copy):
    def unsort(model):
        model.graph.node.append(onnx.helper.make_node("Relu", ["nowhere"], ["lost"]))

    rewrite(export_copy, decoder=unsort)
    assert "decoder.onnx is not valid ONNX" in refused(export_copy)


def test_derived_graphs_need_a_tolerance(export_copy):
    """An optimiser wrote the decoder again, without metadata, in another opset and IR version."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(export_copy / "decoder.onnx")
    data = (export_copy / "decoder.onnx").read_bytes()
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    assert "decoder.onnx has" in refused(export_copy) or "SHA-256" in refused(export_copy)
    result = verify_onnx(export_copy, tolerance=1e-4)
    assert result.derived == ["decoder"] and {row.graph for row in result.parity} == {
        "encoder",
        "decoder",
        "round trip",
    }
    assert verify_onnx(export_copy, tolerance=1e-4).parity[0].limit >= 1e-4


def test_derived_graphs_must_be_close(export_copy):
    model = onnx.load(export_copy / "decoder.onnx")
    weights = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1)
    weights.CopyFrom(onnx.numpy_helper.from_array(1.1 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(model, export_copy / "decoder.onnx")
    assert "decoder: 'x_mean' at batch 1" in refused(export_copy, ParityError, tolerance=1e-4)
    assert verify_onnx(export_copy, tolerance=0.9).derived == ["decoder"]
    fix_batch(model)
    onnx.save(model, export_copy / "decoder.onnx")
    assert "'z' has shape [4, 16]" in refused(export_copy, ParityError, tolerance=0.9)
    (export_copy / "golden/decoder/test_data_set_0/output_0.pb").write_bytes(b"")
    assert "output_0.pb has 0 bytes" in refused(export_copy, tolerance=0.9)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_tolerance_out_of_range(exported, tolerance):
    assert "is out of range" in refused(exported.path, VaezooError, tolerance=tolerance)


@pytest.mark.slow
def test_verify_and_bench_run_without_torch(exported, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(no_torch(tmp_path)), *sys.path])}
    for command in (["verify"], ["bench", "--batch", "2", "--seconds", "0.001"]):
        call = [sys.executable, "-m", "vaezoo_cli", command[0], str(exported.path), *command[1:]]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "decoder" in done.stdout and "round trip" in done.stdout


def no_torch(folder):
    """Returns a folder that makes `import torch` fail, in child processes too."""
    (folder / "torch.py").write_text("raise ImportError('torch is not installed')\n")
    return folder


def test_wrong_golden_data_are_refused(export_copy):
    name = "golden/decoder/test_data_set_0/input_0.pb"
    put(export_copy, name, onnx.numpy_helper.from_array(np.zeros((8, 3), np.float32)).SerializeToString())
    assert "do not fit 'z'" in refused(export_copy)
    put(export_copy, name, onnx.numpy_helper.from_array(np.zeros((5, 16), np.float32)).SerializeToString())
    assert "differ in length" in refused(export_copy)
    put(export_copy, name, b"\xff\xff")
    assert "golden data of decoder.onnx are damaged" in refused(export_copy)


def test_missing_provider_is_named(exported):
    if torch.cuda.is_available():
        assert verify_onnx(exported.path, "cuda").provider == "cuda"
    else:
        message = refused(exported.path, VaezooError, provider="cuda")
        assert "lib" in message or "no CUDA provider" in message


def allocate_64_gib(model):
    """Adds a constant of 64 GiB to the decoder's output."""
    size = onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [1], [1 << 34])
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT, [1], [0.0])
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    model.graph.node.extend(
        [
            onnx.helper.make_node("ConstantOfShape", ["size_of"], ["huge"], value=zero),
            onnx.helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
            onnx.helper.make_node("Add", ["before", "most"], [last]),
        ]
    )
    size.name = "size_of"
    model.graph.initializer.append(size)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of address space")
def test_memory_is_limited(export_copy):
    rewrite(export_copy, decoder=allocate_64_gib)
    assert "Failed to allocate memory" in refused(export_copy, ParityError)


@pytest.mark.slow
def test_random_damage_is_handled(export_copy, exported):
    """Changes bytes of every file and makes the hashes fit, so that the damage reaches the parsers."""
    rng = random.Random(0)
    files = sorted(p for p in exported.path.rglob("*") if p.suffix in (".onnx", ".pb", ".json"))
    for i in range(16):
        file = files[i % len(files)]
        name = str(file.relative_to(exported.path))
        data = bytearray(file.read_bytes())
        for _ in range(rng.choice((1, 3, 20))):
            position = rng.randrange(min(len(data), rng.choice((40, 400, len(data)))))
            data[position] = rng.randrange(256)
        if file.suffix == ".json":
            (export_copy / name).write_bytes(data)
        else:
            put(export_copy, name, bytes(data))
        with contextlib.suppress(VaezooError):
            verify_onnx(export_copy)
        shutil.copytree(exported.path, export_copy, dirs_exist_ok=True)


def test_time_is_limited(exported, monkeypatch):
    monkeypatch.setattr(module, "CHILD", "import time; time.sleep(3600)")
    assert "was not checked within 1 seconds" in refused(exported.path, seconds=1)


def test_limits_need_no_resource_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    module.limit_process("cpu", 1, 1)


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise SystemExit(3)", "print('{')"])
def test_dead_process_is_reported(exported, monkeypatch, code):
    monkeypatch.setattr(module, "CHILD", code)
    assert "the process that checks the graphs ended with" in refused(exported.path)


def test_modules_in_folder_not_imported(export_copy, monkeypatch):
    monkeypatch.chdir(export_copy)
    for name in ("nt", "json", "numpy", "onnx", "vaezoo"):
        (export_copy / f"{name}.py").write_text("open('imported', 'w')")
    verify_onnx(".")
    assert not (export_copy / "imported").exists()


def test_verify_needs_no_torch(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "shipped")
    code = (
        "import sys; sys.modules.update(torch=None, torchvision=None, safetensors=None)\n"
        "from vaezoo_cli.main import main; main(sys.argv[1:])"
    )
    for command, expected in ((["verify", "shipped"], 0), (["sample", "shipped"], 0), (["train", "mlp-vae"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
    assert done.stderr == "vaezoo: error: this needs torch, which is not installed\nhint: pip install torch\n"
    assert (tmp_path / "shipped-outputs" / "samples.png").exists()
