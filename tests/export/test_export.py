"""Exports: equal to the model, any batch size, written atomically, reproducible."""

import copy
import dataclasses
import errno
import itertools
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from image_models import FAST, image_models
from torch import Tensor

import vaezoo
from vaezoo import DataSpec, DiagonalGaussian, TrainConfig, create_model, export_onnx, train, verify_onnx
from vaezoo.data.base import even_indices
from vaezoo.errors import InputError, ParityError, PluginError, StorageError, UnsupportedDataError, VaezooError
from vaezoo.export import tolerance
from vaezoo.export.cases import BATCHES
from vaezoo.export.config import OLDEST_RUNTIME, ExportConfig
from vaezoo.export.graphs import Graph, export_graphs, mode_name
from vaezoo.export.parity import check_parity
from vaezoo.export.tolerance import Tolerance, check_graphs, compare_output
from vaezoo.posteriors.base import named_outputs
from vaezoo.runtime.export_files import set_hash
from vaezoo.runtime.manifest import MANIFEST

MODELS = image_models()
FILES = ["README.md", "decoder.onnx", "encoder.onnx", "golden", "latents.json", MANIFEST]
FP16_UINT8 = ExportConfig(dtype="fp16", uint8=True)
GRAY, COLOUR = (1, 28, 28), (3, 33, 45)


@pytest.fixture(scope="module")
def graphs(trained):
    return export_graphs(trained.vae)


@pytest.fixture(scope="module")
def graphs_opset_20(trained):
    return export_graphs(trained.vae, ExportConfig(opset=20))


def matrix(*axes, fast, slow=()):
    """Returns all combinations as parameters. Those that are not in `fast` are marked as slow or as matrix."""
    return [
        pytest.param(*case, marks=[] if case in fast else pytest.mark.slow if case in slow else pytest.mark.matrix)
        for case in itertools.product(*axes)
    ]


def supported(name, data):
    """Returns a model, or skips the test if it does not take such data."""
    try:
        return create_model(name, data)
    except UnsupportedDataError as e:
        pytest.skip(e.message)


