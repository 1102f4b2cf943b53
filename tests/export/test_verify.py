"""`verify` passes what was exported and refuses everything else, with an error that says what is wrong."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
import torch

from vaezoo import create_model, export_onnx, list_models, train, verify_onnx
from vaezoo.errors import InputError, ParityError, VaezooError
from vaezoo.export import verify as module
from vaezoo.export.metadata import add_metadata
from vaezoo.training.config import TrainConfig

MODELS = [r.name for r in list_models() if r.distribution == "vaezoo"]
PARTS = ("encoder", "decoder")


def edit_manifest(folder, change):
    """Applies `change` to what a copy's manifest.json holds."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def put(folder, name, data):
    """Writes a file and its size and hash into the manifest, as somebody would who wants it believed."""
    (folder / name).write_bytes(data)
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(folder, lambda m: m["files"].update({name: described}))


def rewrite(folder, **changes):
    """Changes the graphs of a copy and stamps them anew, so that all hashes fit."""
    models = {part: onnx.load(folder / f"{part}.onnx") for part in PARTS}
    common = {e.key: e.value for e in models["encoder"].metadata_props}
    common = {
        key.removeprefix("vaezoo."): value
        for key, value in common.items()
        if not key.endswith(("part", "graph_bytes", "graph_sha256", "sibling_sha256"))
    }
    for part, change in changes.items():
        change(models[part])
    for model in models.values():
        del model.metadata_props[:]
    for part, data in add_metadata({part: m.SerializeToString() for part, m in models.items()}, common).items():
        put(folder, f"{part}.onnx", data)


def refused(folder, error=InputError, **options):
    with pytest.raises(error) as e:
        verify_onnx(folder, **options)
    assert type(e.value) is error and e.value.hint
    assert "\n" not in e.value.message
    return e.value.message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"dtype": "fp16", "uint8": True}], ids=["plain", "half-bytes"])
def test_every_export_passes(name, options, digits, tmp_path):
    run = train(name, digits, config=TrainConfig(steps=2, batch_size=20), out=tmp_path / "run")
    verified = verify_onnx(export_onnx(run, tmp_path / "out", **options).path)
    assert verified.runtime == "onnxruntime"
    fields = run.vae.encode(run.examples[:1])._fields
    assert [(r.part, r.output) for r in verified.parity] == [
        *[("encoder", field) for field in fields] * 2,
        *[("decoder", "x_mean")] * 2,
        ("round trip", "x_mean"),
    ]
    assert all(row.max_abs <= row.limit for row in verified.parity)


def test_a_copy_passes_and_a_rewritten_one_too(copy):
    verify_onnx(copy)
    rewrite(copy)
    verify_onnx(copy)


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_anywhere_is_found(copy, part):
    data = bytearray((copy / f"{part}.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / f"{part}.onnx").write_bytes(data)
    assert f"{part}.onnx is not the file that was exported" in refused(copy)


def test_a_truncated_graph(copy):
    data = (copy / "decoder.onnx").read_bytes()
    (copy / "decoder.onnx").write_bytes(data[:1000])
    assert "decoder.onnx has 1000 bytes" in refused(copy)
    put(copy, "decoder.onnx", data[:1000])
    assert "decoder.onnx is no ONNX model" in refused(copy)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", b"hello " * 500], ids=["empty", "png", "text"])
def test_a_foreign_file(copy, data):
    put(copy, "encoder.onnx", data)
    message = refused(copy)
    assert "encoder.onnx is no ONNX model" in message or "is no encoder that vaezoo exported" in message


def test_a_missing_file(copy):
    (copy / "golden/encoder/test_data_set_0/output_0.pb").unlink()
    assert "output_0.pb: No such file" in refused(copy)
    (copy / "encoder.onnx").unlink()
    assert "encoder.onnx: No such file" in refused(copy)


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_something_that_is_no_export(tmp_path, name):
    (tmp_path / "file").write_text("")
    assert "is no export" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schema", 99, "schema 99"),
        ("schema", None, "schema None"),
        ("mode", "sigma", "no output of the encoder"),
        ("latent_shape", ["16"], "no shape"),
        ("latent_shape", [8], "not that of the decoder's input"),
        ("prior", "foo", "says prior foo, encoder.onnx standard-normal"),
        ("model", "vaezoo/mlp-vae", "says model vaezoo/mlp-vae"),
        ("format", {"opset": 18, "dtype": "fp16", "uint8": False}, "says dtype fp16, encoder.onnx fp32"),
        ("checkpoint", {"step": 999, "sha256": "0"}, "says checkpoint_step 999"),
        ("graphs", {}, "damaged"),
        ("format", {"opset": 18, "dtype": "int8"}, "damaged"),
        ("files", [], "damaged"),
        ("files", {}, "damaged"),
    ],
)
def test_a_manifest_of_another_kind(copy, field, value, words):
    edit_manifest(copy, lambda m: m.update({field: value}))
    assert words in refused(copy)


