"""ONNX graphs: equal to the model, any batch, whole or absent, the same bytes each time."""

import dataclasses
import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

import vaezoo
from vaezoo import DataSpec, DiagonalGaussian, TrainConfig, create_model, export_onnx, list_models, train, verify_onnx
from vaezoo.errors import ParityError, PluginError, StorageError, UnsupportedDataError, VaezooError
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import Graph, encoder_outputs, export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.export.tolerance import BATCHES, Rule, check_graphs, compare_output
from vaezoo.runtime.manifest import MANIFEST

MODELS = [r.name for r in list_models() if r.distribution == "vaezoo"]
FILES = ["README.md", "decoder.onnx", "encoder.onnx", "golden", MANIFEST]
HALF_BYTES = ExportConfig(dtype="fp16", uint8=True)


def session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_files_compute_what_the_model_computes(exported, trained, digits):
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


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_graphs_are_self_contained_and_tell_nothing_of_this_machine(exported, part):
    file = exported.path / f"{part}.onnx"
    model = onnx.load(file, load_external_data=False)
    assert model.producer_name == "vaezoo"
    assert [o.version for o in model.opset_import if not o.domain] == [18]
    assert not any(t.external_data for t in model.graph.initializer)
    assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"site-packages" not in file.read_bytes() and b".py" not in file.read_bytes()
    assert sorted(p.name for p in exported.path.iterdir()) == FILES


def test_the_manifest_says_what_the_files_are(exported, trained):
    manifest = json.loads((exported.path / MANIFEST).read_text())
    assert manifest["model"] == "vaezoo/conv-vae" and manifest["data"]["shape"] == [1, 28, 28]
    assert manifest["checkpoint"]["sha256"] == trained.checkpoint.model_sha256
    assert manifest["graphs"]["encoder"]["outputs"][1] == {
        "name": "logvar",
        "dtype": "float32",
        "shape": ["batch", 16],
    }
    assert (manifest["mode"], manifest["prior"], manifest["license"]) == ("mu", "standard-normal", "MIT")
    assert (manifest["binarize"], manifest["weights_license"]) == ("none", None)
    for name, described in manifest["files"].items():
        assert (exported.path / name).stat().st_size == described["bytes"]
    rows = manifest["parity"]["rows"]
    assert {(r["part"], r["inputs"]) for r in rows} == {
        ("encoder", "real examples"),
        ("encoder", "uniform noise"),
        ("decoder", "codes of real examples"),
        ("decoder", "latents of 3 sigma"),
        ("round trip", "real examples"),
    }
    assert all(row["max_abs"] <= row["limit"] for row in rows)


def test_each_graph_says_what_it_is(exported, trained):
    told = {p: session(exported.path / f"{p}.onnx").get_modelmeta().custom_metadata_map for p in ("encoder", "decoder")}
    for part, sibling in (("encoder", "decoder"), ("decoder", "encoder")):
        meta = told[part]
        assert meta["vaezoo.part"] == part
        assert meta["vaezoo.sibling_sha256"] == told[sibling]["vaezoo.graph_sha256"]
        assert meta["vaezoo.checkpoint_sha256"] == trained.checkpoint.model_sha256
        defaults = {"channels": [], "strides": [], "kernel_size": 4, "dense": [], "activation": "relu"}
        assert json.loads(meta["vaezoo.options"]) == {"latent_dim": 16, **defaults}
        assert json.loads(meta["vaezoo.shape"]) == [1, 28, 28]
        assert (meta["vaezoo.likelihood"], meta["vaezoo.range"], meta["vaezoo.dtype"]) == ("bernoulli", "0..1", "fp32")
        assert meta["Image.BitmapPixelFormat"] == "Gray8" and meta["vaezoo.license"] == "MIT"


def test_the_same_run_exports_to_the_same_bytes_and_replaces_an_earlier_export(exported, trained, tmp_path):
    target = tmp_path / "again"
    export_onnx(trained, target, opset=20)
    (target / "samples.png").write_text("")
    export_onnx(trained, target)
    assert sorted(p.name for p in target.iterdir()) == FILES
    for file in (p for p in target.rglob("*") if p.is_file()):
        assert file.read_bytes() == (exported.path / file.relative_to(target)).read_bytes(), file