def session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_graphs_compute_the_model(exported, trained, digits):
    x = digits.test.batch(slice(0, 5)).x
    with torch.no_grad():
        posterior = trained.vae.encode(x)
        images = trained.vae.reconstruct(x)
    mu, logvar = session(exported.path / "encoder.onnx").run(None, {"x": x.numpy()})
    (x_mean,) = session(exported.path / "decoder.onnx").run(None, {"z": mu})
    np.testing.assert_allclose(mu, posterior.mu, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(logvar, posterior.logvar, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(x_mean, images, atol=1e-5, rtol=1e-4)
    assert x_mean.min() >= 0 and x_mean.max() <= 1


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_graphs_are_self_contained(exported, graph):
    file = exported.path / f"{graph}.onnx"
    model = onnx.load(file, load_external_data=False)
    assert model.producer_name == "vaezoo"
    assert [o.version for o in model.opset_import if not o.domain] == [18]
    assert not any(t.external_data for t in model.graph.initializer)
    assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
    # Nothing tells about this machine.
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"site-packages" not in file.read_bytes() and b".py" not in file.read_bytes()
    assert sorted(p.name for p in exported.path.iterdir()) == FILES


def test_manifest_describes_the_files(exported, trained):
    manifest = json.loads((exported.path / MANIFEST).read_text())
    assert manifest["model"] == "vaezoo/conv-vae" and manifest["data"]["shape"] == [1, 28, 28]
    assert manifest["checkpoint"]["sha256"] == trained.checkpoint.model_sha256
    assert manifest["graphs"]["encoder"]["outputs"][1] == {
        "name": "logvar",
        "dtype": "float32",
        "shape": ["batch", 16],
    }
    assert manifest["data"]["kind"] == "unit" and manifest["data"]["classes"] == [10]
    assert manifest["schema"] == 4 and manifest["autoregressive"] is None
    assert manifest["graphs"]["decoder"]["inputs"] == [{"name": "z", "dtype": "float32", "shape": ["batch", 16]}]
    assert (manifest["mode"], manifest["prior"], manifest["license"]) == ("mu", "standard-normal", "MIT")
    assert (manifest["binarize"], manifest["weights_license"]) == ("none", None)
    for name, entry in manifest["files"].items():
        assert (exported.path / name).stat().st_size == entry["bytes"]
    rows = manifest["parity"]["rows"]
    assert {(r["graph"], r["inputs"]) for r in rows} == {
        ("encoder", "real examples"),
        ("encoder", "uniform noise"),
        ("decoder", "latents of real examples"),
        ("decoder", "latents of 3 sigma"),
        ("round trip", "real examples"),
    }
    assert all(row["max_abs"] <= row["limit"] for row in rows)


def test_graphs_carry_metadata(exported, trained):
    metadata = {
        graph: session(exported.path / f"{graph}.onnx").get_modelmeta().custom_metadata_map
        for graph in ("encoder", "decoder")
    }
    together = set_hash({graph: meta["vaezoo.graph_sha256"] for graph, meta in metadata.items()})
    for graph, meta in metadata.items():
        assert meta["vaezoo.graph"] == graph and meta["vaezoo.set_sha256"] == together
        assert meta["vaezoo.checkpoint_sha256"] == trained.checkpoint.model_sha256
        options = {"latent_dim": 16, "channels": [], "strides": [], "kernel_size": 4, "dense": [], "activation": "relu"}
        assert json.loads(meta["vaezoo.options"]) == trained.options == trained.options | options
        assert json.loads(meta["vaezoo.shape"]) == [1, 28, 28]
        assert (meta["vaezoo.kind"], json.loads(meta["vaezoo.classes"])) == ("unit", [10])
        assert (meta["vaezoo.likelihood"], meta["vaezoo.range"], meta["vaezoo.dtype"]) == ("bernoulli", "0..1", "fp32")
        assert meta["Image.BitmapPixelFormat"] == "Gray8" and meta["vaezoo.license"] == "MIT"


@pytest.mark.slow
def test_export_is_reproducible(exported, shared_export, trained, tmp_path):
    target = tmp_path / "again"
    shutil.copytree(shared_export(opset=20).path, target)  # the earlier export that is replaced
    export_onnx(trained, target)
    assert sorted(p.name for p in target.iterdir()) == FILES
    for file in (p for p in target.rglob("*") if p.is_file()):
        assert file.read_bytes() == (exported.path / file.relative_to(target)).read_bytes(), file


def test_model_card_program_runs(exported):
    card = (exported.path / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    assert "import torch" not in program
    program += "\nassert samples.shape == reconstructions.shape == (16, 1, 28, 28) and 0 <= samples.min()"
    subprocess.run([sys.executable, "-c", program], cwd=exported.path, check=True)
    largest = max(row.max_abs for row in exported.parity if row.output == "mu")
    assert f"{largest:.1e}" in card


def test_golden_data_match_the_model(exported, trained):
    folder = exported.path / "golden" / "encoder" / "test_data_set_0"
    x, mu, logvar = (
        onnx.numpy_helper.to_array(onnx.load_tensor(folder / f"{name}.pb"))
        for name in ("input_0", "output_0", "output_1")
    )
    np.testing.assert_array_equal(x, trained.examples.x[:8].numpy())
    with torch.no_grad():
        posterior = trained.vae.infer(trained.examples)
    np.testing.assert_array_equal(mu, posterior.mu[:8])
    np.testing.assert_array_equal(logvar, posterior.logvar[:8])


@pytest.mark.parametrize(
    ("name", "shape", "likelihood"),
    matrix(
        FAST,
        [GRAY, COLOUR],
        ["continuous-bernoulli", "gaussian:optimal"],
        fast=[("beta-vae", COLOUR, "gaussian:optimal")],
        slow=[("mlp-vae", GRAY, "continuous-bernoulli"), ("autoencoder", COLOUR, "continuous-bernoulli")],
    ),
)
def test_every_model_exports(name, shape, likelihood):
    vae = supported(name, DataSpec(name="x", shape=shape, likelihood=likelihood, classes=(3,)))
    rows, cases = check_parity(vae, export_graphs(vae))
    assert list(cases) == list(vae.graphs()) and all(len(of_graph) >= 2 for of_graph in cases.values())
    outputs = [output for of_graph in cases.values() for case in of_graph for output in case.outputs]
    assert [row.output for row in rows] == [*outputs, "x_mean"]  # that of the round trip is the last
    if name in ("mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder"):
        fields = ["z"] if name == "autoencoder" else ["mu", "logvar"]
        assert outputs == [*fields, *fields, "x_mean", "x_mean"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        ("mlp-vae", "discretized-logistic"),
        ("conv-vae", "gaussian:heteroscedastic"),
        *(
            pytest.param(*case, marks=pytest.mark.matrix)
            for case in (
                ("conv-vae", "discretized-logistic-mixture:3"),
                ("vae-gan", "gaussian:heteroscedastic"),
                ("resnet-vae", "laplace:learned"),
                ("conv-vae", "ms-ssim"),
                ("mlp-vae", "categorical-256"),
            )
        ),
    ],
)
def test_likelihoods_export_their_mean(name, likelihood):
    """Images of three channels go in and come out, also as bytes, however many parameters a value has."""
    vae = create_model(name, DataSpec(name="x", shape=(3, 16, 24), likelihood=likelihood))
    for config, shape in ((ExportConfig(), (3, 16, 24)), (ExportConfig(uint8=True), (16, 24, 3))):
        graphs = export_graphs(vae, config)
        _, cases = check_parity(vae, graphs, config)
        assert {case.outputs["x_mean"].shape[1:] for case in cases["decoder"][:2]} == {shape}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "likelihood"),
    matrix(
        MODELS,
        ["bernoulli"],
        fast=[("conv-vae", "bernoulli")],
        slow=[("vq-vae", "bernoulli"), ("ladder-vae", "bernoulli")],
    ),
)
def test_every_model_exports_fp16_uint8(name, likelihood):
    vae = supported(name, DataSpec(name="x", shape=(3, 32, 32), likelihood=likelihood, classes=(3,)))
    graphs = export_graphs(vae, FP16_UINT8)
    check_parity(vae, graphs, FP16_UINT8)
    graph = onnx.load_from_string(graphs["decoder"].data).graph
    scales = {node.input[2] for node in graph.node if node.op_type == "Resize"}  # always float32 in ONNX
    assert not [t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.name not in scales]


