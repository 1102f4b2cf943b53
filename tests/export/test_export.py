"""ONNX graphs: equal to the model, any batch, whole or absent, the same bytes each time."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, create, export_onnx, list_models
from vaezoo.errors import ParityError, PluginError, StorageError, VaezooError
from vaezoo.export import parity
from vaezoo.export.folder import MANIFEST
from vaezoo.export.graphs import Graph, export_graphs
from vaezoo.export.parity import check_parity, compare

MODELS = [r.name for r in list_models() if r.distribution == "vaezoo"]


def session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export_onnx(trained, tmp_path_factory.mktemp("exports") / "conv")


def test_the_files_compute_what_the_model_computes(exported, trained, digits):
    x = digits.test.batch(slice(0, 5)).x
    with torch.no_grad():
        posterior = trained.vae.encode(x)
        pictures = trained.vae.reconstruct(x)
    mu, logvar = session(exported.path / "encoder.onnx").run(None, {"x": x.numpy()})
    (x_mean,) = session(exported.path / "decoder.onnx").run(None, {"z": mu})
    np.testing.assert_allclose(mu, posterior.mu, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(logvar, posterior.logvar, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(x_mean, pictures, atol=1e-5, rtol=1e-4)
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
    assert sorted(p.name for p in exported.path.iterdir()) == ["decoder.onnx", "encoder.onnx", MANIFEST]


def test_the_manifest_says_what_the_files_are(exported, trained):
    manifest = json.loads((exported.path / MANIFEST).read_text())
    assert manifest["model"] == "conv-vae" and manifest["data"]["shape"] == [1, 28, 28]
    assert manifest["checkpoint"]["sha256"] == trained.checkpoint.model_sha256
    assert manifest["files"]["encoder.onnx"]["outputs"] == ["mu", "logvar"]
    for name, described in manifest["files"].items():
        assert (exported.path / name).stat().st_size == described["bytes"]
    assert all(row["max_abs"] <= row["limit"] for row in manifest["parity"]["outputs"])


def test_the_same_run_exports_to_the_same_bytes_and_replaces_an_earlier_export(exported, trained, tmp_path):
    target = tmp_path / "again"
    export_onnx(trained, target)
    (target / "stale").write_text("")
    export_onnx(trained, target)
    assert sorted(p.name for p in target.iterdir()) == ["decoder.onnx", "encoder.onnx", MANIFEST]
    for name in ("encoder.onnx", "decoder.onnx"):
        assert (target / name).read_bytes() == (exported.path / name).read_bytes()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 45)])
@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "gaussian:optimal"])
def test_every_model_exports_for_every_likelihood(name, shape, likelihood):
    vae = create(name, DataSpec(name="x", shape=shape, likelihood=likelihood))
    rows = check_parity(vae, export_graphs(vae))
    assert [row.output for row in rows] == ["mu", "logvar", "x_mean"]


def test_an_opset_out_of_range_is_refused(trained):
    with pytest.raises(VaezooError, match="opset 5 is out of range"):
        export_graphs(trained.vae, 5)


def test_a_folder_in_the_way_is_left_alone(trained, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StorageError):
        export_onnx(trained, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_graphs_of_another_model_fail_the_gate_and_leave_nothing(trained, tmp_path, monkeypatch):
    torch.manual_seed(9)
    other = export_graphs(create("conv-vae", trained.data))
    monkeypatch.setattr("vaezoo.export.folder.export_graphs", lambda vae, opset: other)
    with pytest.raises(ParityError) as e:
        export_onnx(trained, tmp_path / "out")
    assert "encoder: 'mu' at batch 1, element [0, " in e.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_fixes_the_batch_fails_the_gate(trained):
    graphs = export_graphs(trained.vae)
    model = onnx.load_from_string(graphs["decoder"].data)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    fixed = Graph("decoder", model.SerializeToString(), "z", ("x_mean",))
    with pytest.raises(ParityError, match=r"'x_mean' has shape \[2, 1, 28, 28\]"):
        check_parity(trained.vae, graphs | {"decoder": fixed})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0011])
def test_the_element_rule_lets_nothing_through(value):
    ours, theirs = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    theirs[1, 2] = value
    with pytest.raises(ParityError, match=r"element \[1, 2\]"):
        compare("decoder", "x_mean", 2, ours, theirs)
    theirs[1, 2] = 1.0001
    assert compare("decoder", "x_mean", 2, ours, theirs).max_abs == pytest.approx(1e-4, rel=1e-2)


def test_without_onnxruntime_the_reference_evaluator_checks(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(parity.importlib.util, "find_spec", lambda name: None)
    exported = export_onnx(trained, tmp_path / "out")
    assert exported.runtime == "onnx.reference"
    assert json.loads((exported.path / MANIFEST).read_text())["parity"]["runtime"] == "onnx.reference"


def test_a_posterior_that_is_no_named_tuple_is_told_so(trained):
    class Other(type(trained.vae)):
        def encode(self, x):
            return list(super().encode(x))

    vae = create("conv-vae", trained.data)
    vae.__class__ = Other
    with pytest.raises(PluginError, match="no NamedTuple"):
        export_graphs(vae)


def test_export_leaves_the_model_in_its_mode(trained):
    vae = dataclasses.replace(trained).vae.train()
    export_graphs(vae)
    assert vae.training
    vae.eval()


def test_what_export_returns_prints_in_a_line(exported):
    assert len(repr(exported)) < 1500


def test_the_public_name_is_there():
    assert vaezoo.export_onnx is export_onnx