def test_the_card_s_program_runs_with_numpy_and_onnxruntime_alone(exported):
    card = (exported.path / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    assert "import torch" not in program
    program += "\nassert samples.shape == reconstructions.shape == (16, 1, 28, 28) and 0 <= samples.min()"
    subprocess.run([sys.executable, "-c", program], cwd=exported.path, check=True)
    worst = max(row.max_abs for row in exported.parity if row.output == "mu")
    assert f"{worst:.1e}" in card


def test_the_golden_data_are_the_model_s_own(exported, trained):
    folder = exported.path / "golden" / "encoder" / "test_data_set_0"
    x, mu, logvar = (
        onnx.numpy_helper.to_array(onnx.load_tensor(folder / f"{name}.pb"))
        for name in ("input_0", "output_0", "output_1")
    )
    np.testing.assert_array_equal(x, trained.examples[:8].numpy())
    with torch.no_grad():
        posterior = trained.vae.encode(trained.examples)
    np.testing.assert_array_equal(mu, posterior.mu[:8])
    np.testing.assert_array_equal(logvar, posterior.logvar[:8])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 45)])
@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "gaussian:optimal"])
def test_every_model_exports_for_every_likelihood(name, shape, likelihood):
    vae = create_model(name, DataSpec(name="x", shape=shape, likelihood=likelihood))
    rows, _ = check_parity(vae, export_graphs(vae))
    fields = ["z"] if name == "autoencoder" else ["mu", "logvar"]
    assert [row.output for row in rows] == [*fields, *fields, "x_mean", "x_mean", "x_mean"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli"])
def test_every_model_exports_in_half_precision_on_bytes(name, likelihood):
    vae = create_model(name, DataSpec(name="x", shape=(3, 32, 32), likelihood=likelihood))
    graphs = export_graphs(vae, HALF_BYTES)
    check_parity(vae, graphs, HALF_BYTES)
    initializers = onnx.load_from_string(graphs["decoder"].data).graph.initializer
    assert not [t.name for t in initializers if t.data_type == onnx.TensorProto.FLOAT]


def test_bytes_in_and_out_are_the_image_s_own_levels(trained, tmp_path):
    exported = export_onnx(trained, tmp_path / "out", uint8=True)
    images = (trained.examples * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    model = vaezoo.runtime.load(exported.path)
    with torch.no_grad():
        expected = trained.vae.reconstruct(trained.examples)
    got = model.reconstruct(images)
    assert got.dtype == np.uint8 and got.shape == (64, 28, 28, 1)
    levels = (255 * expected).permute(0, 2, 3, 1).numpy()
    assert np.abs(got - levels).max() <= 0.501  # rounded to the nearest level
    assert verify_onnx(exported.path).parity


def test_bytes_are_for_images():
    with pytest.raises(UnsupportedDataError, match="uint8 is for images"):
        export_graphs(create_model("mlp-vae", DataSpec(name="x", shape=(9,))), ExportConfig(uint8=True))


@pytest.mark.parametrize("opset", [19, 20, 23])
def test_another_opset_is_the_one_in_the_file(trained, opset, tmp_path):
    exported = export_onnx(trained, tmp_path / "out", opset=opset)
    model = onnx.load(exported.path / "decoder.onnx")
    assert [o.version for o in model.opset_import if not o.domain] == [opset]


@pytest.mark.parametrize("opset", [5, 17, 99])
def test_an_opset_out_of_range_is_refused(trained, opset, tmp_path):
    with pytest.raises(VaezooError, match=f"opset {opset} is out of range"):
        export_onnx(trained, tmp_path / "out", opset=opset)


def test_an_opset_that_the_exporter_did_not_produce_is_refused(trained):
    graphs = export_graphs(trained.vae)
    with pytest.raises(VaezooError, match="asked for opset 20, the graph has 18"):
        check_parity(trained.vae, graphs, ExportConfig(opset=20))


def test_a_folder_in_the_way_is_left_alone(trained, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StorageError):
        export_onnx(trained, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_an_export_that_holds_somebody_s_own_files_is_not_replaced(trained, copy):
    (copy / "golden" / "notes.txt").write_text("precious")
    with pytest.raises(StorageError, match=r"it holds golden/notes.txt"):
        export_onnx(trained, copy)
    assert (copy / "golden" / "notes.txt").read_text() == "precious"


def test_graphs_of_another_model_fail_the_gate_and_leave_nothing(trained, tmp_path, monkeypatch):
    torch.manual_seed(9)
    other = export_graphs(create_model("conv-vae", trained.data))
    monkeypatch.setattr("vaezoo.export.export.export_graphs", lambda vae, form: other)
    with pytest.raises(ParityError) as e:
        export_onnx(trained, tmp_path / "out")
    assert "encoder: 'mu' at batch 1 on real examples, element [0, " in e.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["encoder.onnx", "golden/encoder", "README.md", "manifest.json"])
def test_a_full_disk_leaves_the_earlier_export_and_nothing_half_written(trained, copy, monkeypatch, file):
    old = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for method in ("write_bytes", "write_text"):
        real = getattr(Path, method)

        def write(self, data, real=real):
            if file in str(self):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(Path, method, write)
    with pytest.raises(StorageError, match="No space left on device"):
        export_onnx(trained, copy, opset=20)
    assert list(copy.parent.iterdir()) == [copy]
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == old


def with_methods(vae, **methods):
    """Returns the model with some methods replaced."""
    vae = create_model("conv-vae", vae.data)
    vae.__class__ = type("Other", (type(vae),), methods)
    return vae


def test_a_model_that_fixes_its_batch_is_caught_and_the_tensor_named(trained):
    def decode(self, z):
        return type(trained.vae).decode(self, z).reshape(2, -1)

    vae = with_methods(trained.vae, decode=decode)
    with pytest.raises(ParityError, match=r"decoder: 'x_mean' has shape \[2, 392\*batch\]") as e:
        check_parity(vae, export_graphs(vae))
    assert "x.shape[0] or -1" in e.value.hint


@pytest.mark.parametrize("draw", [torch.randn_like, torch.rand_like, lambda z: torch.nn.functional.dropout(z)])
def test_a_model_that_draws_at_random_is_caught_and_the_node_named(trained, draw):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z + draw(z)))
    with pytest.raises(ParityError, match=r"decoder: node '\w+' \(\w+\) draws at random"):
        check_parity(vae, export_graphs(vae))