@pytest.mark.slow
def test_uint8_rounds_to_nearest_level(shared_export, trained):
    exported = shared_export(uint8=True)
    images = (trained.examples.x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    model = vaezoo.runtime.load(exported.path)
    with torch.no_grad():
        expected = trained.vae.reconstruct(trained.examples.x)
    actual = model.reconstruct(images)
    assert actual.dtype == np.uint8 and actual.shape == (64, 28, 28, 1)
    levels = (255 * expected).permute(0, 2, 3, 1).numpy()
    assert np.abs(actual - levels).max() <= 0.501
    assert verify_onnx(exported.path).parity


def test_uint8_needs_images():
    with pytest.raises(UnsupportedDataError, match="uint8 is for images"):
        export_graphs(create_model("mlp-vae", DataSpec(name="x", shape=(9,))), ExportConfig(uint8=True))


# opset -> the lowest IR version that ONNX allows for it. Runtimes refuse files with a later one than they know.
LOWEST_IR = {15: 8, 17: 8, 18: 8, 19: 9, 20: 9, 23: 10}


@pytest.mark.parametrize(
    "opset", [15, 18, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (17, 19, 20, 23))]
)
def test_opset_is_written(shared_export, opset):
    exported = shared_export(opset=opset) if opset != 18 else shared_export()
    for graph in ("encoder", "decoder"):
        model = onnx.load(exported.path / f"{graph}.onnx")
        assert [o.version for o in model.opset_import if not o.domain] == [opset]
        assert model.ir_version == LOWEST_IR[opset]
    oldest = f"ONNX Runtime that was tested with this opset is {OLDEST_RUNTIME[opset]}."
    assert oldest in (exported.path / "README.md").read_text()


@pytest.mark.slow
def test_operator_that_an_opset_lacks(trained):
    vae = with_methods(trained.vae, decode=lambda self, z: F.layer_norm(type(trained.vae).decode(self, z), (28,)))
    with pytest.raises(VaezooError, match=r"cannot be written for opset 15: .*LayerNormalization") as e:
        export_graphs(vae, ExportConfig(opset=15))
    assert e.value.hint == "use --opset 18"


class Colliding(NamedTuple):
    """A posterior whose fields are names of operators' values, of an input, and of one tensor twice."""

    tril: Tensor
    exp: Tensor
    mean: Tensor
    x: Tensor
    x_out: Tensor

    def mode(self):
        return self.x


@pytest.mark.slow
def test_names_of_fields_are_kept_apart(trained):
    def encode(self, x):
        mu, logvar = type(trained.vae).encode(self, x)
        square = mu[:, :, None] * logvar[:, None, :]
        return Colliding(square.tril().exp(), square.tril(), x.mean((1, 2, 3))[:, None].exp(), mu.exp(), x)

    vae = with_methods(trained.vae, encode=encode)
    graphs = export_graphs(vae)
    assert graphs["encoder"].outputs == ["tril", "exp", "mean", "x_out_out", "x_out"]
    assert mode_name(vae) == "x_out_out"
    rows, cases = check_parity(vae, graphs)
    assert {row.output for row in rows} == {"tril", "exp", "mean", "x_out_out", "x_out", "x_mean"}
    case = cases["encoder"][0]
    np.testing.assert_array_equal(case.outputs["x_out"], case.inputs["x"])