def test_a_manifest_that_is_no_json(copy):
    (copy / "manifest.json").write_text('{"schema": NaN')
    assert "manifest.json is damaged" in refused(copy)


def test_graphs_of_two_checkpoints_are_refused_even_where_the_hashes_fit(copy, trained, tmp_path):
    other = create_model("conv-vae", trained.data)
    export_onnx(dataclasses.replace(trained, vae=other), tmp_path / "other")
    put(copy, "decoder.onnx", (tmp_path / "other" / "decoder.onnx").read_bytes())
    assert "do not belong together" in refused(copy)


def test_a_graph_changed_behind_its_metadata_is_refused(copy):
    model = onnx.load(copy / "decoder.onnx")
    model.graph.name = "mine"
    put(copy, "decoder.onnx", model.SerializeToString())
    assert "decoder.onnx was changed after its export" in refused(copy)


def test_other_weights_fail_on_the_golden_data(copy):
    def scale(model):
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(tensor), tensor.name))

    rewrite(copy, decoder=scale)
    assert "decoder: 'x_mean' at batch 1 on golden set 0, element [0, " in refused(copy, ParityError)


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../../secret"])
def test_weights_in_another_file_are_refused(copy, location):
    def move(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    (copy / "weights.bin").write_bytes(b"\0" * 10_000_000)
    rewrite(copy, encoder=move)
    assert f"in another file ({location})" in refused(copy)


def test_external_data_in_a_constant_of_a_branch_are_refused(copy):
    def hide(model):
        inner = onnx.TensorProto(name="hidden", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=inner)], "b", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["z"], [], then_branch=branch, else_branch=branch))

    rewrite(copy, decoder=hide)
    assert "keeps the weights 'hidden' in another file" in refused(copy)


def test_external_data_in_a_branch_of_a_function_are_refused(copy):
    def hide(model):
        inner = onnx.TensorProto(name="hidden", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        branch = onnx.helper.make_graph([], "b", [], [], initializer=[inner])
        node = onnx.helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch)
        model.functions.append(onnx.helper.make_function("own", "f", ["c"], [], [node], []))

    rewrite(copy, decoder=hide)
    assert "keeps the weights 'hidden' in another file" in refused(copy)


def test_a_pipe_in_the_place_of_a_graph_does_not_wait(copy):
    (copy / "decoder.onnx").unlink()
    os.mkfifo(copy / "decoder.onnx")
    assert "decoder.onnx: not a regular file" in refused(copy, seconds=30)


def test_limits_of_the_user_s_own_are_kept(exported):
    command = f"ulimit -t 3600; exec {sys.executable} -m vaezoo_cli verify {exported.path}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_random_node_in_a_branch_is_refused(copy):
    def hide(model):
        draw = onnx.helper.make_node("RandomNormal", [], ["r"], name="dice", shape=[1])
        branch = onnx.helper.make_graph([draw], "b", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["z"], [], then_branch=branch, else_branch=branch))

    rewrite(copy, decoder=hide)
    assert "node 'dice' (RandomNormal) draws at random" in refused(copy, ParityError)


def fix_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def rename(model):
    model.graph.output[0].name = "other"