def test_a_model_whose_examples_depend_on_each_other_is_caught(trained):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z - z.mean(0)))
    with pytest.raises(ParityError, match="decoder: 'x_mean' at batch 1 ") as e:
        check_parity(vae, export_graphs(vae))
    assert "depend on each other" in e.value.hint


def test_a_model_that_needs_a_second_example_is_caught(trained):
    vae = with_methods(trained.vae, decode=lambda self, z: type(trained.vae).decode(self, z - z[1]))
    with pytest.raises(ParityError, match="decoder fails at batch 1 on codes of generated examples"):
        check_parity(vae, export_graphs(vae))


def test_a_model_of_double_precision_exports(trained):
    vae = with_methods(
        trained.vae,
        encode=lambda self, x: DiagonalGaussian(*(t.double() for t in type(trained.vae).encode(self, x))),
        decode=lambda self, z: type(trained.vae).decode(self, z.float()),
    )
    graphs = export_graphs(vae)
    assert graphs["decoder"].signature["input"]["dtype"] == "float64"
    assert len(check_parity(vae, graphs)[0]) == 7


class Codes(NamedTuple):
    """A posterior over whole numbers."""

    indices: Tensor

    def mode(self):
        return self.indices


def test_latents_that_are_whole_numbers_export(trained):
    vae = with_methods(
        trained.vae,
        encode=lambda self, x: Codes((9 * type(trained.vae).encode(self, x).mu).round().long()),
        decode=lambda self, z: type(trained.vae).decode(self, z / 9),
    )
    rows, _ = check_parity(vae, export_graphs(vae))
    assert [r.inputs for r in rows if r.part == "decoder"] == ["codes of generated examples", "codes of noise"]


def test_a_graph_that_fixes_the_batch_fails_the_gate(trained):
    graphs = export_graphs(trained.vae)
    model = onnx.load_from_string(graphs["decoder"].data)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    fixed = Graph("decoder", model.SerializeToString(), graphs["decoder"].signature)
    with pytest.raises(ParityError, match=r"'x_mean' has shape \[2, 1, 28, 28\]"):
        check_parity(trained.vae, graphs | {"decoder": fixed})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.00012])