@pytest.mark.slow
@pytest.mark.parametrize("parts", [["decoder"], pytest.param(["encoder"], marks=pytest.mark.slow)])
def test_parts_are_exported_alone(trained, tmp_path, parts):
    exported = export_onnx(trained, tmp_path / "out", parts=parts)
    facts = ["latents.json"] if parts == ["encoder"] else []
    assert sorted(p.name for p in exported.path.iterdir()) == [
        "README.md",
        f"{parts[0]}.onnx",
        "golden",
        *facts,
        MANIFEST,
    ]
    assert list(exported.manifest["graphs"]) == parts == [p.name for p in (exported.path / "golden").iterdir()]
    assert {row.graph for row in exported.parity} == set(parts) == {r.graph for r in verify_onnx(exported.path).parity}
    program = (exported.path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    result = {"decoder": "assert samples.shape == (16, 1, 28, 28)", "encoder": "assert fields['mu'].shape == (16, 16)"}
    subprocess.run([sys.executable, "-c", f"{program}\n{result[parts[0]]}"], cwd=exported.path, check=True)


def test_unknown_parts_are_refused(trained, tmp_path):
    with pytest.raises(VaezooError, match="there is no part 'prior'") as e:
        export_onnx(trained, tmp_path / "out", parts=["decoder", "prior"])
    assert e.value.hint == "the parts of this model are encoder, decoder"
    with pytest.raises(VaezooError, match="no part is given"):
        export_onnx(trained, tmp_path / "out", parts=[])


@pytest.mark.parametrize("opset", [5, 14, 99])
def test_opset_out_of_range(trained, opset, tmp_path):
    with pytest.raises(VaezooError, match=f"opset {opset} is out of range"):
        export_onnx(trained, tmp_path / "out", opset=opset)


@pytest.mark.slow
def test_unexpected_opset_is_refused(trained, graphs):
    with pytest.raises(VaezooError, match="opset 20 was requested, the graph has 18"):
        check_parity(trained.vae, graphs, ExportConfig(opset=20))


def test_other_folders_are_kept(trained, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StorageError):
        export_onnx(trained, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_foreign_files_are_kept(trained, export_copy):
    (export_copy / "golden" / "notes.txt").write_text("precious")
    with pytest.raises(StorageError, match=r"contains golden/notes.txt"):
        export_onnx(trained, export_copy)
    assert (export_copy / "golden" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["samples.png", "latents.npz"])
def test_outputs_in_an_export_are_not_replaced(trained, export_copy, name):
    (export_copy / name).write_text("precious")
    with pytest.raises(StorageError, match=f"contains {name}, which does not belong"):
        export_onnx(trained, export_copy)
    assert (export_copy / name).read_text() == "precious"


@pytest.mark.slow
def test_a_card_with_own_text_is_kept(trained, export_copy):
    card = export_copy / "README.md"
    card.write_text(card.read_text() + "\nUse it for digits only.\n")
    with pytest.raises(StorageError, match=r"README.md was changed since the export") as e:
        export_onnx(trained, export_copy)
    assert "move it" in e.value.hint and "digits only" in card.read_text()
    card.rename(export_copy.parent / "own.md")
    export_onnx(trained, export_copy)
    verify_onnx(export_copy)


@pytest.mark.slow
def test_a_damaged_export_is_replaced(trained, export_copy):
    (export_copy / "decoder.onnx").write_bytes(b"")
    export_onnx(trained, export_copy)
    verify_onnx(export_copy)


def test_a_module_is_exported(trained, digits, tmp_path):
    """As a program has it after its own training: in training mode, without a run."""
    vae = create_model("conv-vae", digits.spec)
    vae.load_state_dict(trained.vae.state_dict())
    vae.train()
    result = export_onnx(vae, tmp_path / "out", examples=digits.test.x[:100])
    assert vae.training
    verify_onnx(result.path)
    manifest = result.manifest
    assert manifest["model"] == type(vae).__name__ and manifest["options"] == {}
    # The weights are those of the run, whatever wrote them.
    assert manifest["checkpoint"] == {"step": None, "sha256": trained.checkpoint.model_sha256}
    assert (manifest["license"], manifest["weights_license"], manifest["binarize"]) == (None, None, "none")
    assert {row.inputs for row in result.parity if row.graph == "encoder"} == {"real examples", "uniform noise"}
    card = (result.path / "README.md").read_text()
    assert "the model came from a program" in card and "The options of the model" not in card
    model = vaezoo.runtime.load(result.path)
    with torch.no_grad():
        expected = trained.vae.reconstruct(trained.examples.x)
    np.testing.assert_allclose(model.reconstruct(trained.examples.x.numpy()), expected, atol=1e-5, rtol=1e-4)
    (elbo, *_) = vaezoo.evaluate(model, digits.test.x[:20]).metrics
    assert elbo.value == pytest.approx(vaezoo.evaluate(vae, digits.test.x[:20]).metrics[0].value, rel=1e-4)


def test_examples_replace_those_of_a_run(trained, digits, tmp_path):
    x = digits.test.x[200:300]
    result = export_onnx(trained, tmp_path / "out", examples=x, parts=["encoder"])
    golden = result.path / "golden" / "encoder" / "test_data_set_0" / "input_0.pb"
    first = onnx.numpy_helper.to_array(onnx.load_tensor(golden))
    np.testing.assert_array_equal(first[0], x[even_indices(64, 100)[0]].float() / 255)


@pytest.mark.slow
def test_a_module_in_int8_needs_examples(trained, digits, tmp_path):
    with pytest.raises(VaezooError, match="int8 needs 16 held-out examples, and there are 0") as e:
        export_onnx(trained.vae, tmp_path / "out", dtype="int8")
    assert "examples=" in e.value.hint
    result = export_onnx(trained.vae, tmp_path / "out", dtype="int8", examples=digits.test.x[:64], parts=["decoder"])
    verify_onnx(result.path)


def test_default_folder_of_a_module(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_onnx(trained.vae, parts=["decoder"]).path == Path("exports") / type(trained.vae).__name__


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda vae, exported: torch.nn.Linear(2, 2), r"type Linear is not a run, an export or a vaezoo\.VAE"),
        (lambda vae, exported: vaezoo.runtime.load(exported.path), "is an export already"),
        (lambda vae, exported: without_data(vae), "does not know the data that it was made for"),
        (lambda vae, exported: with_nan(vae), "holds values that are not finite, in "),
    ],
)
def test_what_cannot_be_exported_is_refused(trained, exported, tmp_path, change, words):
    model = change(copy.deepcopy(trained.vae), exported)
    with pytest.raises(VaezooError, match=words) as e:
        export_onnx(model, tmp_path / "out")
    assert e.value.hint and not (tmp_path / "out").exists()