def retype(model):
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def reshape(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fix_batch, "'z' has shape [4, 16], its first dimension alone should be free"),
        (rename, "the graph has other where its manifest has others"),
        (retype, "'x_mean' is float64, not float32"),
        (reshape, "'x_mean' has shape [batch, 5, 28, 28]"),
    ],
)
def test_another_signature_is_refused(copy, change, words):
    rewrite(copy, decoder=change)
    assert words in refused(copy, ParityError)


def test_another_opset_is_refused(copy):
    def lower(model):
        model.opset_import[0].version = 17

    rewrite(copy, decoder=lower)
    assert "asked for opset 18, the graph has 17" in refused(copy, ParityError)


def test_a_graph_that_is_not_valid_is_refused(copy):
    def unsort(model):
        model.graph.node.append(onnx.helper.make_node("Relu", ["nowhere"], ["lost"]))

    rewrite(copy, decoder=unsort)
    assert "decoder.onnx is no valid ONNX" in refused(copy)


def test_golden_data_of_another_shape_or_kind_are_refused(copy):
    name = "golden/decoder/test_data_set_0/input_0.pb"
    put(copy, name, onnx.numpy_helper.from_array(np.zeros((8, 3), np.float32)).SerializeToString())
    assert "do not fit 'z'" in refused(copy)
    put(copy, name, onnx.numpy_helper.from_array(np.zeros((5, 16), np.float32)).SerializeToString())
    assert "differ in length" in refused(copy)
    put(copy, name, b"\xff\xff")
    assert "golden data of decoder.onnx are damaged" in refused(copy)


def test_a_provider_that_is_not_there_is_an_error_that_names_what_is_missing(exported):
    if torch.cuda.is_available():
        assert verify_onnx(exported.path, "cuda").provider == "cuda"
    else:
        message = refused(exported.path, VaezooError, provider="cuda")
        assert "lib" in message or "no CUDA provider" in message


def bomb(model):
    """A constant of 64 GiB behind the decoder's output."""
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


def test_a_graph_that_exhausts_the_memory_ends_its_own_process_alone(copy):
    rewrite(copy, decoder=bomb)
    assert "Failed to allocate memory" in refused(copy, ParityError)


def test_random_damage_is_refused_in_plain_words_or_harmless(copy, exported):
    """Bytes of every file are changed under hashes that fit, so that the parsers themselves are reached."""
    chance = random.Random(0)
    files = sorted(p for p in exported.path.rglob("*") if p.suffix in (".onnx", ".pb", ".json"))
    for i in range(16):
        file = files[i % len(files)]
        name = str(file.relative_to(exported.path))
        data = bytearray(file.read_bytes())
        for _ in range(chance.choice((1, 3, 20))):
            where = chance.randrange(min(len(data), chance.choice((40, 400, len(data)))))
            data[where] = chance.randrange(256)
        if file.suffix == ".json":
            (copy / name).write_bytes(data)
        else:
            put(copy, name, bytes(data))
        with contextlib.suppress(VaezooError):
            verify_onnx(copy)
        shutil.copytree(exported.path, copy, dirs_exist_ok=True)


def test_a_check_that_takes_too_long_is_stopped(exported, monkeypatch):
    monkeypatch.setattr(module, "CHILD", "import time; time.sleep(60)")
    start = time.monotonic()
    assert "was not checked within 1 seconds" in refused(exported.path, seconds=1)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("code", ["import os; os.abort()", "raise SystemExit(3)", "print('{')"])
def test_a_process_that_dies_is_told_in_plain_words(exported, monkeypatch, code):
    monkeypatch.setattr(module, "CHILD", code)
    assert "the process that opened the graphs ended with" in refused(exported.path)


def test_modules_in_the_folder_are_not_imported(copy, monkeypatch):
    monkeypatch.chdir(copy)
    for name in ("nt", "json", "numpy", "onnx", "vaezoo"):
        (copy / f"{name}.py").write_text("open('imported', 'w')")
    verify_onnx(".")
    assert not (copy / "imported").exists()


def test_verifying_needs_no_torch(exported, tmp_path):
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
    assert (tmp_path / "shipped" / "samples.png").exists()