def test_the_element_rule_lets_nothing_through(value):
    ours, theirs = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    theirs[1, 2] = value
    rule = Rule("fp32", "cpu")
    with pytest.raises(ParityError, match=r"element \[1, 2\]"):
        compare_output("decoder", "noise", "x_mean", ours, theirs, rule)
    theirs[1, 2] = 1.0001
    assert compare_output("decoder", "noise", "x_mean", ours, theirs, rule).max_abs == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize(("dtype", "levels"), [("fp32", 1), ("fp16", 3)])
def test_bytes_may_differ_by_few_levels_and_not_wrap(dtype, levels):
    ours, rule = np.full((1, 2), 255, np.uint8), Rule(dtype, "cpu")
    assert compare_output("decoder", "noise", "x_mean", ours, ours - levels, rule).max_abs == levels
    for wrong in (ours - levels - 1, ours * 0):
        with pytest.raises(ParityError):
            compare_output("decoder", "noise", "x_mean", ours, wrong, rule)


def test_whole_numbers_must_be_equal():
    ours = np.array([[3]])
    with pytest.raises(ParityError):
        compare_output("encoder", "noise", "indices", ours, ours + 1, Rule("fp16", "cpu"))


def test_without_onnxruntime_the_reference_evaluator_checks(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("vaezoo.export.tolerance.has_runtime", lambda: False)
    run = train("mlp-vae", digits, config=TrainConfig(steps=1, batch_size=20), out=tmp_path / "run")
    exported = export_onnx(run, tmp_path / "out")
    assert exported.manifest["parity"]["runtime"] == "onnx.reference"
    assert "in onnx.reference on the CPU" in (exported.path / "README.md").read_text()


def test_a_posterior_that_is_no_named_tuple_is_told_so(trained):
    vae = with_methods(trained.vae, encode=lambda self, x: list(type(trained.vae).encode(self, x)))
    with pytest.raises(PluginError, match="no NamedTuple"):
        export_graphs(vae)


class Laplace(NamedTuple):
    """A posterior whose mode is none of its fields."""

    half: Tensor
    scale: Tensor

    def mode(self):
        return 2 * self.half


def test_a_mode_that_is_no_field_becomes_an_output(trained):
    vae = with_methods(trained.vae, encode=lambda self, x: Laplace(*type(trained.vae).encode(self, x)))
    fields, mode = encoder_outputs(vae, trained.examples[:2])
    assert (list(fields), mode) == (["mode", "half", "scale"], "mode")
    rows, _ = check_parity(vae.eval(), export_graphs(vae))
    assert {row.output for row in rows} == {"mode", "half", "scale", "x_mean"}


def test_a_run_without_examples_is_compared_on_generated_ones(trained, tmp_path):
    exported = export_onnx(dataclasses.replace(trained, examples=None), tmp_path / "out")
    assert exported.parity[0].inputs == "generated examples"


def test_the_gate_runs_each_batch_size(trained):
    graphs, seen = export_graphs(trained.vae), []
    _, cases = check_parity(trained.vae, graphs)
    files = {part: graph.data for part, graph in graphs.items()}
    signatures = {part: graph.signature for part, graph in graphs.items()}

    from vaezoo.export import tolerance

    make = tolerance.make_runner

    def spy(data, provider):
        run = make(data, provider)
        return lambda x: seen.append(len(x)) or run(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tolerance, "make_runner", spy)
        check_graphs(files, signatures, cases, "mu", ExportConfig())
    assert set(seen) == set(BATCHES) == {1, 2, 3, 7, 64}


def test_export_leaves_the_model_in_its_mode(trained):
    vae = dataclasses.replace(trained).vae.train()
    frozen = next(vae.children()).eval()
    check_parity(vae, export_graphs(vae))
    assert vae.training and not frozen.training
    vae.eval()


def test_a_diagonal_gaussian_exports_under_its_fields_names(trained):
    fields, mode = encoder_outputs(trained.vae, trained.examples[:2])
    assert tuple(fields) == DiagonalGaussian._fields and mode == "mu"


def test_the_public_name_is_there():
    assert vaezoo.export_onnx is export_onnx