def without_data(vae):
    del vae.data
    return vae


def with_nan(vae):
    with torch.no_grad():
        next(vae.parameters()).view(-1)[0] = float("nan")
    return vae


def test_examples_must_fit(trained, digits, tmp_path):
    with pytest.raises(UnsupportedDataError, match="examples of shape"):
        export_onnx(trained.vae, tmp_path / "out", examples=np.zeros((20, 5, 5), np.uint8))


def test_card_states_quality_and_options(trained, digits, tmp_path):
    run = dataclasses.replace(trained, path=shutil.copytree(trained.path, tmp_path / "run"))
    evaluation = vaezoo.evaluate(run, digits, metrics=["elbo"], limit=20)
    vaezoo.save_evaluation(run.path, evaluation)
    other = dataclasses.replace(evaluation, checkpoint={"step": 1, "sha256": "0" * 64}, data="others")
    vaezoo.save_evaluation(run.path, other)
    result = export_onnx(run, tmp_path / "out", parts=["decoder"])
    assert result.manifest["finished"] is True
    card = (result.path / "README.md").read_text()
    metrics = run.result["metrics"]
    assert f"| -ELBO | {-metrics['elbo']:.2f} | nats | digits, test | at the end of the training |" in card
    elbo = evaluation.metrics[0]
    assert f"| -ELBO | {elbo.value:.2f} ± {elbo.error:.2g} | nats | digits, test | {elbo.protocol} |" in card
    assert "others" not in card and "| training | finished |" in card
    for name, value in {"latent_dim": "16", "channels": "none", "activation": "relu"}.items():
        assert f"| {name} | {value} |" in card
    assert "clipped" not in card and verify_onnx(result.path)


def test_card_of_an_unfinished_training(trained, tmp_path):
    run = dataclasses.replace(trained, result={})
    result = export_onnx(run, tmp_path / "out", parts=["decoder"])
    card = (result.path / "README.md").read_text()
    assert result.manifest["finished"] is False and "| training | **not finished** when this was exported |" in card
    value = -trained.checkpoint.metrics["elbo"]
    assert f"| -ELBO | {value:.2f} | nats | digits, valid | validation during the training |" in card


def test_damaged_evaluation_is_named(trained, tmp_path):
    run = dataclasses.replace(trained, path=shutil.copytree(trained.path, tmp_path / "run"))
    (run.path / "eval").mkdir()
    (run.path / "eval" / "a.json").write_text('{"schema": 2, "metrics": 5}')
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        export_onnx(run, tmp_path / "out")


@pytest.mark.slow
def test_failed_parity_writes_nothing(trained, tmp_path, monkeypatch):
    torch.manual_seed(9)
    other = export_graphs(create_model("conv-vae", trained.data))
    monkeypatch.setattr("vaezoo.export.export.export_graphs", lambda *args: other)
    with pytest.raises(ParityError) as e:
        export_onnx(trained, tmp_path / "out")
    assert "encoder: 'mu' at batch 1 on real examples, element [0, " in e.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["encoder.onnx", "golden/encoder", "README.md", "manifest.json"])
def test_full_disk_keeps_earlier_export(trained, export_copy, graphs_opset_20, monkeypatch, file):
    old = {path: path.read_bytes() for path in export_copy.rglob("*") if path.is_file()}
    for method in ("write_bytes", "write_text"):
        real = getattr(Path, method)

        def write(self, data, real=real):
            if file in self.as_posix():
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(Path, method, write)
    monkeypatch.setattr("vaezoo.export.export.export_graphs", lambda *args: graphs_opset_20)
    with pytest.raises(StorageError, match="No space left on device"):
        export_onnx(trained, export_copy, opset=20)
    assert list(export_copy.parent.iterdir()) == [export_copy]
    assert {path: path.read_bytes() for path in export_copy.rglob("*") if path.is_file()} == old


def with_methods(vae, **methods):
    """Returns a small model with some methods replaced."""
    vae = create_model("mlp-vae", vae.data, {"hidden": [4], "latent_dim": 2})
    vae.__class__ = type("Other", (type(vae),), methods)
    return vae


@pytest.mark.slow
def test_fixed_batch_size_is_found(trained):
    def decode(self, z):
        return type(trained.vae).decode(self, z).reshape(2, -1)

    vae = with_methods(trained.vae, decode=decode)
    with pytest.raises(ParityError, match=r"decoder: 'x_mean' has shape \[2, 392\*batch\]") as e:
        check_parity(vae, export_graphs(vae))
    assert "x.shape[0] or -1" in e.value.hint


@pytest.mark.parametrize("draw", [torch.randn_like, torch.rand_like, lambda z: torch.nn.functional.dropout(z)])
@pytest.mark.slow
def test_random_operators_are_found(trained, draw):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z + draw(z)))
    with pytest.raises(ParityError, match=r"decoder: node '\w+' \(\w+\) draws at random"):
        check_parity(vae, export_graphs(vae))


@pytest.mark.slow
def test_dependent_examples_are_found(trained):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z - z.mean(0)))
    with pytest.raises(ParityError, match="decoder: 'x_mean' at batch 1 ") as e:
        check_parity(vae, export_graphs(vae))
    assert "examples independent of each other" in e.value.hint


@pytest.mark.slow
def test_single_examples_must_work(trained):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z - z[1]))
    with pytest.raises(ParityError, match="decoder fails at batch 1 on latents of generated examples"):
        check_parity(vae, export_graphs(vae))


@pytest.mark.slow
def test_float64_latents_export(trained):
    vae = with_methods(
        trained.vae,
        encode=lambda self, x: DiagonalGaussian(*(t.double() for t in type(trained.vae).encode(self, x))),
        decode=lambda self, z: type(trained.vae).decode(self, z.float()),
    )
    graphs = export_graphs(vae)
    assert graphs["decoder"].signature["inputs"][0]["dtype"] == "float64"
    assert len(check_parity(vae, graphs)[0]) == 7


class Codes(NamedTuple):
    """A posterior over integers."""

    indices: Tensor

    def mode(self):
        return self.indices


@pytest.mark.slow
def test_integer_latents_export(trained):
    vae = with_methods(
        trained.vae,
        encode=lambda self, x: Codes((9 * type(trained.vae).encode(self, x).mu).round().long()),
        decode=lambda self, z: type(trained.vae).decode(self, z / 9),
    )
    rows, _ = check_parity(vae, export_graphs(vae))
    assert [r.inputs for r in rows if r.graph == "decoder"] == ["latents of generated examples", "latents of noise"]


def test_graph_with_fixed_batch_fails(trained, graphs):
    model = onnx.load_from_string(graphs["decoder"].data)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    fixed = Graph("decoder", model.SerializeToString(), graphs["decoder"].signature)
    with pytest.raises(ParityError, match=r"'x_mean' has shape \[2, 1, 28, 28\]"):
        check_parity(trained.vae, graphs | {"decoder": fixed})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.00012])
def test_elements_out_of_tolerance_fail(value):
    expected, actual = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    actual[1, 2] = value
    fp32 = Tolerance("fp32", "cpu")
    with pytest.raises(ParityError, match=r"element \[1, 2\]"):
        compare_output("decoder", "noise", "x_mean", expected, actual, fp32)
    actual[1, 2] = 1.0001
    assert compare_output("decoder", "noise", "x_mean", expected, actual, fp32).max_abs == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize(("dtype", "levels"), [("fp32", 1), ("fp16", 3)])
def test_uint8_tolerance_does_not_wrap(dtype, levels):
    expected, uint8 = np.full((1, 2), 255, np.uint8), Tolerance(dtype, "cpu")
    assert compare_output("decoder", "noise", "x_mean", expected, expected - levels, uint8).max_abs == levels
    for wrong in (expected - levels - 1, expected * 0):
        with pytest.raises(ParityError):
            compare_output("decoder", "noise", "x_mean", expected, wrong, uint8)


@pytest.mark.parametrize(
    ("dtype", "size", "allowed"), [("fp32", 2, 1), ("fp32", 1000, 1), ("fp32", 4500, 4), ("fp16", 4500, 45)]
)
def test_few_integers_may_differ(dtype, size, allowed):
    expected = np.full((1, size), 3)
    for flips in (allowed, allowed + 1):
        actual = expected.copy()
        actual[0, :flips] += 100
        compare = partial(compare_output, "encoder", "noise", "indices", expected, actual, Tolerance(dtype, "cpu"))
        if flips == allowed:
            assert (compare().max_abs, compare().limit) == (allowed, max(1, size / (1000 if dtype == "fp32" else 100)))
        else:
            with pytest.raises(ParityError, match=f"{flips} of {size:,} numbers differ"):
                compare()


def test_integers_keep_their_type():
    expected = np.array([[3, 4]])
    with pytest.raises(ParityError, match="0 of 2 numbers differ"):
        compare_output("encoder", "noise", "indices", expected, expected.astype(np.int32), Tolerance("fp32", "cpu"))


def test_bools_must_be_equal():
    expected = np.zeros((1, 4000), bool)
    actual = expected.copy()
    actual[0, 7] = True
    with pytest.raises(ParityError, match=r"element \[0, 7\]"):
        compare_output("encoder", "noise", "mask", expected, actual, Tolerance("fp16", "cpu"))


@pytest.mark.slow
def test_reference_evaluator_replaces_onnxruntime(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("vaezoo.export.tolerance.has_runtime", lambda: False)
    run = train("mlp-vae", digits, config=TrainConfig(steps=1, batch_size=20), out=tmp_path / "run")
    exported = export_onnx(run, tmp_path / "out")
    assert exported.manifest["parity"]["runtime"] == "onnx.reference"
    assert "in onnx.reference on the CPU" in (exported.path / "README.md").read_text()


def test_posterior_must_be_a_namedtuple(trained):
    vae = with_methods(trained.vae, encode=lambda self, x: list(type(trained.vae).encode(self, x)))
    with pytest.raises(PluginError, match="not a NamedTuple"):
        export_graphs(vae)


class Laplace(NamedTuple):
    """A posterior whose mode is not one of its fields."""

    half: Tensor
    scale: Tensor

    def mode(self):
        return 2 * self.half


@pytest.mark.slow
def test_mode_becomes_an_output(trained):
    vae = with_methods(trained.vae, encode=lambda self, x: Laplace(*type(trained.vae).encode(self, x)))
    fields, mode = named_outputs(vae.encode(trained.examples.x[:2]))
    assert (list(fields), mode, mode_name(vae)) == (["mode", "half", "scale"], "mode", "mode")
    rows, _ = check_parity(vae.eval(), export_graphs(vae))
    assert {row.output for row in rows} == {"mode", "half", "scale", "x_mean"}


@pytest.mark.slow
def test_generated_examples_replace_missing_ones(trained, tmp_path):
    exported = export_onnx(dataclasses.replace(trained, examples=None), tmp_path / "out")
    assert exported.parity[0].inputs == "generated examples"
    assert "All inputs are generated." in (exported.path / "README.md").read_text()


def test_parity_runs_each_batch_size(trained, graphs, monkeypatch):
    _, cases = check_parity(trained.vae, graphs)
    files = {name: graph.data for name, graph in graphs.items()}
    signatures = {name: graph.signature for name, graph in graphs.items()}
    sizes = []
    real = tolerance.make_runner

    def spy(data, provider):
        run = real(data, provider)
        return lambda inputs: sizes.extend(map(len, inputs.values())) or run(inputs)

    monkeypatch.setattr(tolerance, "make_runner", spy)
    check_graphs(files, signatures, cases, "mu", ExportConfig())
    assert set(sizes) == set(BATCHES) == {1, 2, 3, 7, 64}


@pytest.mark.slow
def test_export_keeps_training_mode(trained):
    vae = with_methods(trained.vae).train()
    frozen = next(vae.children()).eval()
    check_parity(vae, export_graphs(vae))
    assert vae.training and not frozen.training


def test_gaussian_fields_name_outputs(trained):
    fields, mode = named_outputs(trained.vae.encode(trained.examples.x[:2]))
    assert tuple(fields) == DiagonalGaussian._fields and mode == "mu"


def test_export_onnx_is_public():
    assert vaezoo.export_onnx is export_onnx


def test_int8_states_its_tolerance(shared_export, trained):
    exported, fp32 = shared_export(dtype="int8"), shared_export()
    manifest = exported.manifest
    assert manifest["parity"]["tolerance"] == {"measure": "rms", "share": 0.1, "encoder_atol": 0.01}
    assert fp32.manifest["parity"]["tolerance"] == {"measure": "largest", "atol": 1e-5, "rtol": 1e-4}
    assert {(row.graph, row.inputs) for row in exported.parity} == {
        ("encoder", "real examples"),
        ("decoder", "latents of real examples"),
        ("decoder", "latents of 1 sigma"),
        ("round trip", "real examples"),
    }
    assert all(1e-5 < row.rms <= row.limit for row in exported.parity)
    assert verify_onnx(exported.path).parity[0].rms == pytest.approx(exported.parity[0].rms, rel=0.5)
    for name in ("encoder.onnx", "decoder.onnx"):
        assert manifest["files"][name]["bytes"] < 0.5 * fp32.manifest["files"][name]["bytes"]
    # Its golden examples are none of those that calibrated it.
    golden = onnx.numpy_helper.to_array(onnx.load_tensor(exported.path / "golden/encoder/test_data_set_0/input_0.pb"))
    np.testing.assert_array_equal(golden, trained.examples.x[1:16:2])
    card = (exported.path / "README.md").read_text()
    assert "root mean square difference" in card and "int8 weights and arithmetic" in card
    assert "Values beyond these\nranges are clipped" in card and "slower for a batch of 1" in card


@pytest.mark.slow
def test_int8_tolerance_is_a_gate(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(tolerance, "INT8_SHARE", 1e-4)
    monkeypatch.setattr(tolerance, "INT8_FLOOR", 0)
    with pytest.raises(ParityError, match="encoder: 'mu' at batch 1 on real examples differs by") as e:
        export_onnx(trained, tmp_path / "out", dtype="int8")
    assert "use --dtype fp16" in e.value.hint and list(tmp_path.iterdir()) == []


def test_int8_tolerance_refuses_nan():
    expected, actual = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    expected[0], int8 = 0, Tolerance("int8", "cpu")
    actual[0] = 0.05
    for graph, limit in (("decoder", 0.05), ("encoder", 0.06)):
        row = compare_output(graph, "noise", "x_mean", expected, actual, int8)
        assert (row.rms, row.limit) == (pytest.approx(0.05 / 2**0.5), pytest.approx(limit))
    tiny = [1e-4 * array for array in (expected, actual)]
    assert compare_output("decoder", "noise", "x_mean", *tiny, int8).limit == pytest.approx(0.05e-4)
    for wrong in (0.2, float("nan"), float("inf")):
        actual[0] = wrong
        with pytest.raises(ParityError, match="in the root mean square"):
            compare_output("decoder", "noise", "x_mean", expected, actual, int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: {"examples": None}, "int8 needs 16 held-out examples, and there are 0"),
        (
            lambda run: {
                "vae": with_methods(run.vae, encode=lambda self, x: Codes(type(run.vae).encode(self, x).mu.long()))
            },
            "int8 is not for codes",
        ),
        (
            lambda run: {"vae": with_methods(run.vae, autoregressive=vaezoo.Autoregressive(3))},
            "int8 is not for ids that are drawn one by one",
        ),
    ],
    ids=["tolerance without examples", "tolerance of codes", "tolerance of ids"],
)
def test_int8_is_refused_where_it_makes_no_sense(trained, tmp_path, change, words):
    run = dataclasses.replace(trained, **change(trained))
    with pytest.raises(VaezooError, match=words) as e:
        export_onnx(run, tmp_path / "out", dtype="int8")
    assert e.value.hint.startswith("use --dtype fp16")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq-vae", "resnet-vae", "vamp-vae"])
def test_models_at_the_lowest_opset(name):
    """Reductions, resizes and splits are written as they were in opset 15."""
    vae = supported(name, DataSpec(name="x", shape=(3, 32, 32), likelihood="bernoulli", classes=(3,)))
    config = ExportConfig(opset=15)
    assert check_parity(vae, export_graphs(vae, config), config)[0]


@pytest.mark.slow
def test_int8_in_bytes_at_the_lowest_opset(shared_export, trained):
    exported = shared_export(dtype="int8", uint8=True, opset=15)
    assert verify_onnx(exported.path).parity
    images = (trained.examples.x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    fp32 = vaezoo.runtime.load(shared_export(uint8=True).path).reconstruct(images).astype(int)
    assert np.abs(vaezoo.runtime.load(exported.path).reconstruct(images) - fp32).mean() < 5
